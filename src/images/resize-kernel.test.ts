import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createRandom } from '../random.ts';
import { filterBothWays, type Kernel, PRECISION_BITS } from './resize-kernel.ts';

/** One pass in a plain loop. Lines and pixels of `source` lie as `places` says, also in the result. */
function convolve(source: Uint8Array, channels: number, kernel: Kernel, size: { lines: number; length: number }, color: Uint8Array[]) {
  const { starts, lengths, weights, stride, outside } = kernel;
  const result = new Uint8Array(size.lines * starts.length * channels);
  for (let line = 0; line < size.lines; line++)
    for (let out = 0; out < starts.length; out++)
      for (let channel = 0; channel < channels; channel++) {
        let sum = 2 ** (PRECISION_BITS - 1) + outside[out] * color[line % color.length][channel];
        for (let i = 0; i < lengths[out]; i++)
          sum += source[(line * size.length + starts[out] + i) * channels + channel] * weights[out * stride + i];
        result[(line * starts.length + out) * channels + channel] = Math.max(0, Math.min(255, sum >> PRECISION_BITS));
      }
  return result;
}

function transposed(source: Uint8Array, width: number, height: number, channels: number): Uint8Array {
  const result = new Uint8Array(source.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < channels; c++) result[(x * height + y) * channels + c] = source[(y * width + x) * channels + c];
  return result;
}

/** Weights of both signs whose sum is about 1, under windows of up to `most` pixels that move along. */
function kernelOver(size: number, outputs: number, most: number, seed: number): Kernel {
  const random = createRandom(seed);
  const stride = most + 1;
  const kernel: Kernel = {
    starts: new Int32Array(outputs),
    lengths: new Int32Array(outputs),
    weights: new Int32Array(outputs * stride),
    stride,
    outside: new Int32Array(outputs),
  };
  for (let out = 0; out < outputs; out++) {
    const start = Math.floor((out * size) / outputs);
    const length = random.uniform() < 0.1 ? 0 : 1 + random.integer(Math.min(most, size - start));
    kernel.starts[out] = start;
    kernel.lengths[out] = length;
    kernel.outside[out] = random.uniform() < 0.5 ? 0 : random.integer(2 ** 22) - 2 ** 21;
    const one = 2 ** PRECISION_BITS;
    let left = one;
    for (let i = 0; i + 1 < length; i++) {
      const weight = Math.round(((random.uniform() * 3 - 1) / length) * one);
      kernel.weights[out * stride + i] = weight;
      left -= weight;
    }
    if (length > 0) kernel.weights[out * stride + length - 1] = Math.max(-one, Math.min(one, left));
  }
  return kernel;
}

describe('filtering both ways', () => {
  test('gives the bytes of plain loops, whatever the kernels, the border and the sizes', () => {
    const size = fc.integer({ min: 1, max: 90 });
    const cases = fc.record({ width: size, height: size, columns: size, rows: size, most: fc.tuple(size, size), seed: fc.nat() });
    fc.assert(
      fc.property(
        cases,
        fc.constantFrom(3 as const, 4 as const),
        ({ width, height, columns: across, rows: down, most, seed }, channels) => {
          const random = createRandom(seed, 'pixels');
          const source = Uint8Array.from({ length: width * height * channels }, () => random.integer(256));
          const color = Uint8Array.from({ length: channels }, () => random.integer(256));
          const [columns, rows] = [kernelOver(width, across, most[0], seed), kernelOver(height, down, most[1], seed + 1)];
          const between = convolve(source, channels, columns, { lines: height, length: width }, [color]);
          const all = { ...columns, lengths: columns.lengths.map(() => 0), outside: columns.outside.slice() };
          for (let out = 0; out < across; out++)
            for (let i = 0; i < columns.lengths[out]; i++) all.outside[out] += columns.weights[out * columns.stride + i];
          const border = convolve(source, channels, all, { lines: 1, length: width }, [color]);
          const borders = Array.from({ length: across }, (_, out) => border.subarray(out * channels, (out + 1) * channels));
          const turned = convolve(
            transposed(between, across, height, channels),
            channels,
            rows,
            { lines: across, length: height },
            borders,
          );
          const expected = transposed(turned, down, across, channels);
          expect(filterBothWays(source, width * channels, channels, rows, columns, color)).toEqual(expected);
        },
      ),
      { numRuns: 150 },
    );
  });

  test('gives the same bytes after a picture for which its memory had to grow', () => {
    const pixels = (count: number) => Uint8Array.from({ length: count }, (_, i) => (i * 2654435761) >>> 13);
    const small = () => {
      const kernel = kernelOver(20, 9, 5, 3);
      return filterBothWays(pixels(20 * 20 * 3), 60, 3, kernel, kernel, [1, 2, 3]);
    };
    const before = small();
    filterBothWays(pixels(30_000 * 40 * 3), 90_000, 3, kernelOver(40, 30, 30, 1), kernelOver(30_000, 3_000, 20, 2), [0, 0, 0]);
    expect(small()).toEqual(before);
  });
});
