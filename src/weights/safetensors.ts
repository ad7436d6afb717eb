// The safetensors file format: an 8-byte little-endian header length, a JSON header, then the tensors' bytes
// without gaps. Follows the format section of the safetensors README; its limits are enforced (header at most
// 100 MB, no holes, no overlaps), so that a hostile file causes an error message and does not exhaust memory.
import type { FileHandle } from 'node:fs/promises';
import { open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { UserError } from '../errors.ts';
import { checkStamp, stampOf } from '../file-stamp.ts';
import { refusePointer } from '../git-lfs.ts';
import { bytesPerElement, type StoredDType } from './dtype.ts';

export type { StoredDType } from './dtype.ts';

/** One tensor as stored in a file: row-major, little-endian bytes. */
export interface StoredTensor {
  dtype: StoredDType;
  shape: number[];
  data: Uint8Array;
}

export interface TensorInfo {
  dtype: StoredDType;
  shape: number[];
}

/**
 * A tensor to be written: all of its bytes, or a function that yields them piece by piece when its turn
 * comes, so that large tensors are never whole in memory.
 */
export interface TensorSource extends TensorInfo {
  data: Uint8Array | (() => Iterable<Uint8Array> | AsyncIterable<Uint8Array>);
}

export interface SafetensorsFile {
  path: string;
  /** Size on disk. */
  bytes: number;
  /** Of the file as it was opened (file-stamp.ts). */
  stamp: string;
  /** Tensor names in the order of their data. */
  names: string[];
  metadata: Record<string, string>;
  /** Dtype and shape of a tensor; UserError if the file has none of that name. */
  info(name: string): TensorInfo;
  /** Where a tensor's bytes begin in the file. */
  offset(name: string): number;
  /** Reads one tensor's bytes into a buffer of its own. */
  read(name: string): Promise<StoredTensor>;
  /**
   * One tensor's bytes in order, piece by piece; a piece holds whole elements and at most `pieceBytes`. The
   * next piece overwrites it: on some machines, fresh memory costs more than processing the numbers.
   */
  pieces(name: string): AsyncGenerator<Uint8Array>;
  close(): Promise<void>;
}

interface Entry extends TensorInfo {
  name: string;
  begin: number;
  end: number;
}

const maxHeaderBytes = 100_000_000;
/** Node reads and writes at most 2^31 - 1 bytes per call. */
const chunkBytes = 2 ** 30;
/** Bytes in memory at a time when a tensor is streamed: a multiple of every element size. */
export const pieceBytes = 2 ** 22;

function reason(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT') return 'no such file';
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied';
  if (code === 'EISDIR') return 'it is a folder';
  return code ?? String(error);
}

// Not from Node's buffer pool: the bytes must start aligned, so that a Float32Array can view them. In Node
// they need not be zero first.
const alignedBytes = (length: number): Uint8Array => globalThis.Buffer?.allocUnsafeSlow(length) ?? new Uint8Array(length);

async function readRange(
  handle: FileHandle,
  path: string,
  what: string,
  position: number,
  length: number,
  bytes = alignedBytes(length),
): Promise<Uint8Array> {
  let done = 0;
  while (done < length) {
    let bytesRead: number;
    try {
      ({ bytesRead } = await handle.read(bytes, done, Math.min(chunkBytes, length - done), position + done));
    } catch (error) {
      throw new UserError(`${path}: cannot read ${what}: ${reason(error)}`);
    }
    if (bytesRead === 0) throw new UserError(`${path}: the file ends inside ${what}; copy or download it again`);
    done += bytesRead;
  }
  return bytes;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

function parseEntry(path: string, name: string, value: unknown): Entry {
  const bad = (what: string) => new UserError(`${path}: tensor ${JSON.stringify(name)}: ${what}`);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('its header entry is not an object');
  const { dtype, shape, data_offsets: offsets } = value as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(bytesPerElement, dtype)) {
    throw bad(`dtype ${JSON.stringify(dtype)} is not supported (only ${Object.keys(bytesPerElement).join(', ')})`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) throw bad('its shape is not a list of non-negative integers');
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0] > offsets[1]) {
    throw bad('data_offsets is not a pair [begin, end] of byte positions');
  }
  const [begin, end] = offsets as [number, number];
  const bytes = elementCount(shape) * bytesPerElement[dtype as StoredDType];
  if (bytes !== end - begin) throw bad(`${dtype} of shape [${shape}] needs ${bytes} bytes, but data_offsets span ${end - begin}`);
  return { name, dtype: dtype as StoredDType, shape, begin, end };
}

