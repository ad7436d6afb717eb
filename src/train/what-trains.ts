// What a stage trains, told before its first step: a module that is missing here, or a rate that is not the
// one that was meant, costs a look and not a run.

import { sizeOf } from '../engine/engine.ts';
import type { LossGraph } from '../models/programs.ts';
import { isOfAdapter } from '../nn/lora.ts';
import { alignColumns } from '../runs/columns.ts';
import type { TrainedGroup } from '../runs/metrics.ts';
import { hasCodes, type Optim } from './optimizer.ts';
import type { Rates } from './rates.ts';
import type { Task } from './task.ts';

/** What of a graph is trained, by module and by the patterns that decide, and how many numbers are frozen. */
export interface WhatTrains {
  groups: TrainedGroup[];
  frozen: number;
}

export function whatTrains(
  { moduleOf }: Pick<Task, 'moduleOf'>,
  { parameters }: LossGraph,
  isTrained: (name: string) => boolean,
  { learningRate, weightDecay }: Rates,
  optim?: Optim,
): WhatTrains {
  const groups = new Map<string, TrainedGroup>();
  let frozen = 0;
  for (const { name, dims } of parameters) {
    if (!isTrained(name)) {
      frozen += sizeOf(dims);
      continue;
    }
    const [module, rate, decay] = [moduleOf(name), learningRate(name), weightDecay(name)];
    const patterns = [...new Set([rate.pattern, decay.pattern])].filter((pattern) => pattern !== undefined && pattern !== module);
    const label = `${[module, ...patterns].join(', ')}${isOfAdapter(name) ? ' (adapters)' : ''}`;
    const fresh: TrainedGroup = { name: label, tensors: 0, numbers: 0, learningRate: rate.value, weightDecay: decay.value, decayed: 0 };
    const group = groups.get(label) ?? fresh;
    groups.set(label, group);
    group.tensors++;
    group.numbers += sizeOf(dims);
    if (dims.length > 1) group.decayed++;
    if (hasCodes({ name, dims }, optim)) group.coded = (group.coded ?? 0) + 1;
  }
  return { groups: [...groups.values()], frozen };
}

const count = (value: number) => value.toLocaleString('en');

/** The same as a table. */
export function trainsText(stage: string, { groups, frozen }: WhatTrains): string {
  const total = groups.reduce((sum, { numbers }) => sum + numbers, 0);
  const decayText = ({ weightDecay, decayed, tensors }: TrainedGroup) =>
    weightDecay === 0 || decayed === 0 ? '0' : decayed === tensors ? `${weightDecay}` : `${weightDecay} (${decayed} matrices)`;
  const codedText = ({ coded = 0, tensors }: TrainedGroup) =>
    coded === 0 ? 'float32' : coded === tensors ? '8 bits' : `8 bits (${count(coded)} tensors)`;
  const hasCoded = groups.some(({ coded = 0 }) => coded > 0);
  const rows = groups.map((group) => [
    `  ${group.name}`,
    count(group.tensors),
    count(group.numbers),
    String(group.learningRate),
    decayText(group),
    ...(hasCoded ? [codedText(group)] : []),
  ]);
  const heads = ['', 'tensors', 'numbers', 'peak lr', 'weight decay', ...(hasCoded ? ['moments'] : [])];
  return [`stage ${stage} trains ${count(total)} numbers; ${count(frozen)} are frozen`, ...alignColumns([heads, ...rows])].join('\n');
}
