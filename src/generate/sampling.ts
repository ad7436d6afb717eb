// Choosing the next token: greedy, or temperature with top-k and top-p (Holtzman et al. 2020) and a
// repetition penalty (Keskar et al. 2019), applied in Hugging Face's order.

import type { Random } from '../random.ts';

export interface Sampling {
  seed: number;
  /** Above 0; smaller is more certain. */
  temperature: number;
  /** Keep the k most likely tokens; 0 keeps all. */
  topK?: number;
  /** Keep the smallest set of most likely tokens whose probabilities reach this; 1 keeps all. */
  topP?: number;
  /**
   * Divides positive logits (multiplies negative ones) of tokens that the prompt or the answer has already; 1
   * changes nothing.
   */
  repetitionPenalty?: number;
}

/** Index of the largest logit, the first of equals. */
export function argmax(logits: Float32Array): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** Up to so many, a list is faster than sorting all scores. */
const LISTED = 256;

/** Smallest score of the k largest. */
function kthLargest(scores: Float64Array, k: number): number {
  if (k > LISTED) return scores.slice().sort()[scores.length - k];
  // a short sorted list: of a large vocabulary, few scores ever enter it
  const largest = new Float64Array(k).fill(Number.NEGATIVE_INFINITY);
  for (const score of scores) {
    if (score <= largest[0]) continue;
    let at = 1;
    while (at < k && largest[at] < score) at++;
    largest.copyWithin(0, 1, at);
    largest[at - 1] = score;
  }
  return largest[0];
}

/**
 * The next token for `logits` [vocabulary]; greedy without `sampling`. `previous` are the tokens so far,
 * those of the prompt included.
 */
export function sampleToken(logits: Float32Array, sampling: Sampling | undefined, random: Random, previous: readonly number[]): number {
  if (!sampling) return argmax(logits);
  const { temperature, topK = 0, topP = 1, repetitionPenalty = 1 } = sampling;
  const scores = Float64Array.from(logits);
  if (repetitionPenalty !== 1)
    for (const token of new Set(previous))
      scores[token] = scores[token] > 0 ? scores[token] / repetitionPenalty : scores[token] * repetitionPenalty;
  const largest = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const weightOf = (token: number) => Math.exp((scores[token] - largest) / temperature);
  let kept = Array.from(scores.keys());
  const likeliestFirst = () => kept.sort((a, b) => scores[b] - scores[a] || a - b);
  if (topK > 0 && topK < kept.length) {
    const least = kthLargest(scores, topK);
    kept = kept.filter((token) => scores[token] >= least);
    likeliestFirst().length = topK;
  }
  let weights = kept.map(weightOf);
  if (topP < 1) {
    const total = weights.reduce((a, b) => a + b, 0);
    // all tokens that are less likely than this together fall short of 1 - top-p: the set never needs them
    const least = (total * (1 - topP)) / kept.length;
    kept = kept.filter((_, i) => weights[i] >= least);
    weights = likeliestFirst().map(weightOf);
    let sum = 0;
    const count = weights.findIndex((weight) => {
      sum += weight / total;
      return sum >= topP;
    });
    if (count >= 0) weights = weights.slice(0, count + 1);
  }
  let target = random.uniform() * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < weights.length; i++) {
    target -= weights[i];
    if (target < 0) return kept[i];
  }
  return kept[weights.length - 1];
}