/**
 * Limits on the characters of one tensor's entry in the header, and of `__metadata__`: far more than any file
 * needs.
 */
const maxEntryLength = 10_000;
const maxMetadataLength = 10_000_000;

/**
 * Name and value of each entry of the header, in order. The values are located first and parsed one at a
 * time: JSON.parse of a whole hostile header, which may be 100 MB of brackets, would take gigabytes before
 * anything could be checked. Throws SyntaxError.
 */
function* headerEntries(text: string): Generator<[name: string, value: unknown]> {
  let at = 0;
  const skipSpace = () => {
    while (' \t\n\r'.includes(text[at] ?? '-')) at++;
  };
  const expect = (token: string) => {
    skipSpace();
    if (text[at] !== token) throw new SyntaxError(`expected ${token} at ${at}`);
    at++;
  };
  const skipString = () => {
    expect('"');
    while (at < text.length && text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    at++;
  };
  expect('{');
  skipSpace();
  if (text[at] === '}') at++;
  else {
    do {
      skipSpace();
      const nameAt = at;
      skipString();
      const name = JSON.parse(text.slice(nameAt, at)) as string;
      expect(':');
      skipSpace();
      const valueAt = at;
      const longest = name === '__metadata__' ? maxMetadataLength : maxEntryLength;
      if (at < text.length && text[at] !== '{') yield [name, undefined];
      while (text[at] !== '}') {
        if (at >= text.length || at - valueAt > longest) throw new SyntaxError(`no end of the entry at ${valueAt}`);
        if (text[at] === '"') skipString();
        else at++;
      }
      at++;
      yield [name, JSON.parse(text.slice(valueAt, at))];
      skipSpace();
    } while (text[at++] === ',');
    if (text[at - 1] !== '}') throw new SyntaxError(`expected } at ${at - 1}`);
  }
  skipSpace();
  if (at < text.length) throw new SyntaxError(`something follows at ${at}`);
}

function parseHeader(path: string, bytes: Uint8Array, dataBytes: number): { entries: Entry[]; metadata: Record<string, string> } {
  const damaged = (what: string) => new UserError(`${path}: the header is ${what}; this is not a safetensors file, or it is damaged`);
  let metadata: Record<string, string> = {};
  const entries: Entry[] = [];
  const names = new Set<string>();
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (text[0] !== '{') throw damaged('not a JSON object');
    for (const [name, value] of headerEntries(text)) {
      if (names.has(name)) throw new UserError(`${path}: tensor ${JSON.stringify(name)} is in the header twice`);
      names.add(name);
      if (name !== '__metadata__') {
        entries.push(parseEntry(path, name, value));
        continue;
      }
      const isText = typeof value === 'object' && value !== null && Object.values(value).every((text) => typeof text === 'string');
      if (!isText) throw new UserError(`${path}: __metadata__ in the header is not an object of strings`);
      metadata = value as Record<string, string>;
    }
  } catch (error) {
    throw error instanceof UserError ? error : damaged('not valid JSON');
  }
  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  let position = 0;
  for (const { name, begin, end } of entries) {
    if (begin !== position) {
      const what = begin < position ? 'overlaps the tensor before it' : `leaves a gap of ${begin - position} bytes before it`;
      throw new UserError(`${path}: tensor ${JSON.stringify(name)} ${what}; the header is damaged`);
    }
    if (end > dataBytes) {
      throw new UserError(
        `${path}: tensor ${JSON.stringify(name)} ends at byte ${end} of ${dataBytes}: the file is cut short; copy or download it again`,
      );
    }
    position = end;
  }
  if (position !== dataBytes) throw new UserError(`${path}: ${dataBytes - position} bytes at the end belong to no tensor`);
  return { entries, metadata };
}

