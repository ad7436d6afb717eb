// Whether a map means anything: image rows are taken away in the order that a map ranks them, and the
// answer's probability must follow. Deletion and insertion after Petsiuk, Das & Saenko 2018 (RISE, arXiv
// 1806.07421), positive and negative perturbation after Chefer, Gur & Wolf 2021 (arXiv 2103.15679), both at
// the input of the language model.

import { createRandom } from '../random.ts';
import { meanOf } from '../statistics/proportion.ts';
import type { Explainer } from './explainer.ts';
import type { AnsweredQuestion, Removal } from './explanation.ts';
import { ranked } from './maps.ts';

/** Steps of deletion and insertion. */
export const STEPS = 12;
/** Shares of the image rows that perturbation keeps (Chefer et al., their LXMERT experiments). */
export const KEPT_SHARES = [1, 0.75, 0.5, 0.25, 0.2, 0.15, 0.1, 0.05, 0] as const;
/** Random orders that a map is compared with. */
export const RANDOM_ORDERS = 5;
/** Nats that the picture must be worth to the answer: with less, there is nothing for a map to explain. */
export const LEAST_GAIN = Math.LN2;

/**
 * Areas under curves of y = log P(answer), 0 with nothing of the picture and 1 with all of it. They may lie
 * outside [0, 1]: part of a picture can be better than all of it.
 */
export interface FaithfulnessScores {
  /** Most relevant rows replaced by the mean row first: the lower, the better. */
  deletion: number;
  /** Most relevant rows put back into a picture of mean rows first: the higher, the better. */
  insertion: number;
  /** Most relevant rows left out first: the lower, the better. */
  positive?: number;
  /** Least relevant rows left out first: the higher, the better. */
  negative?: number;
}

/**
 * y at each step: shares 0, 1/steps, .., 1 of the rows taken away or put back, or KEPT_SHARES of them kept.
 */
export type Curves = { [K in keyof FaithfulnessScores]: number[] };

export interface Faithfulness {
  /** log P of the target with the whole picture and with mean rows alone, in nats. */
  full: number;
  blank: number;
  /** By the name of a map, and `random`; undefined where the picture is worth less than LEAST_GAIN. */
  scores?: Record<string, FaithfulnessScores>;
  curves?: Record<string, Curves>;
}

/** Part of an answer with the maps that are to explain it. */
export interface MapsOfTarget {
  /** Tokens of the answer whose probability is followed. */
  tokens: readonly number[];
  /** By name: a value for each patch. */
  maps: Readonly<Record<string, Float32Array>>;
}

export interface FaithfulnessOptions {
  /** Of random orders, and of the order of ties. */
  seed: number;
  steps?: number;
  /** Also positive and negative perturbation. Default: false. */
  perturbation?: boolean;
  signal?: AbortSignal;
}

/** Area under y over shares x, which descend or ascend, by the trapezoid rule. */
export function areaUnder(y: readonly number[], x: readonly number[]): number {
  let area = 0;
  for (let i = 1; i < y.length; i++) area += (Math.abs(x[i] - x[i - 1]) * (y[i] + y[i - 1])) / 2;
  return area;
}

interface CurveKind {
  name: keyof FaithfulnessScores;
  removal: Removal;
  /** Shares along the curve. */
  at: readonly number[];
  /** The rows that are there at a share, most relevant first in `order`. */
  mask(order: readonly number[], share: number): Uint8Array;
}

function curveKinds(steps: number, perturbation: boolean): CurveKind[] {
  const shares = Array.from({ length: steps + 1 }, (_, i) => i / steps);
  const kinds: CurveKind[] = [
    { name: 'deletion', removal: 'mean', at: shares, mask: (order, share) => firstOf(order, share, false) },
    { name: 'insertion', removal: 'mean', at: shares, mask: (order, share) => firstOf(order, share, true) },
  ];
  if (!perturbation) return kinds;
  return [
    ...kinds,
    { name: 'positive', removal: 'drop', at: KEPT_SHARES, mask: (order, kept) => firstOf(order, 1 - kept, false) },
    { name: 'negative', removal: 'drop', at: KEPT_SHARES, mask: (order, kept) => firstOf(order, kept, true) },
  ];
}

/** Which rows are there: the first `share` of an order, or all but these. */
function firstOf(order: readonly number[], share: number, isKept: boolean): Uint8Array {
  const mask = new Uint8Array(order.length).fill(isKept ? 0 : 1);
  for (const row of order.slice(0, Math.round(share * order.length))) mask[row] = isKept ? 1 : 0;
  return mask;
}

/**
 * The rows of a question in the order of a map; a row that is no patch, such as a class token, comes last.
 */
function orderOf(map: Float32Array, rows: number, { layout }: Pick<Explainer, 'layout'>, seed: number, name: string): number[] {
  const value = (row: number) => map[layout.patchOf(layout.rowOf(row))] ?? Number.NEGATIVE_INFINITY;
  return ranked(
    Array.from({ length: rows }, (_, row) => value(row)),
    createRandom(seed, 'ties', name),
  );
}

