// A map laid over the picture.

import { heatColor } from '../explain/colors.ts';
import type { AnswerExplanation } from './answerer.ts';

/** Where a map lies, in shares of the picture: the patches need not fill what the encoder sees. */
export function placeOf({ grid, seen }: Pick<AnswerExplanation, 'grid' | 'seen'>) {
  const share = (count: number) => (count * grid.patch) / grid.size;
  return { left: seen.left, top: seen.top, width: seen.width * share(grid.columns), height: seen.height * share(grid.rows) };
}

/** The place of the largest value, in words; `undefined` where a map is zero everywhere. */
export function strongestPlace(map: readonly number[], { rows, columns }: { rows: number; columns: number }): string | undefined {
  const most = Math.max(...map);
  if (!(most > 0)) return undefined;
  const at = map.indexOf(most);
  const third = (place: number, count: number) => Math.min(2, Math.floor((3 * (place + 0.5)) / count));
  const row = ['top', 'middle', 'bottom'][third(Math.floor(at / columns), rows)];
  const column = ['left', 'center', 'right'][third(at % columns, columns)];
  if (row === 'middle' && column === 'center') return 'center';
  return column === 'center' ? row : `${row} ${column}`;
}

/** The share of the map's color where it is 0, and what its largest value adds. */
const OPACITY = { least: 0.4, more: 0.4 };

/** Draws a map from 0 to its largest value, a pixel a patch. */
export function drawHeat(canvas: HTMLCanvasElement, map: readonly number[], explanation: AnswerExplanation): void {
  const { rows, columns } = explanation.grid;
  canvas.width = columns;
  canvas.height = rows;
  const pixels = new ImageData(columns, rows);
  const most = Math.max(...map);
  map.forEach((value, i) => {
    const share = most > 0 ? value / most : 0;
    pixels.data.set([...heatColor(share), Math.round(255 * (OPACITY.least + OPACITY.more * share))], i * 4);
  });
  canvas.getContext('2d')!.putImageData(pixels, 0, 0);
  const place = placeOf(explanation);
  for (const side of ['left', 'top', 'width', 'height'] as const) canvas.style[side] = `${100 * place[side]}%`;
}
