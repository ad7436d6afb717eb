import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { PixelImage } from './pixels.ts';
import { imageProcessorConfig, processImage } from './processor.ts';

const goldens = readFileSync(new URL('goldens/processor.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));

const plain = (width: number, height: number, value: number): PixelImage => ({
  width,
  height,
  channels: 3,
  data: new Uint8Array(width * height * 3).fill(value),
});

describe('processImage', () => {
  it.each(goldens)('gives the pixel values of transformers: $config.image_processor_type $shape', ({ source, config, shape, values }) => {
    const image = { ...source, data: new Uint8Array(Buffer.from(source.data, 'base64')) };
    const expected = new Float32Array(new Uint8Array(Buffer.from(values, 'base64')).buffer);
    const actual = processImage(image, imageProcessorConfig.parse(config));
    expect(actual.length).toBe(shape[0] * shape[1] * shape[2]);
    // One level of 255 would be 0.014 after normalisation.
    for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 5);
  });

  it('reads numbers for sizes, as older files have them', () => {
    const config = imageProcessorConfig.parse({ size: 6, crop_size: 4, feature_extractor_type: 'CLIPFeatureExtractor' });
    expect(config.size).toEqual({ shortest_edge: 6 });
    expect(processImage(plain(30, 20, 9), config).length).toBe(3 * 4 * 4);
  });

  it('does nothing but change the layout when nothing is asked for', () => {
    const off = { do_resize: false, do_center_crop: false, do_rescale: false, do_normalize: false };
    const image: PixelImage = { width: 2, height: 1, channels: 3, data: new Uint8Array([1, 2, 3, 4, 5, 6]) };
    expect([...processImage(image, imageProcessorConfig.parse(off))]).toEqual([1, 4, 2, 5, 3, 6]);
  });

  it('refuses a filter that it does not have', () => {
    expect(imageProcessorConfig.safeParse({ resample: 1 }).success).toBe(false);
  });
});
