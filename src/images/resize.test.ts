import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PixelImage } from './pixels.ts';
import { type Canvas, type Rectangle, type ResizeFilter, resizeImage } from './resize.ts';

interface StoredImage extends Omit<PixelImage, 'data'> {
  data: string;
}

const stored = ({ data, ...rest }: StoredImage): PixelImage => ({ ...rest, data: new Uint8Array(Buffer.from(data, 'base64')) });

const goldens = readFileSync(new URL('goldens/pillow.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as { source: StoredImage; filter: ResizeFilter; result: StoredImage });

describe('resizeImage', () => {
  it.each(goldens)(
    'gives Pillow bytes: $source.width x $source.height x $source.channels to $result.width x $result.height, $filter',
    (golden) => {
      const { width, height } = golden.result;
      expect(resizeImage(stored(golden.source), width, height, golden.filter)).toEqual(stored(golden.result));
    },
  );

  it('keeps a plain color plain', () => {
    const side = fc.integer({ min: 1, max: 40 });
    const color = fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255));
    fc.assert(
      fc.property(
        side,
        side,
        side,
        side,
        color,
        fc.constantFrom('bilinear' as const, 'bicubic' as const),
        (w, h, width, height, rgb, filter) => {
          const data = Uint8Array.from({ length: w * h * 3 }, (_, i) => rgb[i % 3]);
          const result = resizeImage({ width: w, height: h, channels: 3, data }, width, height, filter);
          expect(result.data).toEqual(Uint8Array.from({ length: width * height * 3 }, (_, i) => rgb[i % 3]));
        },
      ),
      { numRuns: 50 },
    );
  });

  it('gives the same bytes for a part, and for a picture on a canvas, as if all of it were made', () => {
    const whole = ({ width, height }: PixelImage): Rectangle => ({ left: 0, top: 0, width, height });
    /** Copies `from` of `source` to (left, top) of `target`. */
    const copy = (source: PixelImage, from: Rectangle, target: PixelImage, left: number, top: number) => {
      for (let y = 0; y < from.height; y++)
        for (let x = 0; x < from.width * 3; x++)
          target.data[((top + y) * target.width + left) * 3 + x] = source.data[((from.top + y) * source.width + from.left) * 3 + x];
      return target;
    };
    const blank = (width: number, height: number, color: readonly number[]): PixelImage => {
      return { width, height, channels: 3, data: Uint8Array.from({ length: width * height * 3 }, (_, i) => color[i % 3]) };
    };
    const side = (max: number) => fc.integer({ min: 1, max });
    const cases = fc.record({
      image: fc.tuple(side(30), side(30)),
      seed: fc.nat(),
      target: fc.tuple(side(60), side(60)),
      around: fc.option(fc.tuple(fc.nat(40), fc.nat(40), fc.nat(40), fc.nat(40), fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255)))),
      part: fc.tuple(fc.double({ min: 0, max: 0.99, noNaN: true }), fc.double({ min: 0, max: 0.99, noNaN: true })),
      filter: fc.constantFrom<ResizeFilter>('nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'),
    });
    fc.assert(
      fc.property(cases, ({ image: [w, h], seed, target: [width, height], around, part, filter }) => {
        const image = blank(w, h, []);
        for (let i = 0; i < image.data.length; i++) image.data[i] = ((i + seed) * 2654435761) >>> 13;
        const [l, r, t, b, color] = around ?? [0, 0, 0, 0, [0, 0, 0]];
        const canvas: Canvas | undefined = around ? { width: w + l + r, height: h + t + b, left: l, top: t, color } : undefined;
        const padded = copy(image, whole(image), blank(w + l + r, h + t + b, color), l, t);
        const [left, top] = [Math.floor(part[0] * width), Math.floor(part[1] * height)];
        const window = { left, top, width: Math.ceil((width - left) / 2), height: Math.ceil((height - top) / 3) };
        const expected = copy(resizeImage(padded, width, height, filter), window, blank(window.width, window.height, [0]), 0, 0);
        expect(resizeImage(image, width, height, filter, { canvas, window })).toEqual(expected);
      }),
      { numRuns: 300 },
    );
  });

  it('gives a copy when there is nothing to do', () => {
    const image: PixelImage = { width: 1, height: 1, channels: 3, data: new Uint8Array([1, 2, 3]) };
    const result = resizeImage(image, 1, 1);
    expect(result).toEqual(image);
    expect(result.data).not.toBe(image.data);
  });
});