/**
 * Opens a safetensors file and reads only its header; tensors are read one at a time, by name. Throws
 * UserError, naming file and tensor, for anything that the format does not allow.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  let handle: FileHandle;
  try {
    handle = await open(path, 'r');
  } catch (error) {
    throw new UserError(`${path}: cannot open it: ${reason(error)}`);
  }
  try {
    const stat = await handle.stat();
    if (!stat.isFile()) throw new UserError(`${path}: cannot open it: ${stat.isDirectory() ? 'it is a folder' : 'it is not a file'}`);
    if (stat.size < 8) throw new UserError(`${path}: ${stat.size} bytes are too few for a safetensors file`);
    const lengthBytes = await readRange(handle, path, 'the header length', 0, 8);
    const headerBytes = Number(new DataView(lengthBytes.buffer, lengthBytes.byteOffset).getBigUint64(0, true));
    if (headerBytes > maxHeaderBytes) {
      // a text in place of the file: its first letters make a large number
      const isText = lengthBytes.every((byte) => byte >= 0x20 && byte < 0x7f);
      if (isText) refusePointer(await readRange(handle, path, 'its beginning', 0, Math.min(512, stat.size)), path);
      if (/^\s*<(!docty|html)/i.test(new TextDecoder().decode(lengthBytes)))
        throw new UserError(`${path}: it is a page of the web, such as a download leaves that failed; download it again`);
      throw new UserError(`${path}: a header of ${headerBytes} bytes is over the limit of 100 MB; this is not a safetensors file`);
    }
    if (headerBytes > stat.size - 8) throw new UserError(`${path}: the file ends inside the header; copy or download it again`);
    const dataStart = 8 + headerBytes;
    const header = await readRange(handle, path, 'the header', 8, headerBytes);
    const { entries, metadata } = parseHeader(path, header, stat.size - dataStart);
    const byName = new Map(entries.map((entry) => [entry.name, entry]));
    const find = (name: string) => {
      const entry = byName.get(name);
      if (!entry) throw new UserError(`${path}: it has no tensor ${JSON.stringify(name)}`);
      return entry;
    };
    return {
      path,
      bytes: stat.size,
      stamp: stampOf(stat),
      names: entries.map((entry) => entry.name),
      metadata,
      info: (name) => ({ dtype: find(name).dtype, shape: [...find(name).shape] }),
      offset: (name) => dataStart + find(name).begin,
      read: async (name) => {
        const { dtype, shape, begin, end } = find(name);
        const data = await readRange(handle, path, `tensor ${JSON.stringify(name)}`, dataStart + begin, end - begin);
        return { dtype, shape: [...shape], data };
      },
      async *pieces(name) {
        const { begin, end } = find(name);
        const buffer = alignedBytes(Math.min(pieceBytes, end - begin));
        for (let at = begin; at < end; at += pieceBytes) {
          const bytes = buffer.subarray(0, Math.min(pieceBytes, end - at));
          yield await readRange(handle, path, `tensor ${JSON.stringify(name)}`, dataStart + at, bytes.length, bytes);
        }
      },
      close: () => handle.close(),
    };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/**
 * `length` bytes of a file from byte `offset` on, piece by piece; each piece is overwritten by the next.
 * UserError, naming the file, if it is shorter, or is no longer the one that had this stamp.
 */
