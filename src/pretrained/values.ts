// Reads values of parameters from a checkpoint and checks them: names, shapes, no NaN or infinity.

import type { Checkpoint } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { type Parameter, packedName } from '../nn/parameters.ts';

/**
 * Values of `parameters` from a checkpoint, row-major, optional ones if it has them. `rename` gives the name
 * in the checkpoint, if it differs. UserError, naming folder and tensor, for a missing tensor, another shape,
 * NaN or infinity.
 */
export async function readParameters(
  checkpoint: Checkpoint,
  parameters: readonly Pick<Parameter, 'name' | 'dims' | 'optional'>[],
  rename: (name: string) => string = (name) => name,
): Promise<Map<string, Float32Array>> {
  if (parameters.some(({ name }) => rename(name) === checkpoint.head?.embedding)) await checkpoint.checkHead();
  const values = new Map<string, Float32Array>();
  for (const { name, dims, optional } of parameters) {
    if (optional && !checkpoint.has(rename(name))) continue;
    checkShape(checkpoint, rename(name), dims);
    const data = await checkpoint.float32(rename(name));
    const problem = notFinite(checkpoint, rename(name), data);
    if (problem) throw new UserError(`${checkpoint.dir}: ${notFiniteText([problem])}`);
    values.set(name, data);
  }
  return values;
}

/** Throws a UserError, naming folder and tensor, if a tensor is missing or its shape is not `dims`. */
export function checkShape(checkpoint: Checkpoint, name: string, dims: readonly number[]): void {
  if (!checkpoint.has(name) && checkpoint.has(packedName(name)))
    throw new UserError(
      `${checkpoint.dir}: ${name} is quantized: such a model answers and is scored, but it cannot be trained or converted`,
    );
  const shape = checkpoint.shape(name);
  if (shape.join() !== dims.join())
    throw new UserError(
      `${checkpoint.dir}: ${checkpoint.storedName(name)} has shape [${shape.join(', ')}], but config.json asks for [${dims.join(', ')}]`,
    );
}

/** A tensor with values that are not finite. */
export interface NotFinite {
  /** Its name in the file. */
  name: string;
  /** Whether it is float16 with infinity alone: what a conversion makes of numbers beyond that type. */
  isBeyondFloat16: boolean;
}

/** What is wrong with some values of a tensor; undefined if they are all finite. */
export function notFinite(checkpoint: Checkpoint, name: string, values: Float32Array): NotFinite | undefined {
  if (allFinite(values)) return undefined;
  return { name: checkpoint.storedName(name), isBeyondFloat16: checkpoint.info(name).dtype === 'F16' && !values.some(Number.isNaN) };
}

/** The message for tensors that hold NaN or infinity. */
export function notFiniteText(tensors: readonly NotFinite[]): string {
  const [first, ...others] = tensors;
  const subject = others.length === 0 ? `${first.name} holds` : `${first.name} and ${others.length} more hold`;
  if (tensors.every(({ isBeyondFloat16 }) => isBeyondFloat16))
    return `${subject} infinity: numbers beyond float16, which ends at 65504, were converted to it; take the weights in bfloat16 or float32`;
  return `${subject} NaN or infinity: the file is damaged, or its training went wrong`;
}

/** Whether no value is NaN or infinite. */
export function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * 0;
  return sum === 0;
}
