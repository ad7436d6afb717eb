// Weights as a checkpoint stores them, unconverted: constants of a program, in memory or in their files.

import type { Checkpoint } from '../checkpoint/checkpoint.ts';
import { type Constant, elementBytes, sizeOf, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type BlockFormat, bfloat16ToFloat32, float16ToFloat32 } from '../floats.ts';
import type { DType, TypedData } from '../graph/tensor.ts';
import { type Parameter, packedFormat, packedName, type Storage, scaleName } from '../nn/parameters.ts';
import { filePieces, type StoredDType, type TensorSource } from '../weights/safetensors.ts';
import { checkShape, notFinite, notFiniteText } from './values.ts';

/** A parameter with the constants that hold its values. */
export interface StoredParameter extends Pick<Parameter, 'name' | 'dims'> {
  storage: Storage;
  /** Keyed by the names of the inputs that hold it (nn/parameters.ts `inputNames`). */
  constants: Map<string, Constant>;
}

/** What is asked of a checkpoint. */
export type StoredName = Pick<Parameter, 'name' | 'dims' | 'optional'>;

export interface ReadStoredOptions {
  /** Values stay in their files, which the runtime maps into memory. */
  inFiles: boolean;
  /** Gives the name in the checkpoint, if it differs. */
  rename?: (name: string) => string;
  /** Only names, types and shapes are looked at; the constants lie in their files. */
  unread?: boolean;
}

/** Types that a program reads unconverted, by their names in safetensors files. */
const FLOATS: Partial<Record<StoredDType, 'float32' | 'float16' | 'bfloat16'>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };
const STORED: Partial<Record<DType, StoredDType>> = { float32: 'F32', float16: 'F16', bfloat16: 'BF16', uint8: 'U8' };

/**
 * `parameters` as `checkpoint` stores them, optional ones if it has them. UserError, naming folder and
 * tensor, for one that is missing, misshapen, not of floats, or holds NaN or infinity.
 */
export async function readStored(
  checkpoint: Checkpoint,
  parameters: readonly StoredName[],
  { inFiles: inTheirFiles, rename = (name) => name, unread = false }: ReadStoredOptions,
): Promise<StoredParameter[]> {
  const inFiles = inTheirFiles || unread;
  if (!unread && parameters.some(({ name }) => rename(name) === checkpoint.head?.embedding)) await checkpoint.checkHead();
  const read: StoredParameter[] = [];
  for (const { name, dims, optional } of parameters) {
    const own = rename(name);
    const format = storedFormat(checkpoint, own, dims);
    if (format) {
      const constants = new Map([
        [packedName(name), await constantOf(checkpoint, packedName(own), 'uint8', inFiles)],
        [scaleName(name), await constantOf(checkpoint, scaleName(own), 'float32', inFiles)],
      ]);
      if (!unread) await checkFinite(checkpoint, scaleName(own));
      read.push({ name, dims, storage: format, constants });
      continue;
    }
    if (optional && !checkpoint.has(own)) continue;
    checkShape(checkpoint, own, dims);
    const storage = FLOATS[checkpoint.info(own).dtype];
    if (!unread) await checkFinite(checkpoint, own);
    const constant = storage
      ? await constantOf(checkpoint, own, storage, inFiles)
      : ({ dtype: 'float32', dims, data: await checkpoint.float32(own) } as const);
    read.push({ name, dims, storage: storage ?? 'float32', constants: new Map([[name, constant]]) });
  }
  return read;
}

/** The block format of a parameter that a checkpoint holds packed; undefined if it does not. */
export function storedFormat(checkpoint: Checkpoint, name: string, dims: readonly number[]): BlockFormat | undefined {
  return packedFormat((tensor) => (checkpoint.has(tensor) ? checkpoint.shape(tensor) : undefined), name, dims);
}

async function checkFinite(checkpoint: Checkpoint, name: string): Promise<void> {
  for await (const piece of checkpoint.float32Pieces(name)) {
    const problem = notFinite(checkpoint, name, piece);
    if (problem) throw new UserError(`${checkpoint.dir}: ${notFiniteText([problem])}`);
  }
}

/**
 * A tensor as stored, in its file or read into memory. UserError if it is stored in a type other than
 * `dtype`.
 */
export async function constantOf(checkpoint: Checkpoint, name: string, dtype: DType, inFiles: boolean): Promise<Constant> {
  const { shape, dtype: storedAs } = checkpoint.info(name);
  if (storedAs !== STORED[dtype])
    throw new UserError(`${checkpoint.dir}: ${checkpoint.storedName(name)} is stored as ${storedAs}, not as ${STORED[dtype]}`);
  const place = checkpoint.place(name);
  if (inFiles && place.offset % elementBytes[dtype] === 0) return { dtype, dims: shape, ...place };
  return { dtype, dims: shape, data: viewAs(dtype, await checkpoint.bytes(name)) };
}

function viewAs(dtype: DType, { buffer, byteOffset, byteLength }: Uint8Array): TypedData {
  if (dtype === 'float32') return new Float32Array(buffer, byteOffset, byteLength / 4);
  if (dtype === 'float16' || dtype === 'bfloat16') return new Uint16Array(buffer, byteOffset, byteLength / 2);
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The float32 values of a constant, copied unless they were float32 in memory already. */
export async function float32Of(constant: Constant): Promise<Value> {
  const { dtype, dims } = constant;
  if ('data' in constant) return { dtype: 'float32', dims, data: widen(dtype, constant.data) };
  const data = new Float32Array(sizeOf(dims));
  let filled = 0;
  for await (const piece of filePieces(constant.path, constant.offset, data.length * elementBytes[dtype], constant.stamp)) {
    const values = widen(dtype, viewAs(dtype, piece));
    data.set(values, filled);
    filled += values.length;
  }
  return { dtype: 'float32', dims, data };
}

function widen(dtype: DType, data: TypedData): Float32Array {
  if (dtype === 'float16') return float16ToFloat32(data as Uint16Array);
  if (dtype === 'bfloat16') return bfloat16ToFloat32(data as Uint16Array);
  return data as Float32Array;
}

/**
 * A constant as a tensor to be written, in the type that it has. Throws an Error for a type that is not
 * stored.
 */
export function constantSource(constant: Constant): TensorSource {
  const { dtype, dims } = constant;
  const stored = STORED[dtype];
  if (!stored) throw new Error(`weights of ${dtype} are not stored`);
  if ('path' in constant) {
    const { path, offset, stamp } = constant;
    return { dtype: stored, shape: [...dims], data: () => filePieces(path, offset, sizeOf(dims) * elementBytes[dtype], stamp) };
  }
  const { buffer, byteOffset, byteLength } = constant.data;
  return { dtype: stored, shape: [...dims], data: new Uint8Array(buffer, byteOffset, byteLength) };
}
