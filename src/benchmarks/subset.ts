// A part of a benchmark's questions: the first so many, or one share of several. Questions that depend on
// each other, of one picture or pair, stay together.

import { groupBy } from '../arrays.ts';
import { UserError } from '../errors.ts';
import type { BenchmarkQuestion } from './benchmark.ts';

/** One of `count` shares, from 1. */
export interface Shard {
  index: number;
  count: number;
}

/** `2/4`. UserError for anything else. */
export function parseShard(text: string): Shard {
  const [, index, count] = /^(\d+)\/(\d+)$/.exec(text.trim()) ?? [];
  const shard = { index: Number(index), count: Number(count) };
  if (!(shard.index >= 1 && shard.index <= shard.count))
    throw new UserError(`--shard ${text}: must be a share of all, from 1/4 to 4/4 for four`);
  return shard;
}

const byCluster = <Q extends BenchmarkQuestion>(questions: readonly Q[]): Q[][] => groupBy(questions, ({ cluster }) => cluster);

/** Questions in their order, of the clusters that are chosen. */
function only<Q extends BenchmarkQuestion>(questions: readonly Q[], chosen: readonly Q[][]): Q[] {
  const clusters = new Set(chosen.map(([first]) => first.cluster));
  return questions.filter(({ cluster }) => clusters.has(cluster));
}

/**
 * Whole clusters, taken evenly from the whole file, that have `limit` questions or a few more: a file may
 * have one kind of questions behind the other.
 */
export function limitClusters<Q extends BenchmarkQuestion>(questions: readonly Q[], limit = Number.POSITIVE_INFINITY): Q[] {
  if (questions.length <= limit) return [...questions];
  const clusters = byCluster(questions);
  const wanted = Math.min(clusters.length, Math.max(1, Math.ceil((limit / questions.length) * clusters.length)));
  const chosen = Array.from({ length: wanted }, (_, i) => clusters[Math.floor((i * clusters.length) / wanted)]);
  return only(questions, chosen);
}

/** The clusters of one share: every `count`th. */
export function shardOf<Q extends BenchmarkQuestion>(questions: readonly Q[], shard: Shard | undefined): Q[] {
  if (shard === undefined) return [...questions];
  return only(
    questions,
    byCluster(questions).filter((_, i) => i % shard.count === shard.index - 1),
  );
}
