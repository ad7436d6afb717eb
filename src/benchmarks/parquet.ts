// Parquet files of the Hugging Face data sets: columns of text are read at once, pictures when shown.

import { statSync } from 'node:fs';
import { basename } from 'node:path';
import type { AsyncBuffer, FileMetaData } from 'hyparquet';
import { onDisk } from '../disk.ts';
import { reasonOf, UserError } from '../errors.ts';
import type { QuestionPicture } from './benchmark.ts';

/** A row by column. Whole numbers are numbers, not bigints. */
export type ParquetRow = Record<string, unknown>;

/** Columns of pictures that are kept: a question may have several, and the next one those beside it. */
const KEPT = 8;

/** A Parquet file whose footer was read. */
export class ParquetFile {
  readonly path: string;
  readonly columns: readonly string[];
  /** The path's last part. */
  readonly name: string;
  readonly #file: AsyncBuffer;
  readonly #metadata: FileMetaData;

  private constructor(path: string, file: AsyncBuffer, metadata: FileMetaData) {
    this.path = path;
    this.name = basename(path);
    this.#file = file;
    this.#metadata = metadata;
    const [root] = metadata.schema;
    this.columns = topLevel(metadata.schema.slice(1), root.num_children ?? 0);
  }

  /** UserError if the file is missing, cut short or no Parquet file. */
  static async open(path: string): Promise<ParquetFile> {
    const { asyncBufferFromFile, parquetMetadataAsync } = await import('hyparquet');
    return reading(path, async () => {
      const file = await asyncBufferFromFile(path);
      return new ParquetFile(path, file, await parquetMetadataAsync(file));
    });
  }

  /** All rows, with these columns alone. UserError for a column that is missing. */
  async read(columns: readonly string[]): Promise<ParquetRow[]> {
    const missing = columns.filter((column) => !this.columns.includes(column));
    if (missing.length > 0)
      throw new UserError(`${this.path}: has no column ${missing.join(', ')}; its columns are ${this.columns.join(', ')}`);
    return this.#rows(columns, 0, Number(this.#metadata.num_rows));
  }

  /** The picture of a row, `{ bytes, path }` as the library `datasets` stores it. */
  picture(column: string, row: number, name: string): QuestionPicture {
    const read = async () => {
      const [start, end] = this.#groupOf(row);
      const rows = await kept(`${this.path}\n${column}\n${start}`, () => this.#rows([column], start, end));
      // a list where questions may have several, of which this is the first
      const [value] = [rows[row - start]?.[column]].flat() as ({ bytes?: Uint8Array } | Uint8Array | null)[];
      const bytes = value instanceof Uint8Array ? value : value?.bytes;
      if (bytes === undefined || bytes === null)
        throw new UserError(`${this.path}: row ${row + 1} has no picture in the file's column ${column}`);
      return bytes;
    };
    return { name, read };
  }

  /** First row, and the one behind the last, of the row group that a row is in. */
  #groupOf(row: number): [start: number, end: number] {
    let start = 0;
    for (const group of this.#metadata.row_groups) {
      const end = start + Number(group.num_rows);
      if (row < end) return [start, end];
      start = end;
    }
    throw new UserError(`${this.path}: has no row ${row + 1}`);
  }

  async #rows(columns: readonly string[], rowStart: number, rowEnd: number): Promise<ParquetRow[]> {
    const [{ parquetReadObjects }, { compressors }] = await Promise.all([import('hyparquet'), import('hyparquet-compressors')]);
    const rows = await reading(this.path, () =>
      // text is marked as such; all else that is bytes are pictures
      parquetReadObjects({ file: this.#file, metadata: this.#metadata, columns: [...columns], rowStart, rowEnd, compressors, utf8: false }),
    );
    for (const row of rows) for (const column of columns) if (typeof row[column] === 'bigint') row[column] = Number(row[column]);
    return rows;
  }
}

/** The names of the root's children, of a schema in depth-first order. */
function topLevel(schema: readonly FileMetaData['schema'][number][], count: number): string[] {
  const names: string[] = [];
  let at = 0;
  const skip = () => {
    const { num_children = 0 } = schema[at++];
    for (let i = 0; i < num_children; i++) skip();
  };
  for (let i = 0; i < count; i++) {
    names.push(schema[at].name);
    skip();
  }
  return names;
}

async function reading<T>(path: string, work: () => Promise<T>): Promise<T> {
  onDisk(path, () => statSync(path));
  try {
    return await work();
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${path}: cannot be read as Parquet (${reasonOf(error)}); was it downloaded whole?`);
  }
}

const groups = new Map<string, Promise<ParquetRow[]>>();

/** The rows of a group, read once while few others are asked for. */
function kept(key: string, read: () => Promise<ParquetRow[]>): Promise<ParquetRow[]> {
  const found = groups.get(key) ?? read();
  groups.delete(key);
  groups.set(key, found);
  found.catch(() => groups.delete(key));
  if (groups.size > KEPT) groups.delete(groups.keys().next().value!);
  return found;
}
