// The elements of a JSON array, or of JSON Lines, one after the other, without ever holding the file: data
// files of LLaVA have a gigabyte. Only borders are looked for; what lies between them goes to JSON.parse.
// (Of npm's streaming parsers, the fastest took eight times as long for a gigabyte.)

import { closeSync, openSync, readSync } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { systemReason, UserError } from '../errors.ts';
import { refusePointer } from '../git-lfs.ts';
import { isUtf16, lineOf } from '../utf8.ts';

/** Bytes read at a time. */
const PIECE = 1 << 22;
/** Bytes that one element may have: a quote that is missing must not lead through the whole file. */
const LONGEST = 1 << 26;

const [TAB, LINE_BREAK, CARRIAGE_RETURN, SPACE, QUOTE, COMMA] = [9, 10, 13, 32, 34, 44];
const [OPEN_ARRAY, BACKSLASH, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [91, 92, 93, 123, 125];

const isSpace = (byte: number) => byte === SPACE || byte === LINE_BREAK || byte === CARRIAGE_RETURN || byte === TAB;

/** Place of the first byte from `from` on that is not white space; the length when there is none. */
function skipSpace(bytes: Uint8Array, from: number): number {
  let at = from;
  while (at < bytes.length && isSpace(bytes[at])) at++;
  return at;
}

/** Finds where elements end. */
interface Splitter {
  /** Place of the next end in a piece, from `from` on; -1 when the element goes on behind the piece. */
  next(piece: Uint8Array, from: number): number;
  /** Whether nothing is missing when the file ends here. */
  complete(): boolean;
}

const lines: Splitter = { next: (piece, from) => piece.indexOf(LINE_BREAK, from), complete: () => true };

function arraySplitter(): Splitter {
  let depth = 0;
  let inString = false;
  let escaped = false;
  let closed = false;
  return {
    next(piece, from) {
      if (closed) return -1;
      for (let at = from; at < piece.length; at++) {
        const byte = piece[at];
        if (inString) {
          const quote = piece.indexOf(QUOTE, at);
          const end = quote < 0 ? piece.length : quote;
          let run = end;
          while (run > at && piece[run - 1] === BACKSLASH) run--;
          // what follows an odd number of backslashes is text; the first may be at the end of the last piece
          const isEscaped = (end - run + (escaped && run === at ? 1 : 0)) % 2 === 1;
          escaped = quote < 0 && isEscaped;
          inString = quote < 0 || isEscaped;
          at = end;
        } else if (byte === QUOTE) inString = true;
        else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) depth++;
        else if (byte === COMMA && depth === 0) return at;
        else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) {
          if (depth === 0) {
            closed = byte === CLOSE_ARRAY;
            return at;
          }
          depth--;
        }
      }
      return -1;
    },
    complete: () => closed,
  };
}

/** Line of the byte `offset` of a file, from 1. */
export function lineInFile(path: string, offset: number): number {
  const file = openSync(path, 'r');
  const piece = Buffer.allocUnsafe(PIECE);
  try {
    let line = 1;
    for (let done = 0; done < offset; ) {
      const read = readSync(file, piece, 0, Math.min(PIECE, offset - done), done);
      if (read === 0) break;
      line += lineOf(piece.subarray(0, read), read) - 1;
      done += read;
    }
    return line;
  } finally {
    closeSync(file);
  }
}

/** A file that cannot be opened or read, in words. */
function unreadable(path: string, error: unknown): UserError {
  const { code } = error as NodeJS.ErrnoException;
  return new UserError(code === 'ENOENT' ? `${path}: there is no such file.` : `${path}: cannot be read: ${systemReason(error) ?? code}.`);
}

/** How files begin that hold samples in another form, and what makes them JSON. */
const otherForms: [start: string, advice: string][] = [
  ['\x1f\x8b', 'is packed with gzip; unpack it with gunzip first'],
  ['\xfd7zXZ', 'is packed with xz; unpack it with unxz first'],
  ['\x28\xb5\x2f\xfd', 'is packed with zstd; unpack it with unzstd first'],
  ['PK\x03\x04', 'is a zip archive; unpack it first'],
  ['PAR1', 'is a Parquet file; write it as JSON Lines first, as to_json(..., orient="records", lines=True) of pandas does'],
  ['ARROW1', 'is an Arrow file; write it as JSON Lines first, as to_json of the Python package datasets does'],
];