export async function* filePieces(path: string, offset: number, length: number, stamp?: string): AsyncGenerator<Uint8Array> {
  const handle = await open(path, 'r').catch((error: unknown) => {
    throw new UserError(`${path}: cannot open it: ${reason(error)}`);
  });
  try {
    checkStamp(path, await handle.stat(), stamp);
    const buffer = alignedBytes(Math.min(pieceBytes, length));
    for (let at = 0; at < length; at += pieceBytes) {
      const bytes = buffer.subarray(0, Math.min(pieceBytes, length - at));
      yield await readRange(handle, path, 'a tensor', offset + at, bytes.length, bytes);
    }
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) done += (await handle.write(bytes, done, Math.min(chunkBytes, bytes.length - done))).bytesWritten;
}

/**
 * Writes `path` completely or not at all, even if the machine stops halfway: to a temporary file next to it,
 * which is flushed to disk, then renamed. `chunks` are requested one at a time. Throws UserError if the disk
 * is full or not writable.
 */
export async function writeFileAtomically(path: string, chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void> {
  const temporary = `${path}.incomplete-${process.pid}`;
  let handle: FileHandle | undefined;
  try {
    handle = await open(temporary, 'w');
    for await (const chunk of chunks) await writeAll(handle, chunk);
    await handle.sync();
    await handle.close();
    handle = undefined;
    await rename(temporary, path);
  } catch (error) {
    await handle?.close().catch(() => {});
    await rm(temporary, { force: true }).catch(() => {});
    if (error instanceof UserError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === undefined) throw error;
    if (code === 'ENOSPC' || code === 'EDQUOT') throw new UserError(`${path}: the disk is full; free some space and write it again`);
    if (code === 'ENOENT') throw new UserError(`${path}: cannot write it: no folder ${dirname(path)}`);
    throw new UserError(`${path}: cannot write it: ${reason(error)}`);
  }
}

/**
 * Writes a safetensors file, atomically. Data are ordered by element size, largest first, then by name, as in
 * the reference writer: every tensor starts aligned, and the same tensors give the same bytes. A tensor's
 * `data` is requested once, when it is written. UserError if it is not as long as its shape says.
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, TensorSource>,
  metadata: Record<string, string> = {},
): Promise<void> {
  const order = [...tensors].sort(
    ([nameA, a], [nameB, b]) => bytesPerElement[b.dtype] - bytesPerElement[a.dtype] || (nameA < nameB ? -1 : nameA > nameB ? 1 : 0),
  );
  // A Map, because a plain object would move a tensor named "0" forward and lose one named "__proto__".
  const header: string[] = [];
  if (Object.keys(metadata).length > 0) header.push(`"__metadata__":${JSON.stringify(metadata)}`);
  let position = 0;
  for (const [name, { dtype, shape }] of order) {
    if (name === '__metadata__') throw new UserError(`${path}: no tensor can be called __metadata__`);
    const end = position + elementCount(shape) * bytesPerElement[dtype];
    header.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [position, end] })}`);
    position = end;
  }
  const json = new TextEncoder().encode(`{${header.join(',')}}`);
  const start = new Uint8Array(8 + Math.ceil(json.length / 8) * 8).fill(0x20);
  new DataView(start.buffer).setBigUint64(0, BigInt(start.length - 8), true);
  start.set(json, 8);

  async function* chunks() {
    yield start;
    for (const [name, { dtype, shape, data }] of order) {
      const bytes = elementCount(shape) * bytesPerElement[dtype];
      let given = 0;
      for await (const piece of data instanceof Uint8Array ? [data] : data()) {
        given += piece.byteLength;
        if (given > bytes) break;
        yield piece;
      }
      if (given !== bytes)
        throw new UserError(`${path}: tensor ${JSON.stringify(name)}: ${dtype} of shape [${shape}] needs ${bytes} bytes, given ${given}`);
    }
  }
  await writeFileAtomically(path, chunks());
}
