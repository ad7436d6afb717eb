// Who answers the page's questions: the server that it came from, or whatever else can (an engine in the
// tab). The page knows no more of it than this.

import type { MapKind } from '../explain/explanation.ts';
import type { ExplanationFile } from '../explain/report.ts';
import type { Quantization } from '../weights/quantize.ts';

/** A model that can be asked. */
export interface ModelInfo {
  id: string;
  /** `idle`: it is loaded when it is asked. */
  state: 'idle' | 'loading' | 'ready' | 'failed';
  /** How much of it is loaded, from 0 to 1, where that is known. */
  progress?: number;
  /** Names of its files on the server, where it can run in the tab. */
  files?: readonly string[];
  /** How the server packs its weights when it loads them. */
  quantize?: Quantization;
}

export interface Message {
  role: 'user' | 'assistant';
  text: string;
}

/** How an answer is made; what is not said is as the model has it. */
export interface AnswerSettings {
  temperature?: number;
  maxTokens?: number;
  seed?: number;
}

export interface Question {
  model: string;
  /** The conversation so far; the last message is the user's. */
  messages: readonly Message[];
  /** What it is about: a file, shown with the first message. */
  picture?: Blob;
  settings: AnswerSettings;
}

/** What comes of an answer: its text piece by piece, and in the end how it ended. */
export type AnswerEvent =
  | { type: 'text'; text: string }
  /** `length`: the longest answer that was allowed. `tokens` are those of the answer. */
  | { type: 'end'; finish: 'stop' | 'length'; tokens: number };

/** What an answer rests on, and the part of the picture that its maps lie over. */
export interface AnswerExplanation extends ExplanationFile {
  /** In shares of the picture's width and height; beyond it where the encoder's picture is padded. */
  seen: { left: number; top: number; width: number; height: number };
}

/** All throw a Problem where they cannot, and what `signal` was aborted with. */
export interface Answerer {
  models(signal: AbortSignal): Promise<ModelInfo[]>;
  answer(question: Question, signal: AbortSignal): AsyncIterable<AnswerEvent>;
  /** Memory of all that answers, in bytes; undefined where nobody knows. */
  memory(signal: AbortSignal): Promise<number | undefined>;
}

export interface Explainer {
  /**
   * Of `answer` to the question; the map of this kind of the `measured` parts comes with what it is worth.
   */
  explain(
    question: Question,
    answer: string,
    measured: { parts: readonly number[]; kind: MapKind },
    signal: AbortSignal,
  ): Promise<AnswerExplanation>;
}

/** The server that the page came from. */
export interface ServerAnswerer extends Answerer, Explainer {
  /** Proves who asks, where that is wanted (a Problem `key`). */
  identify(key: string): void;
  /** Headers that do so. */
  credentials(): Record<string, string>;
}
