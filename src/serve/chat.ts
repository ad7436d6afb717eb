// Answers a chat completion, at once or as events while it is generated.

import type { AnswerPiece, BatchAnswer } from '../generate/batch-session.ts';
import type { Ask, ServedModel } from './ask.ts';
import { createCompletion } from './completion.ts';
import { ApiError, toApiError } from './errors.ts';
import { createEventStream } from './event-stream.ts';
import type { RequestRecord } from './log.ts';
import type { ServerMetrics } from './server-metrics.ts';

export interface ChatContext {
  model: ServedModel;
  ask: Ask;
  /** Aborts when the client goes away. */
  signal: AbortSignal;
  metrics: ServerMetrics;
  record: RequestRecord;
  /** Milliseconds after which a client that reads nothing is let go. */
  stall: number;
}

/**
 * Milliseconds within which an error is still a status: a stream begins with the first piece, or after this,
 * so that proxies see that the connection lives.
 */
const PATIENCE = 10_000;

/** Status that nginx logs for a client that has gone; nobody receives it. */
const CLIENT_GONE = 499;

/** Asks the model, and counts. */
async function ask(
  { model, ask, metrics, record }: ChatContext,
  signal: AbortSignal,
  onPiece: (piece: AnswerPiece) => void,
): Promise<BatchAnswer> {
  const labels = { model: model.id };
  let lastAt: number | undefined;
  const answer = await model.answer(
    ask,
    (piece) => {
      const now = performance.now();
      if (lastAt === undefined) metrics.firstToken.observe((now - record.start) / 1000, labels);
      else metrics.betweenTokens.observe((now - lastAt) / 1000, labels);
      lastAt = now;
      onPiece(piece);
    },
    signal,
  );
  metrics.promptTokens.add(answer.promptTokens, labels);
  metrics.cachedTokens.add(answer.cachedTokens, labels);
  metrics.generatedTokens.add(answer.tokens, labels);
  metrics.duration.observe((performance.now() - record.start) / 1000, labels);
  return answer;
}

const counts = ({ promptTokens, tokens }: BatchAnswer) => ({ promptTokens, tokens });

/** What is answered where no answer came, and what the log says of it. */
function failure({ metrics, record }: ChatContext, error: unknown, isGone: boolean, hasBegun: boolean): ApiError {
  if (isGone) return leftBy({ metrics, record }, error);
  const problem = toApiError(error);
  if (!(error instanceof ApiError)) console.error(error);
  record.finish({ status: hasBegun ? 200 : problem.status, ended: problem.message });
  return problem;
}

/** The same where the client has gone. The server's reasons are texts, ours are errors. */
export function leftBy({ metrics, record }: Pick<ChatContext, 'metrics' | 'record'>, reason: unknown): ApiError {
  metrics.cancelled.add(1);
  record.finish({ status: CLIENT_GONE, ended: reason instanceof Error ? reason.message : String(reason) });
  return toApiError(reason);
}

/** The answer as one object. */
export async function answerWhole(context: ChatContext): Promise<Response> {
  const { model, signal, record } = context;
  const pieces: AnswerPiece[] = [];
  try {
    const answer = await ask(context, signal, (piece) => pieces.push(piece));
    record.finish({ status: 200, ...counts(answer) });
    return Response.json(createCompletion(model.id).whole(pieces, answer));
  } catch (error) {
    return failure(context, error, signal.aborted, false).response();
  }
}

/** The answer as events; `release` is called at its end. */
export async function answerWithEvents(context: ChatContext, includeUsage: boolean, release: () => void): Promise<Response> {
  const { model, signal, record, stall } = context;
  const completion = createCompletion(model.id, includeUsage);
  // not AbortSignal.any: Node keeps such a signal for ever while somebody listens to it
  const gone = new AbortController();
  signal.addEventListener('abort', () => gone.abort(signal.reason), { once: true });
  const events = createEventStream({ stall, onGone: (reason) => gone.abort(reason) });
  let begin = () => {};
  let hasBegun = false;
  const begun = new Promise<void>((resolve) => {
    begin = () => {
      if (!hasBegun) events.send(completion.first());
      hasBegun = true;
      resolve();
    };
  });

  const late = setTimeout(begin, PATIENCE);

  const work = async () => {
    try {
      const answer = await ask(context, gone.signal, (piece) => {
        begin();
        events.send(completion.piece(piece));
      });
      begin();
      events.send(completion.last(answer));
      if (includeUsage) events.send(completion.usage(answer));
      events.send('[DONE]');
      record.finish({ status: 200, ...counts(answer) });
      return undefined;
    } catch (error) {
      const problem = failure(context, error, gone.signal.aborted, hasBegun);
      if (hasBegun) events.send(problem.body);
      return problem;
    } finally {
      clearTimeout(late);
      events.end();
      release();
    }
  };
  const result = work();
  const problem = await Promise.race([result, begun]);
  return problem && !hasBegun ? problem.response() : events.response;
}
