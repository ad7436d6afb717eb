// What a published benchmark is: its files, its questions, how they are put to a model, how answers are read
// and judged, and the official numbers made of that. One file a benchmark; benchmarks.ts lists them.

import type { Picture } from '../generate/session.ts';
import type { Judge, JudgeReport } from './judge.ts';

/** A file that is to be downloaded, and where it is looked for. */
export interface BenchmarkFile {
  /** Places relative to the benchmark's folder, the first being the one that is advised. */
  places: readonly [string, ...string[]];
  /** What is in it. */
  holds: string;
  url: string;
  /** Of the download, in bytes, about. */
  bytes: number;
  license: string;
  /**
   * Scoring the answers of others needs questions, but no pictures; a judge that is a model may need more.
   */
  needed: 'score' | 'ask' | 'judge';
  /** Of a folder: how many files belong into it, so that half a download is noticed. */
  count?: number;
}

/** One way in which answers are read and scored, where authors differ. */
export interface Harness {
  name: string;
  /** Whose rule it is, and how it differs. */
  about: string;
}

/** A picture of a question. It is read when it is shown, so that a list of questions stays small. */
export interface QuestionPicture {
  /** The same for the same picture. */
  name: string;
  read(): Promise<Picture>;
}

/** One question as the benchmark has it, whoever answers. */
export interface BenchmarkQuestion {
  /** As in the files; unique in what is read together. */
  id: string;
  /** The whole text that a model gets, with `<image>` where pictures stand. */
  prompt: string;
  pictures: readonly QuestionPicture[];
  /** Answers that are right, or the ten of the annotators. Empty where a judge decides. */
  references: readonly string[];
  /** Questions that share it depend on each other: the picture, or a pair of pictures. */
  cluster: string;
  /** What scores are told apart by, by name: `{ split: 'random' }`. A question may be in several. */
  groups: Readonly<Record<string, string | readonly string[]>>;
  /** The answers that one may choose from, where there is a choice: `['yes', 'no']`, `['A', 'B', 'C']`. */
  options?: readonly string[];
}

/** A question and what a system answered. */
export interface Answered<Q extends BenchmarkQuestion = BenchmarkQuestion> {
  question: Q;
  answer: string;
  /** Read from the benchmark's own form: what LLaVA does to answers before they are handed in was done. */
  submitted?: boolean;
}

/** What an answer earned. */
export interface Judged<Q extends BenchmarkQuestion = BenchmarkQuestion> extends Answered<Q> {
  /** Official credit in [0, 1]. */
  credit: number;
  /** What was read out of the answer; undefined where nothing could be, whatever the rule then gives. */
  parsed: string | undefined;
}

/** Numbers of a group of questions. */
export type GroupScores = Record<string, number>;

/** The official numbers. */
export interface Summary {
  /** Unrounded, named as the benchmark's authors name them. */
  scores: Record<string, number>;
  /** By the name of a grouping, then by group: `{ split: { random: { accuracy: 0.88, n: 2910 } } }`. */
  groups: Record<string, Record<string, GroupScores>>;
  /**
   * Where answers could not be read and the rule gives them credit, or a guess would: the least and the most
   * that the headline score can be.
   */
  bounds?: { low: number; high: number };
  /** Who judged, where judgements may differ. */
  judge?: JudgeReport;
  /** What a reader has to know to compare the numbers, a sentence each. */
  notes?: string[];
}

/** Where the questions come from. */
export interface QuestionSources {
  /** A file of questions, or several; what it may be is the benchmark's. */
  files?: readonly string[];
  /** The folder of the benchmark's downloads. */
  folder?: string;
  harness: string;
}

/** How answers are judged. */
export interface JudgingOptions {
  harness: string;
  /** Who reads what no rule can. */
  judge?: Judge;
  /** The folder of the benchmark's downloads, where it was named: a judge's prompt may be among them. */
  folder?: string;
}

/**
 * A published benchmark. `J` is what its own `judge` says beyond the credit, where `summarize` needs it.
 */
export interface Benchmark<Q extends BenchmarkQuestion = BenchmarkQuestion, J extends Judged<Q> = Judged<Q>> {
  /** As the command line calls it. */
  readonly name: string;
  readonly title: string;
  /** The paper. */
  readonly source: string;
  readonly files: readonly BenchmarkFile[];
  /** The first is the one that the LLaVA-Gemma paper used. */
  readonly harnesses: readonly [Harness, ...Harness[]];
  /** The one of `scores` that stands for the benchmark, and what it can be at most. */
  readonly headline: { name: string; best: number };
  /** Longest answer in tokens that the harness allows. */
  readonly maxNewTokens: number;
  /** Answers are no texts that a model generates: they are scored, but not asked for. */
  readonly scoreOnly?: boolean;
  /** Whether answers need a judge, or may be read by one where rules cannot: see judge.ts. */
  readonly judged?: 'always' | 'perhaps';
  /** UserError that names what is missing or malformed, with its line. */
  questions(sources: QuestionSources): Promise<Q[]>;
  /**
   * The answers in a file or folder that some system wrote, joined with their questions by id, in the order
   * of the questions. `questions` is undefined where none were given: some forms hold them. UserError for
   * what is missing, repeated or malformed, with its line.
   */
  answers(path: string, questions: readonly Q[] | undefined, harness: string): Promise<Answered<Q>[]>;
  /** In the order of `answered`, one for each. */
  judge(answered: readonly Answered<Q>[], options: JudgingOptions): J[] | Promise<J[]>;
  summarize(judged: readonly J[], harness: string): Summary;
  /**
   * What a question that could not be asked comes to, where `summarize` reads more than its credit, which is
   * 0, and what was parsed, which is nothing.
   */
  unasked?(judged: J): J;
  /** Of a benchmark with splits whose answers are secret: the file that its server scores. */
  readonly upload?: { server: string; write(answered: readonly Answered<Q>[], harness: string): string };
}

/** What `llava-gemma score` prints. */
export interface Score extends Summary {
  benchmark: string;
  harness: string;
  /** Questions. */
  n: number;
  /** Answers out of which nothing could be read. */
  unparsed: number;
}
