// What is wrong with the scores of a study, found before the first run and not after the last.

import { benchmarkNamed } from '../benchmarks/benchmarks.ts';
import { chooseBenchmarks } from '../benchmarks/evaluation.ts';
import { UserError } from '../errors.ts';
import { namedComparisons } from './family.ts';
import type { Study } from './variants.ts';

/** Names of the splits and benchmarks that runs of the study will have. */
export const askedScores = ({ variants, file }: Study): string[] => [
  ...new Set<string>([
    ...variants.flatMap(({ recipe }) => recipe.evaluate?.splits ?? []),
    ...file.score.benchmarks.map(({ name }) => name),
  ]),
];

/**
 * UserError for comparisons of what is no factor or level, for unknown scores, and for benchmarks without
 * their files.
 */
export async function checkScores(study: Study): Promise<void> {
  const { path, file } = study;
  namedComparisons(study);
  const names = askedScores(study);
  const unknown = file.family.scores?.find((name) => !names.includes(name));
  if (unknown !== undefined) throw new UserError(`${path}: family.scores: nothing is called ${unknown}; there are ${names.join(', ')}`);
  const benchmarks = file.score.benchmarks.map(({ name }) => name);
  const twice = benchmarks.find((name, i) => benchmarks.indexOf(name) !== i);
  if (twice !== undefined) throw new UserError(`${path}: score.benchmarks names ${twice} twice`);
  for (const { name, data, limit } of file.score.benchmarks) await chooseBenchmarks([benchmarkNamed(name)], data, {}, limit);
}
