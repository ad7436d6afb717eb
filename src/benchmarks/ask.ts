// Puts the questions of benchmarks to a model under each condition, and keeps the answers as they come.

import { groupBy } from '../arrays.ts';
import { UserError } from '../errors.ts';
import type { Answer, Asker, AskOptions, ShownPicture } from '../evaluate/asking.ts';
import { exchangedPictures } from '../evaluate/exchanged.ts';
import { openAnswer } from '../evaluate/open-answers.ts';
import type { SessionPrompt } from '../generate/session.ts';
import { type AnswerLog, openAnswerLog } from './answer-log.ts';
import type { BenchmarkQuestion } from './benchmark.ts';
import { type Condition, keyOf } from './conditions.ts';
import { type Shard, shardOf } from './subset.ts';

/** How far an evaluation is. */
export interface AskProgress {
  benchmark: string;
  condition: Condition;
  /** Answers that are there, of all that are wanted. */
  done: number;
  total: number;
  /** Seconds that the rest will take; undefined before the first answer. */
  remaining: number | undefined;
}

export interface AskedBenchmark {
  name: string;
  /** All that could be asked, which decides whose pictures are exchanged. */
  questions: readonly BenchmarkQuestion[];
  maxNewTokens: number;
}

export interface BenchmarkAsking extends Omit<AskOptions, 'maxNewTokens' | 'onAnswers'> {
  modelId: string;
  conditions: readonly Condition[];
  shard?: Shard;
  /** Path of the file of answers. */
  logOf(benchmark: string, condition: Condition): string;
  onProgress?: (progress: AskProgress) => void;
}

/** Batches whose pictures and prompts are prepared together, so that neighbors in length can share one. */
const BATCHES_AHEAD = 8;

/** One benchmark under one condition: what is to be asked, and where the answers go. */
interface Asking extends AskedBenchmark {
  condition: Condition;
  log: string;
  /** What is shown beside a question; undefined leaves the question out. */
  pictures?: ReadonlyMap<string, BenchmarkQuestion['pictures']>;
}

/** By the id of a question, the pictures of another; without those of which there is no other. */
function exchangedById(questions: readonly BenchmarkQuestion[]): Map<string, BenchmarkQuestion['pictures']> {
  const exchanged = exchangedPictures(
    questions,
    ({ pictures }) => pictures,
    ({ name }) => name,
  );
  return new Map(questions.flatMap(({ id }, i) => (exchanged[i] ? [[id, exchanged[i]] as const] : [])));
}

function askingsOf(benchmarks: readonly AskedBenchmark[], { conditions, shard, logOf }: BenchmarkAsking): Asking[] {
  return benchmarks.flatMap((benchmark) =>
    conditions.map((condition) => {
      const pictures = condition === 'exchanged' ? exchangedById(benchmark.questions) : undefined;
      const asked = condition === 'plain' ? benchmark.questions : benchmark.questions.filter((question) => question.pictures.length > 0);
      const questions = shardOf(pictures ? asked.filter(({ id }) => pictures.has(id)) : asked, shard);
      return { ...benchmark, questions, condition, log: logOf(benchmark.name, condition), pictures };
    }),
  );
}

/** Asks what has no answer yet. `openAsker` is called only where there is something of that kind. */
export async function askBenchmarks(
  openAsker: () => Promise<Asker>,
  benchmarks: readonly AskedBenchmark[],
  options: BenchmarkAsking,
): Promise<void> {
  const askings = askingsOf(benchmarks, options);
  const total = askings.reduce((sum, { questions }) => sum + questions.length, 0);
  const began = performance.now();
  let done = 0;
  let fresh = 0;
  let asker: Asker | undefined;
  for (const asking of askings) {
    const log = openAnswerLog(asking.log);
    try {
      const there = asking.questions.filter(({ id }) => log.answers.has(id)).length;
      done += there;
      if (there === asking.questions.length) continue;
      asker ??= await openAsker();
      await askOne(asker, asking, log, options, (answered) => {
        done += answered;
        fresh += answered;
        const seconds = (performance.now() - began) / 1000;
        const remaining = fresh === 0 ? undefined : ((total - done) * seconds) / fresh;
        options.onProgress?.({ benchmark: asking.name, condition: asking.condition, done, total, remaining });
      });
    } finally {
      log.close();
    }
  }
}

async function askOne(asker: Asker, asking: Asking, log: AnswerLog, options: BenchmarkAsking, onDone: (answered: number) => void) {
  const { batchSize, modelId, signal } = options;
  const { condition, maxNewTokens } = asking;
  const known = new Map<string, Answer>();
  for (const question of asking.questions) {
    const answer = log.answers.get(question.id);
    if (answer) known.set(keyOf(condition, question), { text: answer.text });
  }
  const waiting = groupBy(
    asking.questions.filter(({ id }) => !log.answers.has(id)),
    (question) => keyOf(condition, question),
  );
  onDone(0);
  const keep = (questions: readonly BenchmarkQuestion[], answer: Answer, seconds: number) => {
    const { promptTokens: prompt_tokens, tokens } = answer;
    log.append(questions.map(({ id, prompt }) => openAnswer(modelId, id, prompt, answer, { prompt_tokens, tokens, seconds })));
    onDone(questions.length);
  };
  const groups = waiting.filter((questions) => {
    const answer = known.get(keyOf(condition, questions[0]));
    if (answer) keep(questions, answer, 0);
    return answer === undefined;
  });
  const blank = condition === 'blind' && groups.length > 0 ? await asker.blankPicture() : undefined;
  for (let start = 0; start < groups.length; start += batchSize * BATCHES_AHEAD) {
    signal?.throwIfAborted();
    const ahead = groups.slice(start, start + batchSize * BATCHES_AHEAD);
    const prompts = await Promise.all(ahead.map(([question]) => promptOf(question, asking, blank)));
    const ready = ahead.flatMap((_, i) => (typeof prompts[i] === 'string' ? [] : [i]));
    ahead.forEach((questions, i) => {
      const problem = prompts[i];
      if (typeof problem === 'string') keep(questions, { text: '', problem }, 0);
    });
    let since = performance.now();
    await asker.ask(
      ready.map((i) => prompts[i] as SessionPrompt),
      {
        batchSize,
        maxNewTokens,
        signal,
        onAnswers: (answers) => {
          const seconds = (performance.now() - since) / 1000 / answers.length;
          for (const { index, ...answer } of answers) keep(ahead[ready[index]], answer, seconds);
          since = performance.now();
        },
      },
    );
  }
}

/** A question as it is put to the model; text says why it cannot be. */
async function promptOf(
  { id, prompt, pictures }: BenchmarkQuestion,
  { pictures: others }: Asking,
  blank: ShownPicture | undefined,
): Promise<SessionPrompt | string> {
  try {
    const images = await Promise.all((others?.get(id) ?? pictures).map((picture) => blank ?? picture.read()));
    return { turns: [{ from: 'human', value: prompt }], images };
  } catch (error) {
    if (error instanceof UserError) return error.message;
    throw error;
  }
}
