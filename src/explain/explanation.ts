// An answer that is asked to be explained, and what is found of it.

import type { Picture } from '../generate/session.ts';
import type { Turn } from '../text/chat.ts';
import type { PatchLayout } from './maps.ts';
import type { Word } from './words.ts';

// === What is asked ===

export interface ExplainRequest {
  picture: Picture;
  /** A question about the picture, or the turns so far, ending with one. */
  prompt: string | readonly Turn[];
  /** Explained in place of the model's own answer. */
  answer?: string;
  /** Asks for a single word or phrase, as the questions of the training data are put. */
  short?: boolean;
  /** Longest answer in tokens. Default: 32. */
  maxNewTokens?: number;
  signal?: AbortSignal;
}

/** A question with its answer, ready to be explained. */
export interface AnsweredQuestion {
  /** The last question. */
  prompt: string;
  answer: string;
  promptIds: readonly number[];
  answerIds: readonly number[];
  /** [3 * size * size]: the picture as the encoder sees it. */
  pixelValues: Float32Array;
  /** [imageTokens * hidden], as they enter the language model. */
  imageRows: Float32Array;
}

// === What is explained ===

export interface MapOptions {
  /** Follows relevancy through the encoder; one more pass there and back. Default: true. */
  throughEncoder?: boolean;
  /** Reads image rows of every layer as if they were the last. Default: false. */
  lens?: boolean;
  /** Ends the work by throwing `signal.reason`; looked at between passes. */
  signal?: AbortSignal;
}

/** Maps of an answer, [tokens][patches] each: row by row from the top left of the picture. */
export interface PatchMaps {
  /**
   * Gradient-weighted attention, equations (5), (6), (8): shares of the whole relevancy, the prompt's
   * included.
   */
  relevancy: Float32Array[];
  /** The same, followed through the encoder's blocks. */
  encoder?: Float32Array[];
  /** Attention of the last layer, mean over heads. */
  attention: Float32Array[];
  rollout: Float32Array[];
  /** |d logit / d row . row| for each image row. */
  gradientInput: Float32Array[];
}

export type MapKind = keyof PatchMaps;

/** What maps are called in files and on pages, in the order of pages. */
export const MAP_NAMES: Record<MapKind, string> = {
  relevancy: 'relevancy',
  encoder: 'relevancy through the encoder',
  gradientInput: 'gradient x input',
  rollout: 'rollout',
  attention: 'raw attention',
};

export const MAP_KINDS = ['relevancy', 'encoder', 'gradientInput', 'rollout', 'attention'] as const satisfies readonly MapKind[];

export interface Explanation {
  prompt: string;
  answer: string;
  layout: PatchLayout;
  tokens: { id: number; text: string; logit: number; probability: number }[];
  /** Words of the answer, as runs of `tokens`. */
  words: Word[];
  /** Text tokens of the prompt, without the picture's, and the words that they make. */
  promptTokens: { id: number; text: string }[];
  promptWords: Word[];
  maps: PatchMaps;
  /**
   * Share of each token's relevancy that lies on the picture, on the prompt's tokens and on the answer before
   * it.
   */
  onImage: Float32Array;
  onPrompt: Float32Array[];
  onAnswer: Float32Array[];
  /** Attention of every layer and head to the patches: [tokens], each [layers * heads * patches]. */
  heads: { layers: number; heads: number; toPatches: Float32Array[] };
  /** Layers 0 (what enters) to L: the likeliest token of each image token's row, and its probability. */
  lens?: { texts: string[]; probabilities: Float32Array }[];
}

/** How image rows are taken away: replaced by their mean, or left out so that nothing sees them. */
export type Removal = 'mean' | 'drop';
