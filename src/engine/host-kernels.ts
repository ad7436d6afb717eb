// Ops on state that an engine in host memory computes itself, in place and in one pass over memory: as
// graphs, the update of AdamW takes a dozen passes, and the binding of ONNX Runtime copies every result out
// (docs/decisions.md).

import { inputName, type Tensor, type TensorOf } from '../graph/tensor.ts';
import type { AdamWConstants } from '../graph/updates.ts';
import { type AdamWScalars, adamWUpdate, adamWUpdate8bit } from './adamw-kernel.ts';
import type { Value, Write } from './engine.ts';
import type { HostState } from './host-state.ts';

type Update = TensorOf<'adamW' | 'adamW8bit'>;

/** One update of AdamW. */
export interface AdamWUpdate {
  op: Update['op'];
  parameter: string;
  /** Names of the inputs that hold the operands of the op, in its order. */
  operands: readonly string[];
  constants: AdamWConstants;
}

const isUpdate = (tensor: Tensor): tensor is Update => tensor.op === 'adamW' || tensor.op === 'adamW8bit';

/** Results of an update that are written to state, each to the operand of this number. */
const WRITTEN: { readonly [O in Update['op']]: Readonly<Partial<Record<TensorOf<O>['attributes']['part'], number>>> } = {
  adamW: { parameter: 0, expAvg: 2, expAvgSq: 3 },
  adamW8bit: { parameter: 0, expAvg: 2, expAvgAbsmax: 3, expAvgSq: 4, expAvgSqAbsmax: 5 },
};

/** The input whose squared norm a tensor is, where it is that and nothing else: it needs no graph. */
export function hostNormOf(tensor: Tensor): string | undefined {
  return tensor.op === 'squaredNorm' && tensor.inputs[0].op === 'input' ? inputName(tensor.inputs[0]) : undefined;
}

/**
 * The parameter of the update, one of `updates`, whose `change` a tensor is: it is known when that has run.
 */
export function hostChangeOf(tensor: Tensor, updates: readonly AdamWUpdate[]): string | undefined {
  if (!isUpdate(tensor) || tensor.attributes.part !== 'change') return undefined;
  const names = operandNames(tensor);
  return updates.find(({ op, operands }) => op === tensor.op && operands.every((operand, i) => operand === names?.[i]))?.parameter;
}

/** Names of the operands, if all of them are inputs. */
function operandNames({ inputs }: Update): string[] | undefined {
  const named = (inputs as readonly Tensor[]).filter((x): x is TensorOf<'input'> => x.op === 'input');
  return named.length === inputs.length ? named.map(inputName) : undefined;
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
 * Takes whole AdamW updates out of `writes`: where parameter and moments are replaced by one update of
 * inputs. What is left is for the graph.
 */
export function takeAdamW(writes: Readonly<Record<string, Write>>): { updates: AdamWUpdate[]; rest: Record<string, Write> } {
  const rest = { ...writes };
  const updates: AdamWUpdate[] = [];
  for (const { tensor } of Object.values(writes)) {
    if (!isUpdate(tensor) || tensor.attributes.part !== 'parameter') continue;
    const operands = operandNames(tensor);
    if (!operands) continue;
    const written = Object.entries(WRITTEN[tensor.op]).map(([part, operand]) => ({ part, name: operands[operand] }));
    const isWritten = written.every(({ part, name }) => {
      const write = writes[name];
      const same = write && write.tensor.op === tensor.op && write.tensor.inputs.every((x, i) => x === tensor.inputs[i]);
      return same && write.mode === 'replace' && (write.tensor as Update).attributes.part === part;
    });
    if (!isWritten) continue;
    const { part: _, ...constants } = tensor.attributes;
    updates.push({ op: tensor.op, parameter: operands[0], operands, constants });
    for (const { name } of written) delete rest[name];
  }
  return { updates, rest };
}

/**
 * Runs an update in place, and returns its `change`. `state` gives the memory behind a name, `scalar` the
 * value of a scalar input.
 */
export function runAdamW(
  { op, operands, constants }: AdamWUpdate,
  state: (name: string) => HostState,
  scalar: (name: string) => Value,
): number {
  const { beta1, beta2, eps } = constants;
  const [clip, keep, rate, rootScale] = operands.slice(-4).map((name) => scalar(name).data[0] as number);
  const scalars: AdamWScalars = { clip, beta1, share1: 1 - beta1, beta2, share2: 1 - beta2, keep, rate, rootScale, eps };
  const arrays = operands.slice(0, -4).map((name) => state(name).value().data);
  if (op === 'adamW') {
    const [values, gradient, mean, square] = arrays as Float32Array[];
    return adamWUpdate({ values, mean, square, gradient }, scalars);
  }
  const [values, gradient, expAvg, expAvgAbsmax, expAvgSq, expAvgSqAbsmax] = arrays;
  return adamWUpdate8bit(
    {
      values: values as Float32Array,
      mean: { codes: expAvg as Uint8Array, absmax: expAvgAbsmax as Float32Array },
      square: { codes: expAvgSq as Uint8Array, absmax: expAvgSqAbsmax as Float32Array },
      gradient: gradient as Float32Array,
    },
    scalars,
  );
}
