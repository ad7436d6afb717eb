// The weights of a model that is only run, as constants of a program: as stored, in float32, or packed to a
// few bits; in memory if they are small and in files if they are large. A large float32 file is used in
// place; whatever must be converted goes through a scratch file, a few million values at a time, so that no
// second copy of the model is ever in memory.

import type { Checkpoint } from '../checkpoint/checkpoint.ts';
import { type Constant, float32, type StoredValue } from '../engine/engine.ts';
import type { BlockFormat } from '../floats.ts';
import { type Parameter, packedName, type StorageOf, scaleName } from '../nn/parameters.ts';
import { type PackedRows, plannedFormat, type Quantization, quantizeRows } from '../weights/quantize.ts';
import { elementCount } from '../weights/safetensors.ts';
import { ALIGNMENT, createScratch, MEMORY_LIMIT, type Scratch } from './scratch.ts';
import { constantOf, storedFormat } from './stored.ts';
import { checkShape, type NotFinite, notFinite, notFiniteText } from './values.ts';

export interface RunWeights {
  /** By the name of the input; a packed parameter has two (nn/parameters.ts). */
  values: Map<string, Constant>;
  /** Removes the scratch file. Call it once every program that uses the values is compiled. */
  release(): Promise<void>;
}

export interface RunWeightsOptions {
  /** Packs matrices that are not packed yet. */
  quantize?: Quantization;
  /** If the weights as they are run have more bytes than this, they stay in files. Default: MEMORY_LIMIT. */
  memoryLimit?: number;
}

interface Planned extends Pick<Parameter, 'name' | 'dims'> {
  /** Its format if it is already packed in the checkpoint. */
  stored?: BlockFormat;
  /** Its format if it is to be packed now. */
  quantized?: BlockFormat;
}

function packedBytes(count: number, { bits, blockSize }: BlockFormat): number {
  return (count * bits) / 8 + (4 * count) / blockSize;
}

function runBytes({ dims, stored, quantized }: Planned): number {
  const format = stored ?? quantized;
  return format ? packedBytes(elementCount(dims), format) : 4 * elementCount(dims);
}

/** How `readRunWeights` will return parameters: packed, or in float32. */
export function runStorageOf(checkpoint: Checkpoint, quantize?: Quantization): StorageOf {
  return (name, dims) => storedFormat(checkpoint, name, dims) ?? (quantize && plannedFormat(name, dims, quantize)) ?? 'float32';
}

/**
 * The weights of `parameters` from a checkpoint, optional ones if it has them. UserError, naming folder and
 * tensor, for a missing tensor or another shape, and if the disk has no room for the scratch file. NaN and
 * infinity cause a warning on stderr.
 */
export async function readRunWeights(
  checkpoint: Checkpoint,
  parameters: readonly Parameter[],
  { quantize, memoryLimit = MEMORY_LIMIT }: RunWeightsOptions = {},
): Promise<RunWeights> {
  const plan = parameters.flatMap(({ name, dims, optional }): Planned[] => {
    const stored = storedFormat(checkpoint, name, dims);
    if (stored) return [{ name, dims, stored }];
    if (optional && !checkpoint.has(name)) return [];
    checkShape(checkpoint, name, dims);
    return [{ name, dims, quantized: quantize && plannedFormat(name, dims, quantize) }];
  });
  if (plan.some(({ name }) => name === checkpoint.head?.embedding)) await checkpoint.checkHead();

  const inFiles = plan.reduce((sum, planned) => sum + runBytes(planned), 0) > memoryLimit;
  /** Whether a parameter is used in place, from its file. */
  const isInPlace = ({ name, stored, quantized }: Planned) =>
    inFiles && !quantized && (stored !== undefined || (checkpoint.info(name).dtype === 'F32' && checkpoint.place(name).offset % 4 === 0));
  const scratchBytes = plan
    .filter((planned) => inFiles && !isInPlace(planned))
    .reduce((sum, planned) => sum + runBytes(planned) + 3 * ALIGNMENT, 0);
  const scratch = scratchBytes > 0 ? await createScratch(scratchBytes) : undefined;
  const values = new Map<string, Constant>();
  const damaged: NotFinite[] = [];
  try {
    for (const planned of plan) {
      const { name, dims, stored, quantized } = planned;
      let problem: NotFinite | undefined;
      const checked = async function* () {
        for await (const piece of checkpoint.float32Pieces(name)) {
          problem ??= notFinite(checkpoint, name, piece);
          yield piece;
        }
      };
      if (stored) {
        for (const [part, dtype] of [
          [packedName(name), 'uint8'],
          [scaleName(name), 'float32'],
        ] as const)
          values.set(part, await constantOf(checkpoint, part, dtype, inFiles));
        problem = notFinite(checkpoint, scaleName(name), await checkpoint.float32(scaleName(name)));
      } else if (quantized) {
        const [rows, columns] = dims;
        const packed = await joinPieces(scratch, [rows, (columns * quantized.bits) / 8], 'uint8');
        const scale = await joinPieces(undefined, [rows, columns / quantized.blockSize], 'float32');
        let buffers: PackedRows | undefined;
        for await (const piece of checked()) {
          const pieces: PackedRows = quantizeRows(piece, quantized, buffers);
          // the first piece is the longest
          buffers ??= pieces;
          await packed.add(pieces.packed);
          await scale.add(pieces.scale);
        }
        values.set(packedName(name), packed.value);
        values.set(scaleName(name), await moveTo(scratch, scale.value));
      } else if (isInPlace(planned)) {
        for await (const _ of checked());
        values.set(name, { dtype: 'float32', dims, ...checkpoint.place(name) });
      } else {
        const joined = await joinPieces(scratch, dims, 'float32');
        for await (const piece of checked()) await joined.add(piece);
        values.set(name, joined.value);
      }
      if (problem) damaged.push(problem);
    }
    await scratch?.close();
  } catch (error) {
    await scratch?.remove();
    throw error;
  }
  if (damaged.length > 0) console.error(`warning: ${checkpoint.dir}: ${notFiniteText(damaged)}`);
  return { values, release: async () => scratch?.remove() };
}

type Numbers = Uint8Array | Float32Array;

/** Pieces of one tensor, joined in memory or in the scratch file. */
async function joinPieces(scratch: Scratch | undefined, dims: readonly number[], dtype: 'uint8' | 'float32') {
  if (scratch) {
    const offset = await scratch.align();
    return { value: { dtype, dims, path: scratch.path, offset } satisfies StoredValue, add: (piece: Numbers) => scratch.append(piece) };
  }
  const data = dtype === 'uint8' ? new Uint8Array(elementCount(dims)) : new Float32Array(elementCount(dims));
  let filled = 0;
  return {
    value: dtype === 'uint8' ? ({ dtype, dims, data } as const) : float32(data as Float32Array, dims),
    add: async (piece: Numbers) => {
      data.set(piece, filled);
      filled += piece.length;
    },
  };
}

async function moveTo(scratch: Scratch | undefined, value: Constant): Promise<Constant> {
  if (!scratch || !('data' in value)) return value;
  const offset = await scratch.align();
  await scratch.append(value.data as Numbers);
  return { dtype: value.dtype, dims: value.dims, path: scratch.path, offset };
}
