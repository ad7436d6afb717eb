// Converts float16 (IEEE 754 binary16) and bfloat16 bit patterns to and from float32, whole arrays at a time.
// Rounds to nearest, ties to even, like PyTorch's `.to(dtype)`; overflow becomes infinity, NaN stays NaN.

/** The float16 bit patterns of `values`. */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  const scratch = new Float32Array(1);
  const scratchBits = new Uint32Array(scratch.buffer);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i] >>> 16) & 0x8000;
    const magnitude = bits[i] & 0x7fffffff;
    if (magnitude >= 0x47800000) {
      // 65536 and above, infinity, NaN
      halves[i] = sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
    } else if (magnitude < 0x38800000) {
      // Below 2^-14 a half is a multiple of 2^-24, which is the spacing of float32 just above 0.5: adding 0.5
      // does the rounding.
      scratch[0] = Math.abs(values[i]) + 0.5;
      halves[i] = sign | (scratchBits[0] - 0x3f000000);
    } else {
      halves[i] = sign | ((magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13);
    }
  }
  return halves;
}

let halfTable: Float32Array | undefined;

/** All 65,536 float16 values, made on first use: one lookup per element is the fastest conversion. */
function float16Table(): Float32Array {
  if (halfTable) return halfTable;
  const table = new Float32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >>> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0x1f) table[half] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else if (exponent === 0) table[half] = sign * fraction * 2 ** -24;
    else table[half] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  halfTable = table;
  return table;
}

/** The values of float16 bit patterns; exact. They are written into `values` if it is given. */
export function float16ToFloat32(halves: Uint16Array, values: Float32Array = new Float32Array(halves.length)): Float32Array {
  const table = float16Table();
  for (let i = 0; i < halves.length; i++) values[i] = table[halves[i]];
  return values;
}

/** The bfloat16 bit patterns of `values`. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i];
    const notANumber = (word & 0x7fffffff) > 0x7f800000;
    halves[i] = notANumber ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return halves;
}

/** The values of bfloat16 bit patterns; exact. They are written into `values` if it is given. */
export function bfloat16ToFloat32(halves: Uint16Array, values: Float32Array = new Float32Array(halves.length)): Float32Array {
  const bits = new Int32Array(values.buffer, values.byteOffset, halves.length);
  for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
  return values;
}

/** How a matrix is stored in whole numbers of few bits: blocks along a row, each with one scale. */
export interface BlockFormat {
  bits: 4 | 8;
  blockSize: number;
}
