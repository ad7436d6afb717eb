// The samples behind every score, kept as JSON Lines, and the scores computed from them: a score can always
// be computed again.
import { closeSync, existsSync, fstatSync, ftruncateSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { makeFolderOf, onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { wilsonInterval } from '../statistics/proportion.ts';
import { majorityBaseline, randomBaseline } from './baselines.ts';
import { answerKind, isCorrect, yesNoScores } from './scoring.ts';

const sampleSchema = z.object({
  id: z.string(),
  /** Path of the picture, or the first of several, relative to the image folder. */
  image: z.string(),
  /** The paths of several pictures. */
  images: z.array(z.string()).optional(),
  task: z.string(),
  split: z.string(),
  prompt: z.string(),
  expected: z.string(),
  answer: z.string(),
  /** What the same model answers before a blank picture; absent when blind evaluation was switched off. */
  blindAnswer: z.string().optional(),
  correct: z.boolean(),
  blindCorrect: z.boolean().optional(),
  /** Why the question could not be asked; it counts as answered wrong. */
  problem: z.string().optional(),
});

/** One question of an evaluation with what the model answered. */
export type Sample = z.infer<typeof sampleSchema>;

/** A sample with its answers judged by the scorer of its task. */
export function judgeSample(sample: Omit<Sample, 'correct' | 'blindCorrect'>): Sample {
  const kind = answerKind(sample.task);
  const { expected, answer, blindAnswer, problem } = sample;
  // where a question could not be asked, no answer is not an answer
  const isRight = (text: string) => !(problem !== undefined && text === '') && isCorrect(kind, expected, text);
  return { ...sample, correct: isRight(answer), blindCorrect: blindAnswer === undefined ? undefined : isRight(blindAnswer) };
}

export function writeSamples(path: string, samples: readonly Sample[]): void {
  makeFolderOf(path);
  onDisk(path, () => writeFileSync(path, samples.map((sample) => `${JSON.stringify(sample)}\n`).join('')));
}

/** A file that takes lines of JSON as they come. */
export interface LineFile {
  /** Adds lines; the first ones replace what the file held before. UserError when the disk is full. */
  append(values: readonly unknown[]): void;
  /** A file that never got a line is as it was before. */
  close(): void;
}

/** Opens a file for lines, before there are any. UserError, naming it, if it cannot be written. */
export function openLines(path: string): LineFile {
  const wasThere = existsSync(path);
  makeFolderOf(path);
  const file = onDisk(path, () => openSync(path, 'a'));
  let isEmpty = true;
  return {
    append(values) {
      onDisk(path, () => {
        // a pipe or a terminal has nothing to replace
        if (isEmpty && fstatSync(file).isFile()) ftruncateSync(file);
        isEmpty = false;
        writeFileSync(file, values.map((value) => `${JSON.stringify(value)}\n`).join(''));
      });
    },
    close() {
      closeSync(file);
      if (isEmpty && !wasThere) rmSync(path, { force: true });
    },
  };
}

/** Reads samples back. A line that is not a sample is a `UserError` naming file and line. */
export function readSamples(path: string): Sample[] {
  const lines = onDisk(path, () => readFileSync(path, 'utf8')).split('\n');
  return lines.flatMap((line, index) => {
    if (line.trim() === '') return [];
    const problem = (text: string) => new UserError(`${path}:${index + 1}: not a sample: ${text}`);
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw problem((error as Error).message);
    }
    const parsed = sampleSchema.safeParse(value);
    if (!parsed.success) throw problem(z.prettifyError(parsed.error).replaceAll('\n', ' '));
    return [parsed.data];
  });
}

/** Scores of one task in one split. Shares are in [0, 1]; intervals are Wilson 95 %. */
export interface TaskScore {
  accuracy: number;
  ciLow: number;
  ciHigh: number;
  n: number;
  correct: number;
  /**
   * Accuracy of the same model before a blank picture, with its interval; absent when it was not measured.
   */
  blind?: number;
  blindCiLow?: number;
  blindCiHigh?: number;
  /** Accuracy of always giving the most frequent answer, and whose answer that is. */
  majority: number;
  majorityFrom: 'training' | 'evaluation';
  /** Expected accuracy of guessing. */
  random: number;
  /** Questions that could not be asked, where there are any; they count as wrong. */
  unasked?: number;
  /** Of yes/no tasks, as in POPE. */
  precision?: number;
  recall?: number;
  f1?: number;
  yesRate?: number;
}

/**
 * Whether a score is certainly better: its whole interval lies above the majority baseline and above the
 * interval of the blind one.
 */
export function beatsBaselines(score: TaskScore): boolean {
  return score.ciLow > Math.max(score.majority, score.blindCiHigh ?? 0);
}

/** Scores by split, then by task. */
export type Scores = Record<string, Record<string, TaskScore>>;

function scoreTask(task: string, samples: readonly Sample[], trainingAnswers: readonly string[] | undefined): TaskScore {
  const kind = answerKind(task);
  const n = samples.length;
  const correct = samples.filter((sample) => sample.correct).length;
  const interval = wilsonInterval(correct, n);
  const majority = majorityBaseline(
    kind,
    samples.map(({ expected }) => expected),
    trainingAnswers,
  );
  const score: TaskScore = {
    accuracy: correct / n,
    ciLow: interval.low,
    ciHigh: interval.high,
    n,
    correct,
    majority: majority.accuracy,
    majorityFrom: majority.from,
    random: randomBaseline(task, samples),
  };
  const unasked = samples.filter(({ problem }) => problem !== undefined).length;
  if (unasked > 0) score.unasked = unasked;
  const seen = samples.filter(({ blindCorrect }) => blindCorrect !== undefined);
  if (seen.length === n) {
    const blindCorrect = seen.filter((sample) => sample.blindCorrect).length;
    const blindInterval = wilsonInterval(blindCorrect, n);
    score.blind = blindCorrect / n;
    score.blindCiLow = blindInterval.low;
    score.blindCiHigh = blindInterval.high;
  }
  if (kind === 'yes-no') {
    const { precision, recall, f1, yesRate } = yesNoScores(samples);
    Object.assign(score, { precision, recall, f1, yesRate });
  }
  return score;
}

/**
 * Scores by split and task in the order in which they first occur.
 * `trainingAnswers` gives, by task, the answers of the training set, for the majority baseline.
 */
export function scoreSamples(samples: readonly Sample[], trainingAnswers: Record<string, readonly string[]> = {}): Scores {
  const groups = new Map<string, Map<string, Sample[]>>();
  for (const sample of samples) {
    const tasks = groups.get(sample.split) ?? new Map<string, Sample[]>();
    const group = tasks.get(sample.task) ?? [];
    group.push(sample);
    groups.set(sample.split, tasks.set(sample.task, group));
  }
  const scores: Scores = {};
  for (const [split, tasks] of groups) {
    scores[split] = {};
    for (const [task, group] of tasks) scores[split][task] = scoreTask(task, group, trainingAnswers[task]);
  }
  return scores;
}
