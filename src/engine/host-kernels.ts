// Ops on state that an engine in host memory computes itself, in place and in one pass over memory: as
// graphs, the update of AdamW takes a dozen passes, and the binding of ONNX Runtime copies every result out
// (docs/decisions.md).

import { inputName, type Tensor, type TensorOf } from '../graph/tensor.ts';
import type { AdamWConstants } from '../graph/updates.ts';
import { adamWUpdate } from './adamw-kernel.ts';
import type { Value, Write } from './engine.ts';
import type { HostState } from './host-state.ts';

/** One update of AdamW, by the names of the inputs that hold its operands. */
export interface AdamWUpdate {
  parameter: string;
  gradient: string;
  expAvg: string;
  expAvgSq: string;
  clip: string;
  keep: string;
  rate: string;
  rootScale: string;
  constants: AdamWConstants;
}

/** The input whose squared norm a tensor is, where it is that and nothing else: it needs no graph. */
export function hostNormOf(tensor: Tensor): string | undefined {
  return tensor.op === 'squaredNorm' && tensor.inputs[0].op === 'input' ? inputName(tensor.inputs[0]) : undefined;
}

/**
 * The parameter of the update, one of `updates`, whose `change` a tensor is: it is known when that has run.
 */
export function hostChangeOf(tensor: Tensor, updates: readonly AdamWUpdate[]): string | undefined {
  if (tensor.op !== 'adamW' || tensor.attributes.part !== 'change') return undefined;
  const names = tensor.inputs.map((x) => (x.op === 'input' ? inputName(x) : undefined));
  const [parameter, ...others] = names;
  const update = updates.find((each) => each.parameter === parameter);
  const operands = update && [update.gradient, update.expAvg, update.expAvgSq, update.clip, update.keep, update.rate, update.rootScale];
  return operands && others.every((name, i) => name === operands[i]) ? parameter : undefined;
}

/** Sum of squares of float32 values, in double. */
export function sumOfSquares(values: Float32Array): number {
  // four partial sums: the additions of one chain would wait for each other
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  const whole = values.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    a += values[i] * values[i];
    b += values[i + 1] * values[i + 1];
    c += values[i + 2] * values[i + 2];
    d += values[i + 3] * values[i + 3];
  }
  for (let i = whole; i < values.length; i++) a += values[i] * values[i];
  return a + b + c + d;
}

/**
 * Takes whole AdamW updates out of `writes`: where parameter and both moments are replaced by one `adamW` of
 * inputs. What is left is for the graph.
 */
export function takeAdamW(writes: Readonly<Record<string, Write>>): { updates: AdamWUpdate[]; rest: Record<string, Write> } {
  const rest = { ...writes };
  const updates: AdamWUpdate[] = [];
  for (const { tensor } of Object.values(writes)) {
    if (tensor.op !== 'adamW' || tensor.attributes.part !== 'parameter') continue;
    const inputs = tensor.inputs.filter((x): x is TensorOf<'input'> => x.op === 'input');
    if (inputs.length !== tensor.inputs.length) continue;
    const [parameter, gradient, expAvg, expAvgSq, clip, keep, rate, rootScale] = inputs.map(inputName);
    const isPart = (name: string, part: string) => {
      const write = writes[name];
      const same = write?.tensor.op === 'adamW' && write.tensor.inputs.every((x, i) => x === tensor.inputs[i]);
      return same && write.mode === 'replace' && write.tensor.attributes.part === part;
    };
    if (!isPart(parameter, 'parameter') || !isPart(expAvg, 'expAvg') || !isPart(expAvgSq, 'expAvgSq')) continue;
    const { part: _, ...constants } = tensor.attributes;
    updates.push({ parameter, gradient, expAvg, expAvgSq, clip, keep, rate, rootScale, constants });
    for (const name of [parameter, expAvg, expAvgSq]) delete rest[name];
  }
  return { updates, rest };
}

/**
 * Runs an update in place, and returns its `change`. `state` gives the memory behind a name, `scalar` the
 * value of a scalar input.
 */
export function runAdamW(update: AdamWUpdate, state: (name: string) => HostState, scalar: (name: string) => Value): number {
  const { beta1, beta2, eps } = update.constants;
  const array = (name: string) => state(name).value().data as Float32Array;
  const number = (name: string) => scalar(name).data[0] as number;
  return adamWUpdate(
    {
      values: array(update.parameter),
      mean: array(update.expAvg),
      square: array(update.expAvgSq),
      gradient: array(update.gradient),
    },
    {
      clip: number(update.clip),
      beta1,
      share1: 1 - beta1,
      beta2,
      share2: 1 - beta2,
      keep: number(update.keep),
      rate: number(update.rate),
      rootScale: number(update.rootScale),
      eps,
    },
  );
}
