// Rows of a published data set, whether it is a table of values with pictures in base64 or a Parquet file.

import type { QuestionPicture } from './benchmark.ts';
import { ParquetFile } from './parquet.ts';
import { cellPicture, findColumn, isMissing, readTable } from './table.ts';

export interface DataRow {
  /** By column, as text; '' for what is missing. */
  cells: Record<string, string>;
  /** `dev.tsv:17`, or `dev.parquet, row 17`. */
  where: string;
  /** What is known of a picture's cell: its first characters, which may be the number of another row. */
  hint(column: string): string;
  /** The picture of a column. Whether there is one shows when it is read. */
  picture(column: string, name: string): QuestionPicture;
}

export interface DataRows {
  columns: readonly string[];
  rows: DataRow[];
}

const isPicture = (column: string) => /^(image|image_\d+|decoded_image)$/i.test(column);
const PARQUET = /\.parquet$/i;

/** Endings of files that `readRows` reads. */
export const ROW_FILES = ['.tsv', '.csv', '.parquet'] as const;

/**
 * All rows. Pictures (the columns image, image_1, ...) are not read before they are shown. UserError as of
 * `readTable` and `ParquetFile`.
 */
export async function readRows(path: string): Promise<DataRows> {
  return PARQUET.test(path) ? readParquet(path) : readText(path);
}

function readText(path: string): DataRows {
  const { columns } = readTable(path, { only: 0 });
  const table = readTable(path, { leave: columns.filter(isPicture) });
  const rows = table.rows.map(({ cells, left, where }) => ({
    cells,
    where,
    hint: (column: string) => cells[column],
    picture: (column: string, name: string) => cellPicture(left[column], name),
  }));
  return { columns: table.columns, rows };
}

async function readParquet(path: string): Promise<DataRows> {
  const file = await ParquetFile.open(path);
  const read = await file.read(file.columns.filter((column) => !isPicture(column)));
  const rows = read.map((values, i) => ({
    cells: Object.fromEntries(Object.entries(values).map(([column, value]) => [column, textOf(value)])),
    where: `${file.name}, row ${i + 1}`,
    hint: () => '',
    picture: (column: string, name: string) => file.picture(column, i, name),
  }));
  return { columns: file.columns, rows };
}

function textOf(value: unknown): string {
  if (value === null || value === undefined) return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** The cell of the first of several columns that there is; undefined where it is missing. */
export function cellOf({ columns }: { columns: readonly string[] }, { cells }: DataRow, ...names: readonly string[]): string | undefined {
  const column = findColumn({ columns }, ...names);
  return column === undefined || isMissing(cells[column]) ? undefined : cells[column];
}
