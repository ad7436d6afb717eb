import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { createRandom } from '../../random.ts';
import { type EmojiGlyphs, loadEmojiGlyphs, sharedConcepts } from './glyphs.ts';
import { augmentScene, canvasSize, defaultAugmentation, type PlacedGlyph, renderScene, type Scene, sampleScene } from './scene.ts';

let glyphs: EmojiGlyphs;
let concepts: number[];
beforeAll(async () => {
  glyphs = await loadEmojiGlyphs();
  concepts = sharedConcepts(glyphs);
});

const sample = (seed: number, counts?: number[]) => sampleScene(createRandom(seed), glyphs, { concepts, artists: glyphs.artists, counts });

/** A guitar in the middle of a white canvas. */
const guitar = (changes: Partial<PlacedGlyph> = {}): Scene => {
  const concept = glyphs.concepts.findIndex(({ name }) => name === 'guitar');
  return { size: 64, ground: [255, 255, 255], glyphs: [{ concept, artist: 'noto', cell: 0, x: 32, y: 32, size: 40, ...changes }] };
};

const pixel = ({ data, width }: { data: Uint8Array; width: number }, x: number, y: number) => [
  ...data.subarray((y * width + x) * 3, (y * width + x) * 3 + 3),
];

describe('sampleScene', () => {
  it('places drawings whole inside different cells, of different families', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 4 }), (seed, count) => {
        const scene = sample(seed, [count]);
        expect(scene.glyphs.length).toBe(count);
        expect(new Set(scene.glyphs.map(({ cell }) => cell)).size).toBe(count);
        expect(new Set(scene.glyphs.map(({ concept }) => glyphs.concepts[concept].family)).size).toBe(count);
        for (const { cell, x, y, size } of scene.glyphs) {
          const half = canvasSize / 2;
          expect(x - size / 2).toBeGreaterThanOrEqual((cell % 2) * half - 1e-9);
          expect(x + size / 2).toBeLessThanOrEqual((cell % 2) * half + half + 1e-9);
          expect(y - size / 2).toBeGreaterThanOrEqual(Math.floor(cell / 2) * half - 1e-9);
          expect(y + size / 2).toBeLessThanOrEqual(Math.floor(cell / 2) * half + half + 1e-9);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('is the same for the same seed and another for another', () => {
    expect(sample(3)).toEqual(sample(3));
    expect(sample(3)).not.toEqual(sample(4));
  });
});

describe('renderScene', () => {
  it('paints the ground where nothing stands, and draws in the cells that are taken', () => {
    for (let seed = 0; seed < 50; seed++) {
      const scene = sample(seed, [2]);
      const image = renderScene(scene, glyphs);
      const half = canvasSize / 2;
      for (let cell = 0; cell < 4; cell++) {
        let drawn = 0;
        for (let y = 0; y < half; y++) {
          for (let x = 0; x < half; x++) {
            const rgb = pixel(image, (cell % 2) * half + x, Math.floor(cell / 2) * half + y);
            if (rgb.some((value, channel) => Math.abs(value - scene.ground[channel]) > 40)) drawn++;
          }
        }
        if (scene.glyphs.some((glyph) => glyph.cell === cell)) expect(drawn).toBeGreaterThan(25);
        else expect(drawn).toBe(0);
      }
    }
  });

  it('agrees with a plain average over the source where one canvas pixel is two by two source pixels', () => {
    const image = renderScene(guitar({ size: 32 }), glyphs);
    const source = glyphs.glyph(guitar().glyphs[0].concept, 'noto');
    for (let y = 0; y < 32; y++) {
      for (let x = 0; x < 32; x++) {
        const expected = [0, 1, 2].map((channel) => {
          let sum = 0;
          for (const [dx, dy] of [
            [0, 0],
            [1, 0],
            [0, 1],
            [1, 1],
          ]) {
            const i = ((2 * y + dy) * 64 + 2 * x + dx) * 4;
            sum += (source[i + channel] * source[i + 3]) / 255 + 255 - source[i + 3];
          }
          return sum / 4;
        });
        for (const [channel, value] of pixel(image, 16 + x, 16 + y).entries()) expect(Math.abs(value - expected[channel])).toBeLessThan(2);
      }
    }
  });

  it('mirrors, turns and greys', () => {
    const plain = renderScene(guitar(), glyphs);
    const mirrored = renderScene(guitar({ flip: true }), glyphs);
    const turned = renderScene(guitar({ rotation: 90 }), glyphs);
    const grey = renderScene(guitar({ grey: true }), glyphs);
    for (let y = 0; y < 64; y++) {
      for (let x = 0; x < 64; x++) {
        const here = pixel(plain, x, y);
        for (const [channel, value] of pixel(mirrored, 63 - x, y).entries()) expect(Math.abs(value - here[channel])).toBeLessThan(2);
        // Clockwise: what was on top is now at the right.
        for (const [channel, value] of pixel(turned, 63 - y, x).entries()) expect(Math.abs(value - here[channel])).toBeLessThan(2);
        const [r, g, b] = pixel(grey, x, y);
        expect(Math.max(r, g, b) - Math.min(r, g, b)).toBeLessThan(2);
      }
    }
    expect(mirrored.data).not.toEqual(plain.data);
  });

  it('stretches and leans about the center, with the area kept', () => {
    const covered = (scene: Scene) => {
      const { data, width, height } = renderScene(scene, glyphs);
      const found = { pixels: 0, xs: [] as number[], ys: [] as number[], topX: 0, bottomX: 0 };
      for (let y = 0; y < height; y++)
        for (let x = 0; x < width; x++) {
          if (pixel({ data, width }, x, y).every((value) => value > 250)) continue;
          found.pixels++;
          found.xs.push(x);
          found.ys.push(y);
        }
      const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length;
      const of = (test: (y: number) => boolean) => mean(found.xs.filter((_, i) => test(found.ys[i])));
      const spread = (list: number[]) => Math.max(...list) - Math.min(...list) + 1;
      return { pixels: found.pixels, wide: spread(found.xs), tall: spread(found.ys), lean: of((y) => y > 40) - of((y) => y < 24) };
    };
    const plain = covered(guitar());
    const wide = covered(guitar({ stretch: 1.5 }));
    const leaning = covered(guitar({ shear: 30 }));
    for (const { pixels } of [wide, leaning]) expect(Math.abs(pixels / plain.pixels - 1)).toBeLessThan(0.1);
    expect(wide.wide / plain.wide).toBeCloseTo(Math.sqrt(1.5), 1);
    expect(plain.tall / wide.tall).toBeCloseTo(Math.sqrt(1.5), 1);
    // verticals lean by 30 degrees: what is below moves to the right, what is above to the left
    expect((leaning.lean - plain.lean) / 28).toBeGreaterThan(0.3);
  });

  it('leaves out the part that is erased, and nothing else', () => {
    const plain = renderScene(guitar(), glyphs);
    const erased = renderScene(guitar({ erased: [0.25, 0.5, 0.75, 1] }), glyphs);
    // the box spans 12 to 52 on both axes: erased are columns 22 to 42 of rows 32 to 52
    for (let y = 0; y < 64; y++)
      for (let x = 0; x < 64; x++) {
        if (x >= 23 && x < 41 && y >= 33 && y < 52) expect(pixel(erased, x, y)).toEqual([255, 255, 255]);
        else if (x < 21 || x > 43 || y < 31 || y > 53) expect(pixel(erased, x, y)).toEqual(pixel(plain, x, y));
      }
    expect(erased.data).not.toEqual(plain.data);
  });

  it('leaves colours alone under a full turn of the hue, and keeps any jitter within range', () => {
    const plain = renderScene(guitar(), glyphs);
    const turned = renderScene(guitar({ hue: 360 }), glyphs);
    for (let i = 0; i < plain.data.length; i++) expect(Math.abs(turned.data[i] - plain.data[i])).toBeLessThan(2);
    // A wrapped byte would show as black where the drawing is brightened.
    const bright = renderScene(guitar({ brightness: 4 }), glyphs);
    for (let i = 0; i < plain.data.length; i++) expect(bright.data[i]).toBeGreaterThanOrEqual(plain.data[i] - 1);
  });
});

describe('augmentScene', () => {
  it('keeps what is where, and stays within its ranges', () => {
    let erasures = 0;
    for (let seed = 0; seed < 100; seed++) {
      const scene = sample(seed);
      const augmented = augmentScene(createRandom(seed), scene, { ...defaultAugmentation, shear: 12, stretch: 1.25, eraseChance: 0.3 });
      expect(augmented.glyphs.map(({ concept, artist, cell }) => [concept, artist, cell])).toEqual(
        scene.glyphs.map(({ concept, artist, cell }) => [concept, artist, cell]),
      );
      for (const [i, { rotation, size, shear, stretch, erased }] of augmented.glyphs.entries()) {
        expect(Math.abs(shear!)).toBeLessThanOrEqual(12);
        expect(Math.abs(Math.log(stretch!))).toBeLessThanOrEqual(Math.log(1.25));
        if (erased) {
          erasures++;
          const [left, top, right, bottom] = erased;
          expect(Math.min(left, top, right - left - 0.2, bottom - top - 0.2)).toBeGreaterThanOrEqual(-1e-9);
          expect(Math.max(right, bottom, right - left + 0.4, bottom - top + 0.4)).toBeLessThanOrEqual(1 + 1e-9);
        }
        expect(Math.abs(rotation!)).toBeLessThanOrEqual(20);
        expect(size / scene.glyphs[i].size).toBeGreaterThanOrEqual(0.8);
        expect(size / scene.glyphs[i].size).toBeLessThanOrEqual(1.15);
      }
    }
    // 250 drawings, three in ten
    expect(erasures).toBeGreaterThan(45);
    expect(erasures).toBeLessThan(110);
  });
});
