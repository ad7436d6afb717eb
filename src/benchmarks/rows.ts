// Rows of a published data set, whether it is a table of values with pictures in base64 or a Parquet file.

import type { QuestionPicture } from './benchmark.ts';
import { ParquetFile } from './parquet.ts';
import { cellPicture, isMissing, readTable } from './table.ts';

export interface DataRow {
  /** By column, in lower case, as text; '' for what is missing. Of a picture, at most its beginning. */
  cells: Record<string, string>;
  /** `dev.tsv:17`, or `dev.parquet, row 17`. */
  where: string;
  /** The picture of a column. Whether there is one shows when it is read. */
  picture(column: string, name: string): QuestionPicture;
}

export interface DataRows {
  /** In lower case. */
  columns: readonly string[];
  rows: DataRow[];
}

const isPicture = (column: string) => /^(image|image_\d+|decoded_image)$/i.test(column);

/**
 * All rows. Pictures (the columns image, image_1, ...) are not read before they are shown. UserError as of
 * `readTable` and `ParquetFile`.
 */
export const readRows = async (path: string): Promise<DataRows> => (/\.parquet$/i.test(path) ? readParquet(path) : readText(path));

function readText(path: string): DataRows {
  const { columns, rows } = readTable(path, { leave: isPicture });
  const lower = columns.map((column) => column.toLowerCase());
  return {
    columns: lower,
    rows: rows.map(({ cells, left, where }) => ({
      cells: renamed(cells, columns, lower),
      where,
      picture: (column: string, name: string) => cellPicture(left[columns[lower.indexOf(column)]], name),
    })),
  };
}

async function readParquet(path: string): Promise<DataRows> {
  const file = await ParquetFile.open(path);
  const [columns, lower] = [file.columns, file.columns.map((column) => column.toLowerCase())];
  const read = await file.read(columns.filter((column) => !isPicture(column)));
  return {
    columns: lower,
    rows: read.map((values, i) => ({
      cells: Object.fromEntries(Object.entries(values).map(([column, value]) => [column.toLowerCase(), textOf(value)])),
      where: `${file.name}, row ${i + 1}`,
      picture: (column: string, name: string) => file.picture(columns[lower.indexOf(column)], i, name),
    })),
  };
}

function renamed(cells: Record<string, string>, columns: readonly string[], lower: readonly string[]): Record<string, string> {
  if (columns.every((column, i) => column === lower[i])) return cells;
  return Object.fromEntries(columns.map((column, i) => [lower[i], cells[column]]));
}

function textOf(value: unknown): string {
  if (value === null || value === undefined) return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** The cell of the first of several columns that there is; undefined where it is missing. */
export function cellOf({ cells }: DataRow, ...names: readonly string[]): string | undefined {
  const name = names.find((column) => column in cells);
  return name === undefined || isMissing(cells[name]) ? undefined : cells[name];
}
