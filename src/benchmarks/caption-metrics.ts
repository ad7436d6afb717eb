// BLEU (Papineni et al. 2002), ROUGE-L (Lin 2004) and CIDEr-D (Vedantam et al. 2015) as the COCO caption
// evaluation computes them (pycocoevalcap). Captions are tokens joined by single spaces.

import { mean } from './means.ts';
import { pythonSplit } from './python-text.ts';

/** A caption and those that it is compared with. */
export interface Captioned {
  candidate: string;
  references: readonly string[];
}

const ORDERS = 4;

/** How often each run of n words is there, for n = 1 to 4. Words are joined by spaces, which none has. */
function ngramsOf(words: readonly string[]): Map<string, number>[] {
  return Array.from({ length: ORDERS }, (_, order) => {
    const counts = new Map<string, number>();
    for (let i = 0; i + order < words.length; i++) {
      let gram = words[i];
      for (let j = 1; j <= order; j++) gram += ` ${words[i + j]}`;
      counts.set(gram, (counts.get(gram) ?? 0) + 1);
    }
    return counts;
  });
}

interface Counted {
  length: number;
  grams: Map<string, number>[];
}

const counted = (caption: string): Counted => {
  const words = pythonSplit(caption);
  return { length: words.length, grams: ngramsOf(words) };
};

// so that nothing is divided by zero
const [SMALL, TINY] = [1e-9, 1e-15];

/**
 * BLEU-1 to BLEU-4 of the corpus: clipped precision against all references together, and a penalty for being
 * shorter than the references that are closest in length.
 */
export function bleu(captions: readonly Captioned[]): number[] {
  const guesses = new Array<number>(ORDERS).fill(0);
  const correct = new Array<number>(ORDERS).fill(0);
  let [length, referenceLength] = [0, 0];
  for (const { candidate, references } of captions) {
    const test = counted(candidate);
    const counts = references.map(counted);
    length += test.length;
    referenceLength += closestLength(counts, test.length);
    for (let order = 0; order < ORDERS; order++) {
      guesses[order] += Math.max(0, test.length - order);
      for (const [gram, count] of test.grams[order])
        correct[order] += Math.min(count, Math.max(...counts.map(({ grams }) => grams[order].get(gram) ?? 0)));
    }
  }
  const ratio = (length + TINY) / (referenceLength + SMALL);
  const penalty = ratio < 1 ? Math.exp(1 - 1 / ratio) : 1;
  let product = 1;
  return guesses.map((guess, order) => {
    product *= (correct[order] + TINY) / (guess + SMALL);
    return product ** (1 / (order + 1)) * penalty;
  });
}

/** Of equally close lengths the shorter. */
function closestLength(references: readonly Counted[], length: number): number {
  return references
    .map((reference) => reference.length)
    .reduce((best, other) => {
      const [near, far] = [Math.abs(other - length), Math.abs(best - length)];
      return near < far || (near === far && other < best) ? other : best;
    });
}

const BETA = 1.2;

/** Words of the longest common subsequence. */
function commonLength(a: readonly string[], b: readonly string[]): number {
  let row = new Uint16Array(b.length + 1);
  for (const word of a) {
    const next = new Uint16Array(b.length + 1);
    for (let j = 0; j < b.length; j++) next[j + 1] = word === b[j] ? row[j] + 1 : Math.max(row[j + 1], next[j]);
    row = next;
  }
  return row[b.length];
}

/** ROUGE-L of one caption: F of the best precision and the best recall, which may be of two references. */
export function rougeL({ candidate, references }: Captioned): number {
  // an empty caption is one empty word, as Python splits it
  const words = candidate.split(' ');
  const others = references.map((reference) => reference.split(' '));
  const common = others.map((other) => commonLength(other, words));
  const precision = Math.max(...common.map((length) => length / words.length));
  const recall = Math.max(...common.map((length, i) => length / others[i].length));
  return precision === 0 || recall === 0 ? 0 : ((1 + BETA ** 2) * precision * recall) / (recall + BETA ** 2 * precision);
}

/** Width of the penalty for another length. */
const SIGMA = 6;

/** Tf-idf weights by order. */
interface Weighted {
  weights: Map<string, number>[];
  norms: number[];
  /** Runs of two words: what the evaluation takes for length. */
  length: number;
}

/**
 * CIDEr-D of each caption, in [0, 10]. How rare words are is counted in the references of all captions that
 * are given: the score of a part of a split is another one.
 */
export function ciderD(captions: readonly Captioned[]): number[] {
  const all = captions.map(({ candidate, references }) => ({ test: counted(candidate), references: references.map(counted) }));
  const frequency = new Map<string, number>();
  for (const { references } of all)
    for (const gram of new Set(references.flatMap(({ grams }) => grams.flatMap((counts) => [...counts.keys()]))))
      frequency.set(gram, (frequency.get(gram) ?? 0) + 1);
  const logCount = Math.log(captions.length);
  const rarity = (gram: string) => logCount - Math.log(Math.max(1, frequency.get(gram) ?? 0));
  return all.map(({ test, references }) => {
    const weighted = weigh(test, rarity);
    const similarities = references.map((reference) => mean(similarity(weighted, weigh(reference, rarity))));
    return mean(similarities) * 10;
  });
}

function weigh({ grams }: Counted, rarity: (gram: string) => number): Weighted {
  const norms = new Array<number>(ORDERS).fill(0);
  const weights = grams.map((counts, order) => {
    const weight = new Map<string, number>();
    for (const [gram, count] of counts) {
      const value = count * rarity(gram);
      weight.set(gram, value);
      norms[order] += value ** 2;
    }
    return weight;
  });
  const length = [...grams[1].values()].reduce((sum, count) => sum + count, 0);
  return { weights, norms: norms.map(Math.sqrt), length };
}

/** Clipped cosine of each order, with the penalty for another length. */
function similarity(test: Weighted, reference: Weighted): number[] {
  const penalty = Math.exp(-((test.length - reference.length) ** 2) / (2 * SIGMA ** 2));
  return test.weights.map((weights, order) => {
    let value = 0;
    for (const [gram, weight] of weights) {
      const other = reference.weights[order].get(gram) ?? 0;
      value += Math.min(weight, other) * other;
    }
    const norm = test.norms[order] * reference.norms[order];
    return (norm === 0 ? value : value / norm) * penalty;
  });
}
