// 95 % intervals of headline scores. Questions about one picture, or of one pair, are one cluster.

import { groupBy } from '../arrays.ts';
import { clusterBootstrap } from '../statistics/bootstrap.ts';
import { meanCredit, meanOf, wilsonInterval } from '../statistics/proportion.ts';
import type { Benchmark, Judged } from './benchmark.ts';

/** Of a score that is no mean of credit. */
const DRAWS = 1000;

export interface HeadlineInterval {
  low: number;
  high: number;
  /** How it was computed. */
  method: 'wilson' | 'clustered' | 'bootstrap';
}

/** A cluster that is drawn once more is another one, with questions of its own. */
const copyOf = (judged: Judged, copy: number): Judged => {
  const { question } = judged;
  return { ...judged, question: { ...question, id: `${question.id}#${copy}`, cluster: `${question.cluster}#${copy}` } };
};

/** The answers of the clusters that were drawn, as often as they were. */
export const redrawn = (members: readonly (readonly Judged[])[], drawn: Uint32Array): Judged[] =>
  members.flatMap((cluster, i) =>
    Array.from({ length: drawn[i] }, (_, copy) => (copy === 0 ? cluster : cluster.map((judged) => copyOf(judged, copy)))).flat(),
  );

/** Whether the headline is the mean of credit, in the benchmark's units. */
export function isMeanCredit(benchmark: Benchmark, judged: readonly Judged[], headline: number): boolean {
  const mean = meanOf(judged.map(({ credit }) => credit)) * benchmark.headline.best;
  return Math.abs(mean - headline) <= 1e-9 * benchmark.headline.best;
}

/** The headline's interval, in its units; undefined without answers. */
export function headlineInterval(
  benchmark: Benchmark,
  judged: readonly Judged[],
  harness: string,
  headline: number,
): HeadlineInterval | undefined {
  if (judged.length === 0) return undefined;
  const { best, name } = benchmark.headline;
  const members = groupBy(judged, ({ question }) => question.cluster);
  if (isMeanCredit(benchmark, judged, headline)) {
    const isShared = members.length < judged.length;
    const credits = judged.map(({ credit }) => credit);
    const { low, high } = meanCredit(credits, isShared ? { clusters: judged.map(({ question }) => question.cluster) } : {});
    const isBinary = credits.every((credit) => credit === 0 || credit === 1);
    return { low: low * best, high: high * best, method: isBinary && !isShared ? 'wilson' : 'clustered' };
  }
  const statistic = (drawn: Uint32Array) => benchmark.summarize(redrawn(members, drawn), harness).scores[name];
  const { low, high } = clusterBootstrap(members.length, statistic, { seed: 0, draws: DRAWS });
  if (high > low) return { low, high, method: 'bootstrap' };
  // all clusters alike, mostly all right or all wrong, so that draws of them are too: each is one question
  const share = Math.min(1, Math.max(0, headline / best));
  const wilson = wilsonInterval(share * members.length, members.length);
  return { low: wilson.low * best, high: wilson.high * best, method: 'wilson' };
}
