import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { heatColor } from './colors.ts';
import { heatUri, overlayPng, relative, sheetOf, sheetPng } from './overlay.ts';

/** Lightness of a color in CIELAB, which the path through OKLab knows nothing of. */
function lightness(rgb: readonly number[]): number {
  const [r, g, b] = rgb.map((value) => (value <= 10.31 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  const y = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return y > 0.008856 ? 116 * Math.cbrt(y) - 16 : 903.3 * y;
}

const raw = async (png: Buffer | Uint8Array) => sharp(png).raw().toBuffer({ resolveWithObject: true });

describe('colors', () => {
  test('get lighter in nearly equal steps', () => {
    const all = Array.from({ length: 11 }, (_, i) => lightness(heatColor(i / 10)));
    const steps = all.slice(1).map((value, i) => value - all[i]);
    expect(Math.min(...steps)).toBeGreaterThan(5);
    expect(Math.max(...steps)).toBeLessThan(11);
    expect(all[0]).toBeLessThan(15);
    expect(all[10]).toBeGreaterThan(90);
  });
});

describe('overlays', () => {
  const grid = { rows: 2, columns: 2, patch: 3, size: 7 };
  const picture = { width: 7, height: 7, channels: 3 as const, data: new Uint8Array(7 * 7 * 3).fill(128) };

  test('patches where they lie, and what no patch covers as nothing', async () => {
    const { data, info } = await raw(await overlayPng(picture, Float32Array.of(0, 0, 0, 2), grid));
    expect([info.width, info.height]).toEqual([385, 385]);
    const at = (x: number, y: number) => [...data.subarray((y * info.width + x) * 3, (y * info.width + x) * 3 + 3)];
    const side = 55;
    const [none, most] = [at(0, 0), at(4 * side, 4 * side)];
    expect(lightness(most)).toBeGreaterThan(lightness(none) + 30);
    expect(at(4 * side, 0)).toEqual(none);
    expect(at(3 * side, 3 * side)).toEqual(most);
    expect(at(6 * side - 1, 6 * side - 1)).toEqual(most);
    expect(at(6 * side, 6 * side)).toEqual(none);
  });

  test('a page gets a pixel a patch', async () => {
    const uri = await heatUri(Float32Array.of(0, 1, 2, 4), grid);
    const { data, info } = await raw(Buffer.from(uri.replace(/^data:image\/png;base64,/, ''), 'base64'));
    expect([info.width, info.height, info.channels]).toEqual([2, 2, 4]);
    [0, 0.25, 0.5, 1].forEach((value, i) => {
      expect([...data.subarray(i * 4, i * 4 + 3)]).toEqual([...heatColor(value)]);
    });
  });

  test('a sheet has each map in its place, from 0 to its own largest value', async () => {
    const sheet = sheetOf(2, grid);
    expect(sheet).toEqual({ across: 2, scale: 24, gap: 2 });
    const maps = [Float32Array.of(0, 0, 0, 2), Float32Array.of(1, 0, 0, 0), Float32Array.of(0, 0, 5, 0)];
    const { data, info } = await raw(await sheetPng(maps, sheet, grid));
    expect([info.width, info.height]).toEqual([98, 98]);
    const at = (x: number, y: number) => [...data.subarray((y * info.width + x) * 4, (y * info.width + x) * 4 + 4)];
    const [none, most] = [0, 1].map((value) => [...heatColor(value), 255]);
    expect([at(0, 0), at(24, 24), at(50, 0), at(74, 24), at(0, 50), at(0, 74)]).toEqual([none, most, most, none, none, most]);
    // between maps, and where there is none, is nothing
    expect([at(48, 0)[3], at(50, 50)[3]]).toEqual([0, 0]);
  });

  test('a map of zeros stays one', () => {
    expect([...relative(new Float32Array(3))]).toEqual([0, 0, 0]);
    expect([...relative(Float32Array.of(1, 2))]).toEqual([0.5, 1]);
  });
});
