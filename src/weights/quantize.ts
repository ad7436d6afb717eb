// Weight-only quantization to integers of 4 or 8 bits with one scale per block, symmetric about zero. At 4
// bits it is llama.cpp's Q4_0 (ggml-quants.c, quantize_row_q4_0_ref) except for the order of the halves and
// the scale, which stays float32; at 8 bits, the same rule.

import type { BlockFormat } from '../floats.ts';

/** The packed numbers of whole rows, and a scale for each block. */
export interface PackedRows {
  /** [values * bits / 8]; the first of two 4-bit numbers in the low half of its byte. */
  packed: Uint8Array;
  /** [values / blockSize]. */
  scale: Float32Array;
}

/**
 * Quantizes rows whose length is a multiple of `blockSize`. In each block, the value of largest magnitude
 * becomes -2^(bits - 1), so that the whole range is used; the others are rounded to nearest. A block with NaN
 * or infinity becomes NaN, because its scale does. The result is written to the beginning of `into` if given.
 * Throws an Error for a length that is not whole blocks.
 */
export function quantizeRows(values: Float32Array, { bits, blockSize }: BlockFormat, into?: PackedRows): PackedRows {
  if (values.length % blockSize !== 0) throw new Error(`${values.length} values are no whole blocks of ${blockSize}`);
  const blocks = values.length / blockSize;
  const bytes = (values.length * bits) / 8;
  const packed = into ? into.packed.subarray(0, bytes) : new Uint8Array(bytes);
  const scale = into ? into.scale.subarray(0, blocks) : new Float32Array(blocks);
  const zero = 2 ** (bits - 1);
  const top = 2 * zero - 1;
  const half = zero + 0.5;
  // without the sign bit, floats are ordered as their bits are, and NaN comes out largest
  const sizes = new Int32Array(values.buffer, values.byteOffset, values.length);
  for (let block = 0; block < blocks; block++) {
    const start = block * blockSize;
    const end = start + blockSize;
    let largest = 0;
    for (let i = start; i < end; i++) {
      largest = Math.max(largest, sizes[i] & 0x7fffffff);
    }
    let at = start;
    while ((sizes[at] & 0x7fffffff) !== largest) at++;
    const step = Math.fround(values[at] / -zero);
    scale[block] = largest < 0x7f800000 ? step : Number.NaN;
    const inverse = step === 0 ? 0 : 1 / step;
    // no number is below 0: the extreme value becomes 0, and the others are at most as far from zero on the
    // other side
    if (bits === 8) {
      for (let i = start; i < end; i++) {
        packed[i] = Math.min(top, (values[i] * inverse + half) | 0);
      }
    } else {
      for (let i = start; i < end; i += 2) {
        const low = Math.min(top, (values[i] * inverse + half) | 0);
        const high = Math.min(top, (values[i + 1] * inverse + half) | 0);
        packed[i >> 1] = low | (high << 4);
      }
    }
  }
  return { packed, scale };
}

/** The values that packed rows represent, [values]. */
export function dequantizeRows({ packed, scale }: PackedRows, { bits, blockSize }: BlockFormat): Float32Array {
  const values = new Float32Array((packed.length * 8) / bits);
  const zero = 2 ** (bits - 1);
  for (let i = 0; i < values.length; i++) {
    const whole = bits === 8 ? packed[i] : (packed[i >> 1] >> (4 * (i & 1))) & 15;
    values[i] = (whole - zero) * scale[(i / blockSize) | 0];
  }
  return values;
}

/** Choices of `--quantize`: bits of the language model's weights. */
export const quantizations = ['int4', 'int8'] as const;
export type Quantization = (typeof quantizations)[number];

/**
 * Position tables are added to whole rows, not multiplied: they are small, and stay as they are. So does the
 * connector, which is small too and is trained beside the adapters of a packed language model (LLaVA's
 * `llm_int8_skip_modules=["mm_projector"]`).
 */
const kept = /position_embedding|^multi_modal_projector\./;

/**
 * How `quantization` stores a parameter, or undefined if it leaves it alone. Matrices are packed, including
 * the embedding, once for both of its uses; norms, biases, positions, convolutions and the connector are not.
 * With `int4`, the vision tower gets 8 bits: it is a tenth of the weights, and what it loses hurts every
 * answer.
 */
export function plannedFormat(name: string, dims: readonly number[], quantization: Quantization): BlockFormat | undefined {
  if (dims.length !== 2 || !name.endsWith('.weight') || kept.test(name)) return undefined;
  const blockSize = [64, 32, 16].find((size) => dims[1] % size === 0);
  if (blockSize === undefined) return undefined;
  const sees = /^(vision_tower|vision_model)\./.test(name);
  return { bits: quantization === 'int8' || sees ? 8 : 4, blockSize };
}
