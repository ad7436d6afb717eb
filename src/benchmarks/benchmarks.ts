// Every benchmark that there is.

import { UserError } from '../errors.ts';
import type { Benchmark } from './benchmark.ts';
import { mathVista } from './mathvista.ts';
import { mmVet } from './mm-vet.ts';
import { pope } from './pope.ts';

export const benchmarks: readonly Benchmark[] = [mathVista, mmVet, pope];

/** UserError, with the names that there are, for one that is unknown. */
export function benchmarkNamed(name: string): Benchmark {
  const found = benchmarks.find((benchmark) => benchmark.name === name);
  if (!found) throw new UserError(`${name}: is no benchmark; there are ${benchmarks.map((benchmark) => benchmark.name).join(', ')}`);
  return found;
}
