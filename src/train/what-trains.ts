// What a stage trains, told before its first step: a module that is missing here, or a rate that is not the
// one that was meant, costs a look and not a run.

import { sizeOf } from '../engine/engine.ts';
import type { LossGraph } from '../models/programs.ts';
import { isOfAdapter } from '../nn/lora.ts';
import type { Task } from './task.ts';

/** Module by module: how many numbers, in how many tensors, at which peak rate; and how many are frozen. */
export function whatTrains(
  { moduleOf }: Pick<Task, 'moduleOf'>,
  { parameters }: LossGraph,
  isTrained: (name: string) => boolean,
  rateOf: (module: string) => number,
): string {
  const modules = new Map<string, { numbers: number; tensors: number; adapters: number }>();
  let frozen = 0;
  for (const { name, dims } of parameters) {
    if (!isTrained(name)) {
      frozen += sizeOf(dims);
      continue;
    }
    const module = moduleOf(name);
    const { numbers = 0, tensors = 0, adapters = 0 } = modules.get(module) ?? {};
    modules.set(module, { numbers: numbers + sizeOf(dims), tensors: tensors + 1, adapters: adapters + Number(isOfAdapter(name)) });
  }
  const parts = [...modules].map(
    ([module, { numbers, tensors, adapters }]) =>
      `${module}${adapters > 0 ? ' through adapters' : ''} (${numbers.toLocaleString('en')} numbers in ${tensors} tensors, at ${rateOf(module)})`,
  );
  return `${parts.join(', ')}; ${frozen.toLocaleString('en')} are frozen`;
}
