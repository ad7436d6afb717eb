import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { PixelImage } from './pixels.ts';
import { type ResizeFilter, resizeImage } from './resize.ts';

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

  it('gives a copy when there is nothing to do', () => {
    const image: PixelImage = { width: 1, height: 1, channels: 3, data: new Uint8Array([1, 2, 3]) };
    const result = resizeImage(image, 1, 1);
    expect(result).toEqual(image);
    expect(result.data).not.toBe(image.data);
  });
});
