import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { BlockFormat } from '../floats.ts';
import { dequantizeRows, plannedFormat, quantizeRows } from './quantize.ts';

const formats = fc.record({ bits: fc.constantFrom(4 as const, 8 as const), blockSize: fc.constantFrom(16, 32, 64) });
const values = (length: number) =>
  fc.array(fc.float({ noNaN: true, noDefaultInfinity: true, min: -1e6, max: 1e6 }), { minLength: length, maxLength: length });

describe('quantizeRows', () => {
  test('is off by half a step at most, and by one at the far end of the larger side', () => {
    const cases = formats.chain((format) => fc.tuple(fc.constant(format), values(3 * format.blockSize)));
    fc.assert(
      fc.property(cases, ([format, numbers]) => {
        const rows = Float32Array.from(numbers);
        const packed = quantizeRows(rows, format);
        const back = dequantizeRows(packed, format);
        for (const [i, value] of rows.entries()) {
          const step = Math.abs(packed.scale[Math.floor(i / format.blockSize)]);
          // the numbers go to -2^(bits - 1) on one side, and to one less on the other
          const beyond = Math.abs(value) / step > 2 ** (format.bits - 1) - 1 ? 1 : 0.5;
          expect(Math.abs(back[i] - value)).toBeLessThanOrEqual(beyond * step * (1 + 1e-5) + 1e-30);
        }
      }),
    );
  });

  test('keeps the largest value of a block, whatever its sign', () => {
    for (const extreme of [3, -3]) {
      const rows = new Float32Array(16).fill(0.1);
      rows[5] = extreme;
      const format: BlockFormat = { bits: 4, blockSize: 16 };
      expect(dequantizeRows(quantizeRows(rows, format), format)[5]).toBe(extreme);
    }
  });

  test('puts the first of two numbers into the low half of the byte, as llama.cpp rounds them', () => {
    const rows = new Float32Array(16);
    rows.set([-8, 7, 0, 1.4, 1.6, -0.4]);
    const { packed, scale } = quantizeRows(rows, { bits: 4, blockSize: 16 });
    expect(scale[0]).toBe(1);
    expect([...packed.subarray(0, 3)].flatMap((byte) => [byte & 15, byte >> 4])).toEqual([0, 15, 8, 9, 10, 8]);
  });

  test('a block of zeros is zeros, and one with NaN or infinity is NaN', () => {
    for (const bits of [4, 8] as const) {
      const format = { bits, blockSize: 16 };
      const rows = new Float32Array(48).fill(0);
      rows.fill(0.5, 32);
      rows[20] = Number.NaN;
      rows[40] = Number.NEGATIVE_INFINITY;
      const back = dequantizeRows(quantizeRows(rows, format), format);
      expect(back.subarray(0, 16).every((value) => value === 0)).toBe(true);
      expect(back.subarray(16).every(Number.isNaN)).toBe(true);
    }
  });

  test('gives the same in memory of its own and in that which is given', () => {
    const format: BlockFormat = { bits: 4, blockSize: 32 };
    const rows = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
    const into = { packed: new Uint8Array(100).fill(9), scale: new Float32Array(9) };
    expect(quantizeRows(rows, format, into)).toEqual(quantizeRows(rows, format));
    expect(into.packed[32]).toBe(9);
  });

  test('refuses what is no whole blocks', () => {
    expect(() => quantizeRows(new Float32Array(40), { bits: 8, blockSize: 32 })).toThrow('40 values are no whole blocks of 32');
  });
});

describe('plannedFormat', () => {
  const embedding = 'language_model.model.embed_tokens.weight';

  test('packs matrices, and leaves alone what is none or does not divide', () => {
    expect(plannedFormat(embedding, [256000, 2048], 'int4')).toEqual({ bits: 4, blockSize: 64 });
    expect(plannedFormat(embedding, [100, 96], 'int8')).toEqual({ bits: 8, blockSize: 32 });
    expect(plannedFormat(embedding, [100, 40], 'int4')).toBeUndefined();
    expect(plannedFormat('language_model.model.norm.weight', [64], 'int4')).toBeUndefined();
    expect(plannedFormat('vision_tower.vision_model.embeddings.patch_embedding.weight', [64, 3, 16, 16], 'int4')).toBeUndefined();
    expect(plannedFormat('vision_tower.vision_model.embeddings.position_embedding.weight', [577, 1024], 'int4')).toBeUndefined();
    expect(plannedFormat('multi_modal_projector.linear_1.weight', [2048, 1024], 'int8')).toBeUndefined();
  });

  test('of int4, what sees gets 8 bits', () => {
    expect(plannedFormat('vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight', [4096, 1024], 'int4')?.bits).toBe(8);
    expect(plannedFormat('language_model.model.layers.0.self_attn.q_proj.weight', [2048, 2048], 'int4')?.bits).toBe(4);
  });
});
