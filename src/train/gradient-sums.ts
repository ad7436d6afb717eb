// What a step adds up: gradients, and the numbers that come with them. Sums of float32 depend on their order;
// here it is that of a balanced tree over the batches of a step, whose upper part lies between the processes
// of the run. So their number changes no bit, as long as it is a power of two.

import type { Engine, State, Value, Write } from '../engine/engine.ts';
import { input } from '../graph/tensor.ts';
import type { Communicator } from '../mpi/communicator.ts';

/** What a step adds up over its micro-batches. */
export interface StepSums {
  /** `loss`, and what else the graph gives. */
  outputs: Record<string, number>;
  weight: number;
  tokens: number;
  padding: number;
}

/** Sets of gradients that `addPairs` needs for `count` batches. */
export const levelsOf = (count: number): number => 1 + Math.floor(Math.log2(count));

/**
 * Adds up `count` batches in pairs. `leaf` computes the next batch into the gradients of a level; `add` adds
 * to those of one level those of another.
 */
export async function addPairs(
  count: number,
  leaf: (level: number) => Promise<StepSums>,
  add: (into: number, from: number) => Promise<void>,
  level = 0,
): Promise<StepSums> {
  if (count === 1) return leaf(level);
  const half = Math.ceil(count / 2);
  const first = await addPairs(half, leaf, add, level);
  const second = await addPairs(count - half, leaf, add, level + 1);
  await add(level, level + 1);
  return fromNumbers(Object.keys(first.outputs), sumInPairs([toNumbers(first), toNumbers(second)]));
}

/** Adds float32 states to others of the same shapes. */
export interface StateAdder {
  /** Adds each of `terms` to its counterpart of `sums`. */
  add(sums: readonly State[], terms: readonly State[]): Promise<void>;
  dispose(): Promise<void>;
}

export async function createStateAdder(engine: Engine, shapes: readonly (readonly number[])[]): Promise<StateAdder> {
  const writes = shapes.map((dims, i): [string, Write] => [`sum ${i}`, { mode: 'add', tensor: input(`term ${i}`, 'float32', dims) }]);
  const program = await engine.compile({}, { writes: Object.fromEntries(writes) });
  const named = (kind: string, states: readonly State[]) => Object.fromEntries(states.map((state, i) => [`${kind} ${i}`, state]));
  return {
    async add(sums, terms) {
      await program.run({}, { state: { ...named('sum', sums), ...named('term', terms) } });
    },
    dispose: () => program.dispose(),
  };
}

/** Adds up float32 states over the processes, in place. */
export async function sumStates(communicator: Communicator, states: readonly State[]): Promise<void> {
  if (communicator.size === 1) return;
  const values: Value[] = [];
  for (const state of states) values.push(await state.read());
  await communicator.sum(values.map(({ data }) => data as Float32Array));
  for (const [i, value] of values.entries()) await states[i].write(value);
}

/** The sums of all processes. */
export async function gatherSums(communicator: Communicator, own: StepSums): Promise<StepSums> {
  return fromNumbers(Object.keys(own.outputs), sumInPairs(await communicator.share(toNumbers(own))));
}

const toNumbers = ({ outputs, weight, tokens, padding }: StepSums): number[] => [weight, tokens, padding, ...Object.values(outputs)];

function fromNumbers(names: readonly string[], [weight, tokens, padding, ...outputs]: number[]): StepSums {
  return { outputs: Object.fromEntries(names.map((name, i) => [name, outputs[i]])), weight, tokens, padding };
}

function sumInPairs(parts: number[][]): number[] {
  if (parts.length === 1) return parts[0];
  const half = Math.ceil(parts.length / 2);
  const [first, second] = [sumInPairs(parts.slice(0, half)), sumInPairs(parts.slice(half))];
  return first.map((number, i) => number + second[i]);
}
