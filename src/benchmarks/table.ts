// Tables of tab- or comma-separated values, read as pandas reads them (quotes, missing values). Cells of
// pictures (base64) stay in the file until they are asked for: a table of MMBench is little else.

import { isUtf8 } from 'node:buffer';
import { closeSync, openSync, readSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { refusePointer } from '../git-lfs.ts';
import { decodeUtf8, isUtf16 } from '../utf8.ts';
import type { QuestionPicture } from './benchmark.ts';

/** Bytes read at a time. */
const PIECE = 1 << 22;
/** Bytes that one row may have: a quote that is missing must not lead through the whole file. */
const LONGEST = 1 << 28;
/** Of a cell that is left in the file, so much is known: enough for the number of another row. */
const KNOWN = 64;

const [LINE_BREAK, CARRIAGE_RETURN, QUOTE] = [10, 13, 34];

/** Where a cell is in its file, in bytes. */
export interface Cell {
  path: string;
  start: number;
  end: number;
  /** `dev.tsv:17` */
  where: string;
}

export interface TableRow {
  /** By column, as text; '' where the row has no such cell. Of a cell that was left, its first characters. */
  cells: Record<string, string>;
  /** The cells of the columns that were to be left in the file. */
  left: Record<string, Cell>;
  /** `dev.tsv:17` */
  where: string;
}

interface Columns {
  columns: readonly string[];
}

export interface Table extends Columns {
  rows: TableRow[];
}

/** The bytes of a row's fields. */
interface Fields {
  bounds: [start: number, end: number][];
  next: number;
}

/** Where a quoted field's text ends, its closing quote included; -1 if the bytes end before it does. */
function endOfQuoted(bytes: Buffer, start: number): number {
  for (let at = bytes.indexOf(QUOTE, start + 1); at >= 0; at = bytes.indexOf(QUOTE, at + 2)) if (bytes[at + 1] !== QUOTE) return at + 1;
  return -1;
}

/**
 * The fields of the row that begins at `from`, or `'open'` if the bytes end before it does (`isLast`: and
 * nothing follows). A field is quoted if it begins with a quote; elsewhere, quotes are text.
 */
function fieldsAt(bytes: Buffer, from: number, separator: number, isLast: boolean): Fields | 'open' {
  const bounds: Fields['bounds'] = [];
  let lineBreak = -1;
  for (let start = from; ; ) {
    let at = start;
    if (bytes[start] === QUOTE) {
      at = endOfQuoted(bytes, start);
      // at the end of what is read, a closing quote may turn out to be the first of two
      if (at < 0 || (at === bytes.length && !isLast)) return 'open';
    }
    if (lineBreak < at) {
      lineBreak = bytes.indexOf(LINE_BREAK, at);
      if (lineBreak < 0 && !isLast) return 'open';
      if (lineBreak < 0) lineBreak = bytes.length;
    }
    const comma = bytes.subarray(at, lineBreak).indexOf(separator);
    if (comma >= 0) {
      bounds.push([start, at + comma]);
      start = at + comma + 1;
      continue;
    }
    const end = lineBreak > at && bytes[lineBreak - 1] === CARRIAGE_RETURN ? lineBreak - 1 : lineBreak;
    bounds.push([start, end]);
    return { bounds, next: lineBreak + 1 };
  }
}

/** The text of a field: without the quotes around it, and one for two within. */
function unquoted(text: string): string {
  if (!text.startsWith('"')) return text;
  const [, quoted, rest] = /^"([^"]*(?:""[^"]*)*)"?([\s\S]*)$/.exec(text)!;
  return quoted.replaceAll('""', '"') + rest;
}

/** What separates the columns, by the header: tabs, else commas, else the semicolons of Excel. */
function separatorOf(header: string): number {
  const found = ['\t', ',', ';'].find((separator) => header.includes(separator));
  return (found ?? '\t').charCodeAt(0);
}

function refuseOtherForms(path: string, bytes: Buffer): void {
  refusePointer(bytes, path);
  if (bytes.subarray(0, 4).equals(Buffer.from('PK\x03\x04')))
    throw new UserError(`${path}: is a workbook of Excel; export its sheet as CSV UTF-8 or as tab-separated text`);
  if (isUtf16(bytes)) throw new UserError(`${path}: is in UTF-16; save the file as UTF-8.`);
}

/** Reads on in a file, keeping what is not yet used. */
class Pieces {
  bytes: Buffer = Buffer.alloc(0);
  /** Place in the file of the first of `bytes`. */
  base = 0;
  isLast = false;
  readonly #file: number;

  constructor(file: number) {
    this.#file = file;
  }

  /** Drops all before `at` and reads more. */
  more(at: number): void {
    const kept = this.bytes.subarray(at);
    const size = Math.max(PIECE, kept.length);
    const bytes = Buffer.allocUnsafe(kept.length + size);
    kept.copy(bytes);
    this.base += at;
    const read = readSync(this.#file, bytes, kept.length, size, this.base + kept.length);
    this.bytes = bytes.subarray(0, kept.length + read);
    this.isLast = read === 0;
  }
}

const countBreaks = (bytes: Buffer, from: number, end: number) => {
  let count = 0;
  for (let at = bytes.indexOf(LINE_BREAK, from); at >= 0 && at < end; at = bytes.indexOf(LINE_BREAK, at + 1)) count++;
  return count;
};

/** The rows of a table as bytes, one after the other: fields, place in the file, line. */
function* rowsIn(path: string, file: number): Generator<{ pieces: Pieces; fields: Fields; line: number }> {
  const pieces = new Pieces(file);
  pieces.more(0);
  refuseOtherForms(path, pieces.bytes);
  let at = pieces.bytes[0] === 0xef && pieces.bytes[1] === 0xbb && pieces.bytes[2] === 0xbf ? 3 : 0;
  let line = 1;
  let separator: number | undefined;
  for (;;) {
    if (separator === undefined) {
      const end = pieces.bytes.indexOf(LINE_BREAK);
      separator = separatorOf(pieces.bytes.toString('latin1', at, end < 0 ? undefined : end));
    }
    if (at >= pieces.bytes.length && pieces.isLast) return;
    const fields = at < pieces.bytes.length ? fieldsAt(pieces.bytes, at, separator, pieces.isLast) : 'open';
    if (fields === 'open') {
      if (pieces.isLast || pieces.bytes.length - at > LONGEST)
        throw new UserError(`${path}:${line}: the row that begins here does not end; a quote is missing, or the end of the file`);
      pieces.more(at);
      at = 0;
      continue;
    }
    yield { pieces, fields, line };
    line += countBreaks(pieces.bytes, at, fields.next);
    at = fields.next;
  }
}

/**
 * A whole table, its first row naming the columns. Rows without anything in them are skipped; cells that are
 * missing at the end of a row are empty. Of the columns to `leave`, only the places of cells are kept.
 * UserError with file and line: an empty file, more cells than columns, a quote that does not end, bytes that
 * are not UTF-8, a workbook.
 */
export function readTable(path: string, { leave = () => false }: { leave?: (column: string) => boolean } = {}): Table {
  const file = onDisk(path, () => openSync(path, 'r'));
  try {
    return onDisk(path, () => tableOf(path, file, leave));
  } finally {
    closeSync(file);
  }
}

function tableOf(path: string, file: number, leave: (column: string) => boolean): Table {
  let columns: string[] | undefined;
  let isLeft: boolean[] = [];
  const rows: TableRow[] = [];
  for (const { pieces, fields, line } of rowsIn(path, file)) {
    const textOf = ([start, end]: [number, number]) => {
      const bytes = pieces.bytes.subarray(start, end);
      return unquoted(isUtf8(bytes) ? bytes.toString('utf8') : decodeUtf8(bytes, path, (at) => line + countBreaks(bytes, 0, at)));
    };
    if (fields.bounds.every(([start, end]) => start === end)) continue;
    if (columns === undefined) {
      columns = fields.bounds.map((bound) => textOf(bound).trim());
      isLeft = columns.map(leave);
      continue;
    }
    const where = `${basename(path)}:${line}`;
    const row: TableRow = { cells: Object.fromEntries(columns.map((column) => [column, ''])), left: {}, where };
    fields.bounds.forEach(([start, end], i) => {
      const column = columns![i];
      if (column === undefined) {
        if (end > start)
          throw new UserError(`${path}:${line}: has ${fields.bounds.length} cells, but there are ${columns!.length} columns`);
      } else if (isLeft[i]) {
        const isQuoted = end > start && pieces.bytes[start] === QUOTE ? 1 : 0;
        row.left[column] = { path, start: pieces.base + start + isQuoted, end: pieces.base + end - isQuoted, where };
        row.cells[column] = pieces.bytes.toString('latin1', start + isQuoted, Math.min(end - isQuoted, start + isQuoted + KNOWN));
      } else row.cells[column] = textOf([start, end]);
    });
    rows.push(row);
  }
  if (columns === undefined) throw new UserError(`${path}: is empty; it should be a table whose first line names the columns`);
  return { columns, rows };
}

/** A column by the names that it may have, in any case. UserError that names those that there are. */
export function columnOf(table: Columns, path: string, ...names: readonly string[]): string {
  const found = findColumn(table, ...names);
  if (found === undefined) throw new UserError(`${path}: has no column ${names.join(' or ')}; its columns are ${table.columns.join(', ')}`);
  return found;
}

/** The same; undefined where there is none. */
export const findColumn = ({ columns }: Columns, ...names: readonly string[]): string | undefined =>
  names.flatMap((name) => columns.filter((column) => column.toLowerCase() === name.toLowerCase()))[0];

/** What pandas takes for a missing value, and LLaVA's scripts besides (`none`). */
const MISSING = new Set(
  ['', '#N/A', '#N/A N/A', '#NA', '-1.#IND', '-1.#QNAN', '-NaN', '1.#IND', '1.#QNAN', '<NA>', 'N/A', 'NA', 'NULL', 'NaN', 'None'].flatMap(
    (value) => [value, value.toLowerCase()],
  ),
);

/** Whether a cell counts as missing for pandas' `read_table` or for LLaVA's `is_none`. */
export const isMissing = (cell: string | undefined): boolean => cell === undefined || MISSING.has(cell);

/** A number that pandas may have written as a float, because a cell of its column was missing: `241.0`. */
export const wholeNumber = (cell: string): string => cell.trim().replace(/^(-?\d+)\.0+$/, '$1');

/** The bytes of base64 text. UserError that begins with `where` if it is none, or cut short. */
export function decodeBase64(text: string, where: string): Uint8Array {
  const base64 = text.trim().replace(/^data:[\w/+.-]+;base64,/, '');
  if (base64 === '') throw new UserError(`${where}: has no picture`);
  const strange = /[^A-Za-z0-9+/=\s]/.exec(base64)?.[0];
  const length = base64.replace(/\s+/g, '').length;
  if (strange !== undefined || length % 4 !== 0)
    throw new UserError(
      `${where}: the picture's base64 is broken (${strange === undefined ? 'it is cut short' : `it has ${JSON.stringify(strange)}`})`,
    );
  return Buffer.from(base64, 'base64');
}

/** A picture that is base64 in a cell of a table. */
export const cellPicture = ({ path, start, end, where }: Cell, name: string): QuestionPicture => ({
  name,
  read: async () => {
    const file = await open(path);
    try {
      const bytes = Buffer.allocUnsafe(end - start);
      await file.read(bytes, 0, bytes.length, start);
      return decodeBase64(bytes.toString('latin1'), where);
    } finally {
      await file.close();
    }
  },
});
