// An exponential moving average of the weights that a stage trains (Polyak & Juditsky 1992), which often
// scores better than the last weights, and is what the stage ends with. As in diffusers (EMAModel) the decay
// grows to its value, so that the average is not held back by where the weights began.

import { type Engine, float32, type State, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { add, mul, sub } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';

/** By the name that an average has in checkpoints. */
const averageName = (parameter: string) => `${parameter}.ema`;

/** The decay after `step` finished steps. */
export const decayAt = (decay: number, step: number): number => Math.min(decay, (1 + step) / (10 + step));

export interface WeightAverage {
  /** The averages by the names of the parameters. */
  readonly values: ReadonlyMap<string, State>;
  /** The same by their names in checkpoints. */
  readonly saved: ReadonlyMap<string, State>;
  /** Takes in the weights after finished step `step`, from 1. */
  update(step: number): Promise<void>;
  /** Makes the averages the weights. */
  apply(): Promise<void>;
  dispose(): Promise<void>;
}

/**
 * The average of `trained`, which begins with their values, or goes on from `saved`, which is emptied: they
 * would be in memory twice. UserError where that lacks one.
 */
export async function createWeightAverage(
  engine: Engine,
  trained: ReadonlyMap<string, State>,
  decay: number,
  saved?: Map<string, Value>,
): Promise<WeightAverage> {
  const values = new Map<string, State>();
  for (const [name, state] of trained) {
    const before = saved ? saved.get(averageName(name)) : await state.read();
    if (!before)
      throw new UserError(`the checkpoint has no average of ${name}: ema_decay was not given when it was saved; start the run anew`);
    saved?.delete(averageName(name));
    values.set(name, engine.state(saved ? before : { ...before, data: (before.data as Float32Array).slice() }));
  }
  const kept = new Map([...values].map(([name, state]) => [averageName(name), state]));
  const share = input('share', 'float32', []);
  const writes = Object.fromEntries(
    [...trained].map(([name, { dims }]) => {
      const [weight, average] = [input(name, 'float32', dims), input(averageName(name), 'float32', dims)];
      return [averageName(name), { mode: 'replace' as const, tensor: add(average, mul(sub(weight, average), share)) }];
    }),
  );
  const program = await engine.compile({}, { writes });
  const state = { ...Object.fromEntries(trained), ...Object.fromEntries(kept) };
  return {
    values,
    saved: kept,
    async update(step) {
      await program.run({ share: float32([1 - decayAt(decay, step)], []) }, { state });
    },
    async apply() {
      for (const [name, weight] of trained) await weight.write(await values.get(name)!.read());
    },
    dispose: () => program.dispose(),
  };
}
