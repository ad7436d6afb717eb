// Retrieval from a matrix of scores, both ways: recall at k, median rank, hubness. Protocol of Karpathy &
// Fei-Fei 2015: a picture has found its text if any of its own is among the first k. CSLS: Conneau et al.
// 2018; hubness: Radovanovic et al. 2010.

import { median } from '../arrays.ts';
import type { Interval } from '../statistics/estimate.ts';
import { meanCredit, meanOf } from '../statistics/proportion.ts';

/** Scores [pictures, texts], higher is closer, and the picture that each text is about. */
export interface Scores {
  readonly data: Float64Array;
  readonly pictures: number;
  readonly texts: number;
  readonly owners: readonly number[];
}

export const RECALL_AT = [1, 5, 10] as const;

export interface Direction {
  /**
   * Share of queries that find one of their own among the first k, by k. Where scores are equal, the mean
   * over all orders: what cannot tell candidates apart is at chance.
   */
  recall: Record<number, number>;
  /** Of `recall`, 95 %. */
  interval: Record<number, Interval>;
  /** The same with each tie against the query. */
  pessimistic: Record<number, number>;
  chance: Record<number, number>;
  /** Of the first of a query's own, 1 is best; ties as in `recall`. */
  medianRank: number;
  chanceRank: number;
  /**
   * Skewness of how often a candidate is among the first `HUB_NEIGHBORS` of a query: above 0 there are
   * hubs.
   */
  hubness: number;
}

export interface Retrieval {
  imageToText: Direction;
  textToImage: Direction;
}

/** Neighbors that hubness and CSLS look at, where there are as many. */
export const HUB_NEIGHBORS = 10;

// === Ranks ===

/** The chance that none of `own` is among the first `k` of `own + others` in random order. */
function missed(own: number, others: number, k: number): number {
  if (k > others) return 0;
  let chance = 1;
  // C(others, k) / C(own + others, k)
  for (let i = 0; i < k; i++) chance *= (others - i) / (own + others - i);
  return chance;
}

/**
 * Where the best of a query's own stands: behind `before`, with `tied` others and `own` of its own at its
 * score.
 */
interface Place {
  before: number;
  tied: number;
  own: number;
}

function placeOf(scores: Float64Array, own: readonly number[]): Place {
  const best = own.reduce((most, candidate) => Math.max(most, scores[candidate]), Number.NEGATIVE_INFINITY);
  let [before, equal] = [0, 0];
  for (let i = 0; i < scores.length; i++) {
    if (scores[i] > best) before++;
    else if (scores[i] === best) equal++;
  }
  // none of its own is before its best
  const ownEqual = own.filter((candidate) => scores[candidate] === best).length;
  return { before, tied: equal - ownEqual, own: ownEqual };
}

/**
 * Whether a query with this place has found one of its own among the first k, as a mean over orders of
 * ties.
 */
export const foundAt = ({ before, tied, own }: Place, k: number): number => (k <= before ? 0 : 1 - missed(own, tied, k - before));

/** Queries for candidates of one set. */
interface Queries {
  scores: readonly Float64Array[];
  /** The candidates that are a query's own. */
  own: readonly (readonly number[])[];
  /** What queries have in common, for intervals. */
  clusters: readonly (string | number)[];
}

/** One direction over all queries of several sets with as many candidates each. */
function direction(sets: readonly Queries[]): Direction {
  const candidates = sets[0].scores[0].length;
  const places = sets.flatMap(({ scores, own }) => scores.map((each, query) => placeOf(each, own[query])));
  const owned = sets.flatMap(({ own }) => own.map(({ length }) => length));
  const clusters = sets.flatMap((set) => set.clusters);
  const atEach = <T>(of: (k: number) => T) => Object.fromEntries(RECALL_AT.filter((k) => k < candidates).map((k) => [k, of(k)]));
  const share = (of: (query: number) => number) => meanOf(places.map((_, query) => of(query)));
  const found = (k: number) => places.map((place) => foundAt(place, k));
  const interval = (k: number) => {
    const { low, high } = meanCredit(found(k), { clusters });
    return { low, high };
  };
  return {
    recall: atEach((k) => meanOf(found(k))),
    interval: atEach(interval),
    pessimistic: atEach((k) => share((query) => (places[query].before + places[query].tied < k ? 1 : 0))),
    chance: atEach((k) => share((query) => 1 - missed(owned[query], candidates - owned[query], k))),
    medianRank: median(places.map(({ before, tied, own }) => before + (tied + own + 1) / (own + 1))),
    chanceRank: median(owned.map((own) => (candidates + 1) / (own + 1))),
    hubness: skewness(concatenated(sets.map(({ scores }) => neighborCounts(scores, HUB_NEIGHBORS)))),
  };
}

