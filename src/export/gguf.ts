// Writes GGUF files, version 3, which llama.cpp loads. Follows ggml/docs/gguf.md; blocks of quantized weights
// are those of ggml/src/ggml-quants.c (quantize_row_q4_0_ref, quantize_row_q8_0_ref). Tensors are written
// piece by piece, so that memory does not grow with the model.

import { UserError } from '../errors.ts';
import { float32ToBfloat16, float32ToFloat16 } from '../floats.ts';
import { elementCount, writeFileAtomically } from '../weights/safetensors.ts';

/** Types of metadata values, by their number in the file. */
const VALUE_TYPE = {
  uint8: 0,
  int8: 1,
  uint16: 2,
  int16: 3,
  uint32: 4,
  int32: 5,
  float32: 6,
  bool: 7,
  string: 8,
  uint64: 10,
  int64: 11,
  float64: 12,
} as const;
const ARRAY = 9;

export type GgufScalar = number | boolean | string;
export type GgufValueType = keyof typeof VALUE_TYPE;

/**
 * A metadata value; its type is stated, because a reader that asks for uint32 refuses int32. Numbers beyond
 * 2^53 are not supported.
 */
export interface GgufValue {
  type: GgufValueType;
  value: GgufScalar | readonly GgufScalar[];
}

/**
 * Tensor types: number in the file, elements per block, bytes per block. A row is a whole number of blocks.
 */
const TENSOR_TYPE = {
  F32: { id: 0, elements: 1, bytes: 4 },
  F16: { id: 1, elements: 1, bytes: 2 },
  Q4_0: { id: 2, elements: 32, bytes: 18 },
  Q8_0: { id: 8, elements: 32, bytes: 34 },
  BF16: { id: 30, elements: 1, bytes: 2 },
} as const;

export type GgufTensorType = keyof typeof TENSOR_TYPE;

export interface GgufTensor {
  /** PyTorch's order, [out, in] for a linear layer; the file has the reverse. */
  shape: readonly number[];
  type: GgufTensorType;
  /** The encoded bytes (`encodeGguf`) in pieces of any size; requested once, when the tensor is written. */
  data: () => Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
}

/** Tensors begin at multiples of this many bytes, the format's default. */
const ALIGNMENT = 32;

const aligned = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/**
 * Bytes that a tensor takes in the file, without padding. UserError if a row is not a whole number of blocks.
 */
export function ggufBytes(type: GgufTensorType, shape: readonly number[]): number {
  const { elements, bytes } = TENSOR_TYPE[type];
  const row = shape.at(-1) ?? 1;
  if (row % elements !== 0)
    throw new UserError(`${type} packs ${elements} weights in a block, and a row of ${row} does not divide by that`);
  return (elementCount(shape) / elements) * bytes;
}

/**
 * Writes a GGUF file, atomically. `general.architecture` must be among the metadata; everything else depends
 * on the architecture. Throws UserError if a tensor's pieces do not add up to the bytes of its shape.
 */
export async function writeGguf(
  path: string,
  metadata: Readonly<Record<string, GgufValue>>,
  tensors: ReadonlyMap<string, GgufTensor>,
): Promise<void> {
  const sizes = new Map([...tensors].map(([name, { type, shape }]) => [name, ggufBytes(type, shape)]));
  async function* chunks() {
    yield header(metadata, tensors, sizes);
    for (const [name, { data, type, shape }] of tensors) {
      const bytes = sizes.get(name)!;
      let given = 0;
      for await (const piece of data()) {
        given += piece.byteLength;
        if (given > bytes) break;
        yield piece;
      }
      if (given !== bytes)
        throw new UserError(`${path}: tensor ${JSON.stringify(name)}: ${type} of shape [${shape}] needs ${bytes} bytes, given ${given}`);
      yield new Uint8Array(aligned(bytes) - bytes);
    }
  }
  await writeFileAtomically(path, chunks());
}

/** Everything before the first tensor, padded. */
function header(
  metadata: Readonly<Record<string, GgufValue>>,
  tensors: ReadonlyMap<string, GgufTensor>,
  sizes: ReadonlyMap<string, number>,
): Uint8Array {
  const out = new ByteWriter();
  out.raw(Buffer.from('GGUF'));
  out.scalar('uint32', 3);
  out.scalar('uint64', tensors.size);
  const entries = Object.entries(metadata);
  out.scalar('uint64', entries.length);
  for (const [key, { type, value }] of entries) {
    out.scalar('string', key);
    if (Array.isArray(value)) {
      out.scalar('uint32', ARRAY);
      out.scalar('uint32', VALUE_TYPE[type]);
      out.scalar('uint64', value.length);
      for (const element of value) out.scalar(type, element);
    } else {
      out.scalar('uint32', VALUE_TYPE[type]);
      out.scalar(type, value as GgufScalar);
    }
  }
  let offset = 0;
  for (const [name, { shape, type }] of tensors) {
    out.scalar('string', name);
    out.scalar('uint32', shape.length);
    for (const dim of [...shape].reverse()) out.scalar('uint64', dim);
    out.scalar('uint32', TENSOR_TYPE[type].id);
    out.scalar('uint64', offset);
    offset += aligned(sizes.get(name)!);
  }
  out.raw(Buffer.alloc(aligned(out.length) - out.length));
  return out.bytes();
}

