// What is wrong with the scores of a study, found before the first run and not after the last.

import type { BenchmarkQuestion } from '../benchmarks/benchmark.ts';
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
 * their files, or that need someone else to be scored.
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
  for (const { name, data, limit } of file.score.benchmarks) {
    const benchmark = benchmarkNamed(name);
    if (benchmark.judged === 'always')
      throw new UserError(
        `${path}: score.benchmarks: ${name} is graded by a judge, which a study does not have; llava-gemma eval --judge scores it`,
      );
    const [{ questions }] = await chooseBenchmarks([benchmark], data, {}, limit);
    const isUnknown = ({ references }: BenchmarkQuestion) => references.length === 0;
    if (benchmark.upload ? questions.some(isUnknown) : questions.every(isUnknown))
      throw new UserError(
        `${path}: score.benchmarks: the right answers to ${name} in ${data} are secret, and a study scores its runs itself: give the folder of a split whose answers are known`,
      );
  }
}
