import { readFileSync } from 'node:fs';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import type { PixelImage } from './pixels.ts';
import { imageProcessorConfig, pictureOf, processedSize, processImage, readPixelValues, seenPart } from './processor.ts';

const goldens = readFileSync(new URL('goldens/processor.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line));

const defaults = JSON.parse(readFileSync(new URL('../../tests/reference/defaults.json', import.meta.url), 'utf8')) as {
  image_processors: Record<string, { fields: Record<string, unknown>; size_5: object }>;
};

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
    // One level of 255 would be 0.014 after normalization.
    for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 5);
  });

  it('takes very long pictures, whatever padding or resizing would make of them', () => {
    const start = performance.now();
    const memory = process.memoryUsage().arrayBuffers;
    const clip = imageProcessorConfig.parse({});
    const llava = imageProcessorConfig.parse({ do_pad: true });
    const siglip = imageProcessorConfig.parse({ image_processor_type: 'SiglipImageProcessor' });
    const made = (config: typeof clip, width: number, height: number) => processImage(plain(width, height, 0), config);
    expect(made(clip, 1, 60_000).length).toBe(3 * 224 * 224);
    expect(made(siglip, 65_000, 100).length).toBe(3 * 224 * 224);
    // less than a pixel wide on a square of its height: all that is seen at the edge is the color around it
    const mean = Math.trunc(llava.image_mean[0] * 255) / 255;
    expect(made(llava, 1, 60_000)[0]).toBeCloseTo((mean - llava.image_mean[0]) / llava.image_std[0], 5);
    expect(performance.now() - start).toBeLessThan(20_000);
    expect(process.memoryUsage().arrayBuffers - memory).toBeLessThan(1e9);
  });

  it('names a picture that would still be too large, with its size and what it would become', () => {
    const uncropped = imageProcessorConfig.parse({ do_center_crop: false });
    expect(() => processImage(plain(1, 60_000, 0), uncropped, 'a.png')).toThrow(UserError);
    expect(() => processImage(plain(1, 60_000, 0), uncropped, 'a.png')).toThrow(
      /^a\.png: the picture has 1 x 60000 pixels and would become 224 x 13440000 .* more than 100000000; crop it$/,
    );
    const wide = imageProcessorConfig.parse({ size: { height: 9, width: 20_000 }, do_center_crop: false });
    expect(() => processImage(plain(2, 6_000, 0), wide)).toThrow(/would become 20000 x 6000/);
    const both = imageProcessorConfig.parse({ size: { shortest_edge: 8, longest_edge: 9 }, do_center_crop: false });
    expect(() => processImage(plain(1, 6_000, 0), both)).toThrow(/would become 0 x 9 .* which is nothing/);
  });

  it('has the class that the file names fill in what it does not say, or says as null', () => {
    const siglip = imageProcessorConfig.parse({ image_processor_type: 'SiglipImageProcessorFast', do_center_crop: null, crop_size: null });
    expect(siglip).toMatchObject({ size: { height: 224, width: 224 }, do_center_crop: false, image_mean: [0.5, 0.5, 0.5] });
    const bit = imageProcessorConfig.parse({ image_processor_type: 'BitImageProcessor', size: { shortest_edge: 256 } });
    expect(bit).toMatchObject({
      do_center_crop: true,
      crop_size: { height: 224, width: 224 },
      image_mean: [0.48145466, 0.4578275, 0.40821073],
    });
  });

  it('says beforehand how large the result is, where pictures do not decide it', () => {
    const size = (config: object) => processedSize(imageProcessorConfig.parse(config));
    expect(size({ size: 6, crop_size: { height: 4, width: 5 } })).toEqual({ height: 4, width: 5 });
    expect(size({ image_processor_type: 'SiglipImageProcessor', size: { height: 7, width: 8 } })).toEqual({ height: 7, width: 8 });
    // CLIP's class crops whatever the size
    expect(size({ size: { height: 7, width: 8 } })).toEqual({ height: 224, width: 224 });
    expect(size({ size: { shortest_edge: 6, longest_edge: 5 }, do_center_crop: false, do_pad: true })).toEqual({ height: 5, width: 5 });
    expect(size({ size: 6, do_center_crop: false, do_pad: true })).toEqual({ height: 6, width: 6 });
    expect(size({ size: 6, do_center_crop: false })).toBeUndefined();
    expect(size({ do_resize: false, do_center_crop: false })).toBeUndefined();
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

  it('reads files one after the other, with transparent parts as the config says', async () => {
    const raw = { width: 1, height: 1, channels: 4 } as const;
    const pictures = await Promise.all(
      [10, 20, 30, 40, 50, 60].map((v) =>
        sharp(Buffer.from([v, v, v, 0]), { raw })
          .png()
          .toBuffer(),
      ),
    );
    const off = { do_resize: false, do_center_crop: false, do_rescale: false, do_normalize: false };
    const read = async (more: object) => [...(await readPixelValues(pictures, imageProcessorConfig.parse({ ...off, ...more })))];
    expect(await read({})).toEqual([10, 20, 30, 40, 50, 60].flatMap((v) => [v, v, v]));
    expect(await read({ transparency: 'white' })).toEqual(Array(18).fill(255));
    await expect(readPixelValues([pictures[0], Buffer.from('x')], imageProcessorConfig.parse(off), ['a', 'b'])).rejects.toThrow(
      /^b: cannot/,
    );
  });

  it.each(Object.entries(defaults.image_processors))(
    '%s: what a file leaves out is what transformers takes',
    (name, { fields, size_5 }) => {
      // pixels are RGB here in any case
      const { do_convert_rgb: _, ...expected } = fields;
      expect(imageProcessorConfig.parse({ image_processor_type: name })).toMatchObject(expected);
      const ofFive = imageProcessorConfig.parse({ image_processor_type: `${name}Fast`, size: 5 });
      expect(ofFive).toMatchObject({ ...expected, size: size_5 });
    },
  );

  it('takes no step that is null, as transformers does', () => {
    const steps = { do_resize: false, do_center_crop: false, do_rescale: false, do_normalize: false };
    const nulls = Object.fromEntries(Object.keys(steps).map((name) => [name, null]));
    expect(imageProcessorConfig.parse({ image_processor_type: 'CLIPImageProcessor', ...nulls })).toMatchObject(steps);
  });

  it.each([
    [{ resample: 6 }, 'resample'],
    [{ resample: 'bicubic' }, 'resample'],
    [{ size: { longest_edge: 8 } }, 'size'],
    [{ size: { height: 8, width: 8, shortest_edge: 8 } }, 'size'],
    [{ image_mean: [0.5] }, 'image_mean'],
    [{ image_processor_type: 'LlavaNextImageProcessor' }, 'image_processor_type'],
  ])('refuses %j by the name of the field', (config, field) => {
    expect(imageProcessorConfig.safeParse(config).error?.issues[0].path[0]).toBe(field);
  });
});