/** Little-endian bytes in a growing buffer: a vocabulary is a quarter of a million strings. */
class ByteWriter {
  private buffer = Buffer.alloc(2 ** 16);
  length = 0;

  bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length);
  }

  raw(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.length);
    this.length += bytes.length;
  }

  scalar(type: GgufValueType, value: GgufScalar): void {
    if (type === 'string') {
      const text = Buffer.from(value as string, 'utf8');
      this.scalar('uint64', text.length);
      this.raw(text);
      return;
    }
    this.reserve(8);
    const number = Number(value);
    const at = this.length;
    if (type === 'uint8' || type === 'bool') this.length = this.buffer.writeUInt8(number, at);
    else if (type === 'int8') this.length = this.buffer.writeInt8(number, at);
    else if (type === 'uint16') this.length = this.buffer.writeUInt16LE(number, at);
    else if (type === 'int16') this.length = this.buffer.writeInt16LE(number, at);
    else if (type === 'uint32') this.length = this.buffer.writeUInt32LE(number, at);
    else if (type === 'int32') this.length = this.buffer.writeInt32LE(number, at);
    else if (type === 'float32') this.length = this.buffer.writeFloatLE(number, at);
    else if (type === 'float64') this.length = this.buffer.writeDoubleLE(number, at);
    else if (type === 'uint64') this.length = this.buffer.writeBigUInt64LE(BigInt(number), at);
    else this.length = this.buffer.writeBigInt64LE(BigInt(number), at);
  }

  private reserve(bytes: number): void {
    if (this.length + bytes <= this.buffer.length) return;
    const larger = Buffer.alloc(Math.max(2 * this.buffer.length, this.length + bytes));
    larger.set(this.buffer.subarray(0, this.length));
    this.buffer = larger;
  }
}

/**
 * Encodes `values` as a tensor of `type`. Rounds as llama.cpp does, so that the bytes are the same as its
 * own. Throws an Error unless `values` are a whole number of blocks.
 */
export function encodeGguf(type: GgufTensorType, values: Float32Array): Uint8Array {
  if (type === 'F32') return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  if (type === 'F16') return new Uint8Array(float32ToFloat16(values).buffer);
  if (type === 'BF16') return new Uint8Array(float32ToBfloat16(values).buffer);
  return type === 'Q4_0' ? encodeQ4(values) : encodeQ8(values);
}

/**
 * Blocks of 32 weights: a float16 step, then 4 bits per weight, weight j paired with weight j + 16. The step
 * is the weight farthest from 0 divided by -8, so that this weight comes out exact.
 */
function encodeQ4(values: Float32Array): Uint8Array {
  const blocks = blockCount(values);
  const steps = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    let farthest = 0;
    for (let i = block * 32; i < block * 32 + 32; i++) if (Math.abs(values[i]) > Math.abs(farthest)) farthest = values[i];
    steps[block] = farthest / -8;
  }
  const halves = float32ToFloat16(steps);
  const out = new Uint8Array(blocks * 18);
  for (let block = 0; block < blocks; block++) {
    // the inverse of the step before that is rounded to float16, in float32, as in ggml
    const inverse = steps[block] === 0 ? 0 : Math.fround(1 / steps[block]);
    const nibble = (i: number) => Math.min(15, Math.trunc(Math.fround(Math.fround(values[i] * inverse) + 8.5)));
    let at = block * 18;
    out[at++] = halves[block] & 0xff;
    out[at++] = halves[block] >>> 8;
    for (let i = block * 32; i < block * 32 + 16; i++) out[at++] = nibble(i) | (nibble(i + 16) << 4);
  }
  return out;
}

/** Blocks of 32 weights: a float16 step, then a signed byte per weight. */
function encodeQ8(values: Float32Array): Uint8Array {
  const blocks = blockCount(values);
  const steps = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    let largest = 0;
    for (let i = block * 32; i < block * 32 + 32; i++) largest = Math.max(largest, Math.abs(values[i]));
    steps[block] = largest / 127;
  }
  const halves = float32ToFloat16(steps);
  const out = new Uint8Array(blocks * 34);
  for (let block = 0; block < blocks; block++) {
    const inverse = steps[block] === 0 ? 0 : Math.fround(1 / steps[block]);
    let at = block * 34;
    out[at++] = halves[block] & 0xff;
    out[at++] = halves[block] >>> 8;
    for (let i = block * 32; i < block * 32 + 32; i++) {
      const scaled = Math.fround(values[i] * inverse);
      // C's roundf: halves away from zero
      out[at++] = Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5);
    }
  }
  return out;
}

function blockCount(values: Float32Array): number {
  if (values.length % 32 !== 0) throw new Error(`${values.length} weights are no whole number of blocks of 32`);
  return values.length / 32;
}
