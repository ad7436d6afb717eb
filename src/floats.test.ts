import fc from 'fast-check';
import { expect, test } from 'vitest';
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from './floats.ts';

/**
 * Nearest representable value with `mantissaBits` and smallest normal exponent `minExponent`, ties to even,
 * in float64 arithmetic.
 */
function nearest(value: number, mantissaBits: number, minExponent: number, maxFinite: number): number {
  if (value === 0 || !Number.isFinite(value)) return value;
  const size = Math.abs(value);
  const unit = 2 ** (Math.max(Math.floor(Math.log2(size)), minExponent) - mantissaBits);
  const floor = Math.floor(size / unit);
  const rest = size / unit - floor;
  const rounded = (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor) * unit;
  return Math.sign(value) * (rounded > maxFinite ? Number.POSITIVE_INFINITY : rounded);
}

test('every float16 survives the way to float32 and back', () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const back = float32ToFloat16(float16ToFloat32(halves));
  for (let i = 0; i < 65536; i++) {
    const notANumber = (i & 0x7fff) > 0x7c00;
    if (notANumber) expect(back[i] & 0x7fff).toBeGreaterThan(0x7c00);
    else if (back[i] !== i) expect(back[i]).toBe(i);
  }
});

test('every bfloat16 survives the way to float32 and back', () => {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const back = float32ToBfloat16(bfloat16ToFloat32(halves));
  for (let i = 0; i < 65536; i++) {
    const notANumber = (i & 0x7fff) > 0x7f80;
    if (notANumber) expect(back[i] & 0x7fff).toBeGreaterThan(0x7f80);
    else if (back[i] !== i) expect(back[i]).toBe(i);
  }
});

// Values around the places where rounding goes wrong: ties, the subnormal range, the overflow edge.
const delicate = fc.oneof(
  fc.float({ noNaN: true, noDefaultInfinity: true }),
  fc.tuple(fc.integer({ min: -30, max: 17 }), fc.integer({ min: -4096, max: 4096 })).map(([e, m]) => Math.fround((m / 2048) * 2 ** e)),
  fc.constantFrom(65504, 65519.996, 65520, 65536, 2 ** -24, 2 ** -25, Math.fround(2 ** -25 * (1 + 2 ** -23)), 2 ** -14, 6.09e-5),
);

test('float16 rounds to nearest, ties to even', () => {
  fc.assert(
    fc.property(fc.array(delicate, { minLength: 1, maxLength: 40 }), (list) => {
      const values = Float32Array.from(list);
      const expected = Array.from(values, (value) => nearest(value, 10, -14, 65504));
      expect(Array.from(float16ToFloat32(float32ToFloat16(values)))).toEqual(expected);
    }),
    { numRuns: 500 },
  );
});

test('bfloat16 rounds to nearest, ties to even', () => {
  fc.assert(
    fc.property(fc.array(delicate, { minLength: 1, maxLength: 40 }), (list) => {
      const values = Float32Array.from(list);
      const expected = Array.from(values, (value) => nearest(value, 7, -126, (2 - 2 ** -7) * 2 ** 127));
      expect(Array.from(bfloat16ToFloat32(float32ToBfloat16(values)))).toEqual(expected);
    }),
    { numRuns: 500 },
  );
});

test('infinities and NaN keep their nature', () => {
  const values = Float32Array.of(Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN);
  expect(Array.from(float16ToFloat32(float32ToFloat16(values)))).toEqual(Array.from(values));
  expect(Array.from(bfloat16ToFloat32(float32ToBfloat16(values)))).toEqual(Array.from(values));
});

test('a view into a larger buffer converts its own part only', () => {
  const all = Float32Array.of(1, 2, 3, 4);
  expect(Array.from(float16ToFloat32(float32ToFloat16(all.subarray(1, 3))))).toEqual([2, 3]);
  expect(Array.from(bfloat16ToFloat32(float32ToBfloat16(all.subarray(1, 3))))).toEqual([2, 3]);
});
