// Maps over pictures, as PNG.

import sharp from 'sharp';
import type { PixelImage } from '../images/pixels.ts';
import { heatColor } from './colors.ts';
import type { Grid } from './maps.ts';

/** Shorter sides are enlarged to this many pixels at least. */
const LEAST_SIDE = 384;
/** How much of the picture's own color is left beside the map's. */
const SATURATION = 0.35;

/** The share of the map's color: what is least relevant is dark, and still seen. */
const OPACITY = 0.62;

/** A map over its largest value; zeros stay zeros. */
export function relative(map: Float32Array): Float32Array {
  const most = map.reduce((max, value) => Math.max(max, value), 0);
  return most > 0 ? map.map((value) => value / most) : map;
}

/** A PNG of the map over the picture that the encoder sees, patches with their own edges. */
export async function overlayPng({ width, height, data }: PixelImage, map: Float32Array, { columns, rows, patch }: Grid): Promise<Buffer> {
  const values = relative(map);
  const factor = Math.max(1, Math.ceil(LEAST_SIDE / Math.min(width, height)));
  const mixed = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const at = (y * width + x) * 3;
      const [column, row] = [Math.floor(x / patch), Math.floor(y / patch)];
      // pixels after the last whole patch are seen by nobody
      const value = column < columns && row < rows ? values[row * columns + column] : 0;
      const gray = 0.2126 * data[at] + 0.7152 * data[at + 1] + 0.0722 * data[at + 2];
      heatColor(value).forEach((heat, channel) => {
        const own = gray + SATURATION * (data[at + channel] - gray);
        mixed[at + channel] = Math.round(own + OPACITY * (heat - own));
      });
    }
  return sharp(mixed, { raw: { width, height, channels: 3 } })
    .resize(width * factor, height * factor, { kernel: 'nearest' })
    .png()
    .toBuffer();
}

export const dataUri = (png: Buffer) => `data:image/png;base64,${png.toString('base64')}`;

/** A picture as a data URI. */
export async function pictureUri({ width, height, data }: PixelImage): Promise<string> {
  return dataUri(
    await sharp(data, { raw: { width, height, channels: 3 } })
      .png()
      .toBuffer(),
  );
}

/** Maps of `columns` by `rows` patches, `across` of them in a line: where they lie in their sheet. */
export interface Sheet {
  across: number;
  /** Pixels that a patch is wide and high, and those that are left free behind each map. */
  scale: number;
  gap: number;
}

/** Shorter sides of a map in a sheet have this many pixels at least. */
const LEAST_SHEET_SIDE = 48;

/** Where maps of such a grid lie, `across` in a line. */
export const sheetOf = (across: number, { columns, rows }: Pick<Grid, 'columns' | 'rows'>): Sheet => ({
  across,
  scale: Math.max(1, Math.ceil(LEAST_SHEET_SIDE / Math.min(columns, rows))),
  gap: 2,
});

/** Many maps in one PNG, line by line, each from 0 to its own largest value. */
export async function sheetPng(
  maps: readonly Float32Array[],
  { across, scale, gap }: Sheet,
  grid: Pick<Grid, 'columns' | 'rows'>,
): Promise<Buffer> {
  const [stepX, stepY] = [grid.columns * scale + gap, grid.rows * scale + gap];
  const [width, height] = [across * stepX - gap, Math.ceil(maps.length / across) * stepY - gap];
  const pixels = new Uint8Array(width * height * 4);
  maps.forEach((map, index) => {
    const values = relative(map);
    const [left, top] = [(index % across) * stepX, Math.floor(index / across) * stepY];
    values.forEach((value, patch) => {
      const color = [...heatColor(value), 255];
      const [x, y] = [left + (patch % grid.columns) * scale, top + Math.floor(patch / grid.columns) * scale];
      for (let row = y; row < y + scale; row++)
        for (let column = x; column < x + scale; column++) pixels.set(color, (row * width + column) * 4);
    });
  });
  return sharp(pixels, { raw: { width, height, channels: 4 } })
    .png()
    .toBuffer();
}

/** A map by itself as a data URI, a pixel a patch, to be laid over the picture by a page. */
export async function heatUri(map: Float32Array, { columns, rows }: Pick<Grid, 'columns' | 'rows'>): Promise<string> {
  const pixels = new Uint8Array(columns * rows * 4);
  relative(map).forEach((value, i) => {
    pixels.set([...heatColor(value), Math.round(255 * OPACITY)], i * 4);
  });
  return dataUri(
    await sharp(pixels, { raw: { width: columns, height: rows, channels: 4 } })
      .png()
      .toBuffer(),
  );
}