describe('pictureOf', () => {
  it('is the picture that pixel values were made of', () => {
    const data = Uint8Array.from({ length: 4 * 3 * 3 }, (_, i) => (i * 37) % 256);
    const image: PixelImage = { width: 4, height: 3, channels: 3, data };
    for (const change of [
      {},
      { image_processor_type: 'SiglipImageProcessor' },
      { do_normalize: false },
      { do_rescale: false, do_normalize: false },
    ]) {
      const config = imageProcessorConfig.parse({ ...change, do_resize: false, do_center_crop: false });
      expect(pictureOf(processImage(image, config), image, config)).toEqual(image);
    }
  });
});

describe('seenPart', () => {
  const part = (config: object, width: number, height: number) => {
    const { left, top, ...size } = seenPart({ width, height }, imageProcessorConfig.parse(config));
    return [left, top, size.width, size.height].map((share) => Math.round(share * 1000) / 1000);
  };
  const cropped = { size: { shortest_edge: 100 }, crop_size: { width: 100, height: 100 } };

  it('is all of a picture that is only resized', () => {
    expect(part({ image_processor_type: 'SiglipImageProcessor' }, 30, 70)).toEqual([0, 0, 1, 1]);
  });

  it('is the middle of one that is cropped', () => {
    expect(part(cropped, 400, 100)).toEqual([0.375, 0, 0.25, 1]);
    expect(part(cropped, 50, 100)).toEqual([0, 0.25, 1, 0.5]);
  });

  it('goes beyond one that is padded, or smaller than its crop', () => {
    expect(part({ ...cropped, do_pad: true }, 90, 30)).toEqual([0, -1, 1, 3]);
    expect(part({ ...cropped, do_resize: false }, 50, 80)).toEqual([-0.5, -0.125, 2, 1.25]);
  });

  it('is where a dot lands', () => {
    const config = imageProcessorConfig.parse({ ...cropped, do_pad: true, image_mean: 0, image_std: 1 });
    const [width, height] = [200, 80];
    const data = new Uint8Array(width * height * 3);
    const at = { x: 150, y: 20 };
    for (let dy = 0; dy < 4; dy++) for (let dx = 0; dx < 4; dx++) data[((at.y + dy) * width + at.x + dx) * 3] = 255;
    const values = processImage({ width, height, channels: 3, data }, config);
    const brightest = values.subarray(0, 100 * 100).indexOf(Math.max(...values.subarray(0, 100 * 100)));
    const seen = seenPart({ width, height }, config);
    const x = (seen.left + (seen.width * ((brightest % 100) + 0.5)) / 100) * width;
    const y = (seen.top + (seen.height * (Math.floor(brightest / 100) + 0.5)) / 100) * height;
    expect(Math.abs(x - at.x - 2)).toBeLessThan(2.5);
    expect(Math.abs(y - at.y - 2)).toBeLessThan(2.5);
  });
});
