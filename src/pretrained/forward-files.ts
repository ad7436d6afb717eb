// Inputs and outputs of one forward pass as safetensors files (generate/forward.ts).

import { storedToFloat32 } from '../checkpoint/checkpoint.ts';
import { float32, int32, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { FORWARD_INPUTS, type ForwardInput, type ForwardInputs, type ForwardOutput, placeOf } from '../generate/forward.ts';
import { openSafetensors, type StoredTensor, type TensorSource, writeSafetensors } from '../weights/safetensors.ts';

/** int32 values of stored ids or of a mask. */
function integers(path: string, name: string, { dtype, shape, data }: StoredTensor): Value {
  const where = `${path}: tensor ${JSON.stringify(name)}`;
  const { buffer, byteOffset, byteLength } = data;
  if (dtype === 'I32') return int32(new Int32Array(buffer, byteOffset, byteLength / 4), shape);
  if (dtype !== 'I64') throw new UserError(`${where}: expected int64 or int32, found ${dtype}`);
  const wide = new BigInt64Array(buffer, byteOffset, byteLength / 8);
  const tooLarge = wide.findIndex((value) => BigInt.asIntN(32, value) !== value);
  if (tooLarge >= 0) throw new UserError(`${where}: ${wide[tooLarge]} at ${placeOf(tooLarge, shape)} is beyond the range of int32`);
  return int32(Int32Array.from(wide, Number), shape);
}

/**
 * The inputs in a safetensors file. UserError, naming file and tensor, for one that is unknown or of the
 * wrong type.
 */
export async function readForwardInputs(path: string): Promise<ForwardInputs> {
  const file = await openSafetensors(path);
  try {
    const unknown = file.names.find((name) => !(FORWARD_INPUTS as readonly string[]).includes(name));
    if (unknown !== undefined)
      throw new UserError(`${path}: tensor ${JSON.stringify(unknown)} is not known here; the file may hold ${FORWARD_INPUTS.join(', ')}`);
    const inputs: ForwardInputs = {};
    for (const name of file.names as ForwardInput[]) {
      const stored = await file.read(name);
      inputs[name] =
        name === 'pixel_values'
          ? float32(storedToFloat32(stored, `${path}: tensor "${name}"`), stored.shape)
          : integers(path, name, stored);
    }
    return inputs;
  } finally {
    await file.close();
  }
}

/** An output as a tensor to be written: computed when its turn comes, unless `signal` aborts it. */
const sourceOf = ({ dims, pieces }: ForwardOutput, signal: AbortSignal): TensorSource => ({
  dtype: 'F32',
  shape: [...dims],
  async *data() {
    for await (const { buffer, byteOffset, byteLength } of pieces()) {
      signal.throwIfAborted();
      yield new Uint8Array(buffer, byteOffset, byteLength);
    }
  },
});

/** Writes the outputs as they are computed. When `signal` aborts, throws its reason and leaves no file. */
export async function writeForwardOutputs(path: string, outputs: ReadonlyMap<string, ForwardOutput>, signal: AbortSignal): Promise<void> {
  await writeSafetensors(path, new Map([...outputs].map(([name, tensor]) => [name, sourceOf(tensor, signal)])));
}
