// Answers in the form of OpenAI's chat completions: one object, or chunks of a stream.

import { randomUUID } from 'node:crypto';
import type { AnswerPiece, BatchAnswer, TextLogprob } from '../generate/batch-session.ts';

type Logprobs = NonNullable<AnswerPiece['logprobs']>;

const described = ({ text, logprob, bytes }: TextLogprob) => ({ token: text, logprob, bytes });

const logprobsOf = (logprobs: Logprobs | undefined) =>
  logprobs
    ? { content: logprobs.map(({ top, ...chosen }) => ({ ...described(chosen), top_logprobs: top.map(described) })), refusal: null }
    : null;

export function usageOf({ promptTokens, cachedTokens, tokens }: BatchAnswer) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: tokens,
    total_tokens: promptTokens + tokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/** Makes the objects of one answer. Where a chunk with the usage follows, the others have a place for it. */
export function createCompletion(model: string, includeUsage = false) {
  const head = (object: string) => ({ id, object, created, model, system_fingerprint: null });
  const id = `chatcmpl-${randomUUID().replaceAll('-', '')}`;
  const created = Math.floor(Date.now() / 1000);
  const chunk = (delta: object, { finish = null, logprobs }: { finish?: string | null; logprobs?: Logprobs } = {}) => ({
    ...head('chat.completion.chunk'),
    choices: [{ index: 0, delta, logprobs: logprobsOf(logprobs), finish_reason: finish }],
    ...(includeUsage ? { usage: null } : {}),
  });
  return {
    first: () => chunk({ role: 'assistant', content: '', refusal: null }),
    piece: ({ text, logprobs }: AnswerPiece) => chunk({ content: text }, { logprobs }),
    last: ({ finish }: BatchAnswer) => chunk({}, { finish }),
    /** The chunk that `stream_options.include_usage` asks for. */
    usage: (answer: BatchAnswer) => ({ ...head('chat.completion.chunk'), choices: [], usage: usageOf(answer) }),
    whole: (pieces: readonly AnswerPiece[], answer: BatchAnswer) => ({
      ...head('chat.completion'),
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: pieces.map(({ text }) => text).join(''), refusal: null, annotations: [] },
          logprobs: logprobsOf(pieces.some(({ logprobs }) => logprobs) ? pieces.flatMap(({ logprobs = [] }) => logprobs) : undefined),
          finish_reason: answer.finish,
        },
      ],
      usage: usageOf(answer),
    }),
  };
}