/** Asks for log P under masks, each of them once. */
function askedOnce(explainer: Explainer, question: AnsweredQuestion) {
  const masks = new Map<string, { mask: Uint8Array; removal: Removal; result?: Float32Array }>();
  const keyOf = (mask: Uint8Array, removal: Removal) => `${removal} ${mask.join('')}`;
  return {
    want(mask: Uint8Array, removal: Removal) {
      const key = keyOf(mask, removal);
      if (!masks.has(key)) masks.set(key, { mask, removal });
    },
    async ask(signal: AbortSignal | undefined) {
      for (const removal of ['mean', 'drop'] as const) {
        const wanted = [...masks.values()].filter((each) => each.removal === removal && !each.result);
        for (let from = 0; from < wanted.length; from += MASKS_TOGETHER) {
          signal?.throwIfAborted();
          const some = wanted.slice(from, from + MASKS_TOGETHER);
          const results = await explainer.logProbabilities(
            question,
            some.map(({ mask }) => mask),
            { removal, signal },
          );
          some.forEach((each, i) => {
            each.result = results[i];
          });
        }
      }
    },
    result: (mask: Uint8Array, removal: Removal) => masks.get(keyOf(mask, removal))!.result!,
  };
}

const MASKS_TOGETHER = 64;

/** Random orders are those of the question: the same for all of its targets. */
const randomName = (i: number) => `random ${i + 1}`;

/**
 * Scores of maps, for each target, beside random orders (`random`: the mean of RANDOM_ORDERS). All targets of
 * a question are scored together, since a pass gives the probability of every token.
 */
export async function measureFaithfulness(
  explainer: Explainer,
  question: AnsweredQuestion,
  targets: readonly MapsOfTarget[],
  { seed, steps = STEPS, perturbation = false, signal }: FaithfulnessOptions,
): Promise<Faithfulness[]> {
  const rows = question.imageRows.length / explainer.config.text_config.hidden_size;
  const random = Array.from({ length: RANDOM_ORDERS }, (_, i) => [
    randomName(i),
    createRandom(seed, 'order', i).shuffle(Array.from({ length: rows }, (_, row) => row)),
  ]) as [string, number[]][];
  const orders = targets.map(({ maps }) => [
    ...Object.entries(maps).map(([name, map]) => [name, orderOf(map, rows, explainer, seed, name)] as [string, number[]]),
    ...random,
  ]);
  const kinds = curveKinds(steps, perturbation);
  const whole = new Uint8Array(rows).fill(1);
  const nothing = new Uint8Array(rows);
  const asked = askedOnce(explainer, question);
  for (const removal of ['mean', 'drop'] as const) {
    asked.want(whole, removal);
    asked.want(nothing, removal);
  }
  for (const [, order] of orders.flat())
    for (const { removal, at, mask } of kinds) for (const share of at) asked.want(mask(order, share), removal);
  await asked.ask(signal);

  return targets.map(({ tokens }, target) => {
    const y = (mask: Uint8Array, removal: Removal) => tokens.reduce((sum, token) => sum + asked.result(mask, removal)[token], 0);
    const [full, blank] = [y(whole, 'mean'), y(nothing, 'mean')];
    if (full - blank < LEAST_GAIN) return { full, blank };
    const scores: Record<string, FaithfulnessScores> = {};
    const curves: Record<string, Curves> = {};
    for (const [name, order] of orders[target]) {
      const found = kinds.flatMap(({ name, removal, at, mask }) => {
        const none = y(nothing, removal);
        // a picture that is left out may be worth less than one that is replaced
        if (full - none < LEAST_GAIN) return [];
        const curve = at.map((share) => (y(mask(order, share), removal) - none) / (full - none));
        return [{ name, curve, area: areaUnder(curve, at) }];
      });
      scores[name] = Object.fromEntries(found.map((each) => [each.name, each.area])) as unknown as FaithfulnessScores;
      curves[name] = Object.fromEntries(found.map((each) => [each.name, each.curve])) as unknown as Curves;
    }
    return { full, blank, ...joinRandom(scores, curves) };
  });
}

/** The random orders as one entry, their mean. */
function joinRandom(scores: Record<string, FaithfulnessScores>, curves: Record<string, Curves>) {
  const names = Array.from({ length: RANDOM_ORDERS }, (_, i) => randomName(i));
  const kinds = Object.keys(scores[names[0]]) as (keyof FaithfulnessScores)[];
  const joined = kinds.map((kind) => [kind, meanOf(names.map((name) => scores[name][kind]!))]);
  const points = kinds.map((kind) => [kind, curves[names[0]][kind]!.map((_, i) => meanOf(names.map((name) => curves[name][kind]![i])))]);
  const others = <T>(all: Record<string, T>) => Object.fromEntries(Object.entries(all).filter(([name]) => !names.includes(name)));
  return {
    scores: { ...others(scores), random: Object.fromEntries(joined) as unknown as FaithfulnessScores },
    curves: { ...others(curves), random: Object.fromEntries(points) as unknown as Curves },
  };
}
