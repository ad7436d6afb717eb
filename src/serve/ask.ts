// What a request asks a model for, and what comes back, whoever computes it: values that pass between
// processes.

import type { MapKind } from '../explain/explanation.ts';
import type { AnswerPiece, BatchAnswer } from '../generate/batch-session.ts';
import type { SamplingWishes } from '../generate/defaults.ts';
import type { Turn } from '../text/chat.ts';
import type { Quantization } from '../weights/quantize.ts';

export interface Ask {
  /** With `<image>` where pictures stand. */
  turns: Turn[];
  /** Files as they came: PNG, JPEG, WebP or GIF. */
  images: Uint8Array[];
  /** Default: the model's own, else 64. */
  maxNewTokens?: number;
  /** What is not said is as the model's folder says. */
  sampling: SamplingWishes;
  stop: string[];
  /** Log-probabilities of the tokens, beside so many of the likeliest. */
  logprobs?: number;
}

/** An answer to be explained. */
export interface ExplainAsk extends Ask {
  /** The answer, where it is given; the model's own greedy one otherwise. */
  answer?: string;
  /** Parts of the answer whose maps are measured: 0 is all of it, 1 its first word. */
  faithfulness: number[];
  /** Which of their maps. */
  measured: MapKind;
}

/** What is known of a model that is ready. */
export interface ModelDetails {
  contextLength: number;
  parameters: number;
  imageTokens: number;
}

export type ModelState = 'idle' | 'loading' | 'ready' | 'failed';

/** A model that is served. */
export interface ServedModel {
  /** The name that requests call it by. */
  readonly id: string;
  /** When it was made, in seconds since 1970. */
  readonly created: number;
  /** `idle` until it is first asked. */
  readonly state: ModelState;
  /** Whether its process has died and is not back yet. */
  readonly isDown: boolean;
  readonly details: ModelDetails | undefined;
  /** How its weights are packed when they are loaded; not at all when absent. */
  readonly quantize?: Quantization;
  /** Requests that are being answered and that wait, with those in the queue. */
  readonly load: { running: number; waiting: number };
  /**
   * Answers, piece by piece. ApiError for what cannot be answered: 400 for a prompt or picture that does not
   * fit, 429 where the queue is full, 503 where the model's process has died.
   */
  answer(ask: Ask, onPiece: (piece: AnswerPiece) => void, signal: AbortSignal): Promise<BatchAnswer>;
  /**
   * Answers greedily, unless the answer is given, and says what each token of it rests on: explanation.json
   * of docs/explain.md, without the maps of single heads. ApiError as of `answer`.
   */
  explain(ask: ExplainAsk, signal: AbortSignal): Promise<object>;
}