const concatenated = (lists: readonly Float64Array[]) => Float64Array.from(lists.flatMap((list) => [...list]));

/**
 * Each picture as a query for texts, and each text as a query for pictures; with several sets, each among
 * its own. What is no number is lowest. Intervals take the texts of a picture, or the queries of a set, as
 * one cluster.
 */
export function retrievalOf(...sets: readonly Scores[]): Retrieval {
  const clean = sets.map(({ data, ...rest }) => ({
    ...rest,
    data: data.map((score) => (Number.isNaN(score) ? Number.NEGATIVE_INFINITY : score)),
  }));
  const clusterOf = (set: number, picture: number) => (sets.length > 1 ? set : picture);
  const images = clean.map((scores, set): Queries => {
    const own = Array.from({ length: scores.pictures }, (): number[] => []);
    for (const [text, picture] of scores.owners.entries()) own[picture].push(text);
    return { scores: rowsOf(scores), own, clusters: own.map((_, picture) => clusterOf(set, picture)) };
  });
  const texts = clean.map((scores, set): Queries => {
    const { owners } = scores;
    return {
      scores: columnsOf(scores),
      own: owners.map((picture) => [picture]),
      clusters: owners.map((picture) => clusterOf(set, picture)),
    };
  });
  return { imageToText: direction(images), textToImage: direction(texts) };
}

const rowsOf = ({ data, pictures, texts }: Scores) => Array.from({ length: pictures }, (_, i) => data.subarray(i * texts, (i + 1) * texts));
const columnsOf = ({ data, pictures, texts }: Scores) =>
  Array.from({ length: texts }, (_, j) => Float64Array.from({ length: pictures }, (_, i) => data[i * texts + j]));

// === Hubs ===

/**
 * How often each candidate is among the first k of a query (N_k). Of those that share the last place, each
 * has a part of it.
 */
export function neighborCounts(queries: readonly Float64Array[], neighbors: number): Float64Array {
  const counts = new Float64Array(queries[0].length);
  const k = Math.min(neighbors, counts.length);
  for (const scores of queries) {
    const last = scores.slice().sort()[scores.length - k];
    let [above, tied] = [0, 0];
    for (const score of scores) {
      if (score > last) above++;
      else if (score === last) tied++;
    }
    const part = (k - above) / tied;
    for (let i = 0; i < scores.length; i++) counts[i] += scores[i] > last ? 1 : scores[i] === last ? part : 0;
  }
  return counts;
}

/**
 * Third central moment over the cube of the standard deviation, both with n below; 0 where all are the
 * same.
 */
export function skewness(values: Float64Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const moment = (power: number) => values.reduce((sum, value) => sum + (value - mean) ** power, 0) / values.length;
  const variance = moment(2);
  return variance > 1e-18 * (mean * mean + 1) ? moment(3) / variance ** 1.5 : 0;
}

/** Mean of the k highest of each query. */
function meanOfNearest(queries: readonly Float64Array[], neighbors: number): number[] {
  const k = Math.min(neighbors, queries[0].length);
  return queries.map((scores) => {
    const nearest = scores
      .slice()
      .sort()
      .subarray(scores.length - k);
    return nearest.reduce((sum, score) => sum + score, 0) / k;
  });
}

/**
 * Cross-domain similarity local scaling: twice the score, less the mean of the picture's 10 nearest texts
 * and of the text's 10 nearest pictures. It reads the whole set: say so beside its numbers.
 */
export function csls(scores: Scores): Scores {
  const ofPictures = meanOfNearest(rowsOf(scores), HUB_NEIGHBORS);
  const ofTexts = meanOfNearest(columnsOf(scores), HUB_NEIGHBORS);
  const data = scores.data.map((score, at) => 2 * score - ofPictures[Math.floor(at / scores.texts)] - ofTexts[at % scores.texts]);
  return { ...scores, data };
}
