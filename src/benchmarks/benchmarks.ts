// Every benchmark that there is.

import { UserError } from '../errors.ts';
import type { Benchmark } from './benchmark.ts';
import { gqa } from './gqa.ts';
import { mmbench, mmbenchCn } from './mmbench.ts';
import { mme } from './mme.ts';
import { mmmu } from './mmmu.ts';
import { pope } from './pope.ts';
import { scienceqa } from './scienceqa.ts';
import { seed } from './seed.ts';

export const benchmarks: readonly Benchmark[] = [gqa, mmbench, mmbenchCn, mme, mmmu, pope, scienceqa, seed];

/** UserError, with the names that there are, for one that is unknown. */
export function benchmarkNamed(name: string): Benchmark {
  const found = benchmarks.find((benchmark) => benchmark.name === name);
  if (!found) throw new UserError(`${name}: is no benchmark; there are ${benchmarks.map((benchmark) => benchmark.name).join(', ')}`);
  return found;
}