function refuseOtherForms(path: string, piece: Uint8Array): void {
  refusePointer(piece, path);
  const start = Buffer.from(piece.subarray(0, 8)).toString('latin1');
  const advice = otherForms.find(([begin]) => start.startsWith(begin))?.[1];
  if (advice !== undefined) throw new UserError(`${path}: ${advice}.`);
}

/** The splitter for a file that begins with `piece`, and where its first element may begin. */
function startOf(path: string, piece: Uint8Array): [Splitter, number] {
  refuseOtherForms(path, piece);
  if (isUtf16(piece)) throw new UserError(`${path}: is in UTF-16; save the file as UTF-8.`);
  const marked = piece[0] === 0xef && piece[1] === 0xbb && piece[2] === 0xbf;
  const first = skipSpace(piece, marked ? 3 : 0);
  if (first === piece.length) throw new UserError(`${path}: is not JSON: it is empty.`);
  if (piece[first] === OPEN_ARRAY) return [arraySplitter(), first + 1];
  const firstLine = Buffer.from(piece.subarray(first)).toString('latin1').split('\n', 1)[0];
  if (piece[first] === OPEN_OBJECT && /"(conversations|messages|question_id)"/.test(firstLine)) return [lines, first];
  throw new UserError(
    `${path}: is not JSON that can be read: it must be a JSON array of samples, as in LLaVA's data files, or JSON Lines, a sample in each line.`,
  );
}

/**
 * Calls `visit` with the bytes of each element of a JSON array, or of each line of JSON Lines, and with their
 * place in the file. The bytes are valid during the call only, and not checked to be JSON. Throws a
 * `UserError` with file and line: a file that cannot be read, is in UTF-16, does not begin as either form or
 * does not end properly.
 */
export async function forEachElement(path: string, visit: (json: Uint8Array, offset: number) => void): Promise<void> {
  // asked before it is opened: that alone would wait for somebody to write into a pipe
  const found = await stat(path).catch(() => undefined);
  if (found && !found.isFile() && !found.isDirectory())
    throw new UserError(`${path}: is a pipe or a device, and a data file is read again and again: write it to a file first.`);
  const file = await open(path).catch((error) => {
    throw unreadable(path, error);
  });
  try {
    await splitFile(path, file, visit);
  } finally {
    await file.close();
  }
}

async function splitFile(path: string, file: FileHandle, visit: (json: Uint8Array, offset: number) => void): Promise<void> {
  const memory = Buffer.allocUnsafe(PIECE);
  let splitter: Splitter | undefined;
  // of the element in progress: its place, and what earlier pieces have of it
  let start = 0;
  let begun: Uint8Array = new Uint8Array();
  let elements = 0;
  const fail = (at: number, fault: string) => new UserError(`${path}: is not JSON: line ${lineInFile(path, at)}: ${fault}.`);
  const finish = (rest: Uint8Array, mayBeEmpty: boolean) => {
    const element = begun.length > 0 ? Buffer.concat([begun, rest]) : rest;
    const first = skipSpace(element, 0);
    if (first < element.length) {
      elements++;
      visit(element.subarray(first), start + first);
    } else if (!mayBeEmpty) throw fail(start + first, 'a sample is missing beside a comma');
    begun = new Uint8Array();
  };
  for (let offset = 0; ; ) {
    const { bytesRead } = await file.read(memory, 0, PIECE, offset).catch((error) => {
      throw unreadable(path, error);
    });
    if (bytesRead === 0) break;
    const piece = memory.subarray(0, bytesRead);
    let from = 0;
    if (!splitter) {
      [splitter, from] = startOf(path, piece);
      start = from;
    }
    for (let end = splitter.next(piece, from); end >= 0; end = splitter.next(piece, from)) {
      finish(piece.subarray(from, end), splitter === lines || (splitter.complete() && elements === 0));
      from = end + 1;
      start = offset + from;
    }
    begun = Buffer.concat([begun, piece.subarray(from)]);
    offset += bytesRead;
    if (begun.length > LONGEST) break;
  }
  const first = skipSpace(begun, 0);
  if (!splitter) throw new UserError(`${path}: is not JSON: it is empty.`);
  if (!splitter.complete() || begun.length > LONGEST)
    throw fail(start + first, 'the sample that begins here does not end; a quote or a bracket is missing, or the end of the file');
  if (splitter === lines) finish(new Uint8Array(), true);
  else if (first < begun.length) throw fail(start + first, 'something follows the array');
}
