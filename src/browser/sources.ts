// Where the bytes of a file come from: memory, a File that was chosen or dropped, or a server that sends
// parts of files.

import { UserError } from '../errors.ts';

export interface FileSource {
  readonly size: number;
  /** At least one byte, and at most `length`, from `offset` on. */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** All bytes, where they are in memory; the file, where it is one of the browser's. */
  readonly bytes?: Uint8Array;
  readonly blob?: Blob;
}

export function bytesSource(bytes: Uint8Array): FileSource {
  return { size: bytes.length, bytes, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

export function blobSource(blob: Blob): FileSource {
  return {
    size: blob.size,
    blob,
    read: async (offset, length) => new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer()),
  };
}

/**
 * Bytes that a server is asked for at a time: tensors are read one by one, and neighbors lie in one block.
 */
const BLOCK_BYTES = 2 ** 23;
const BLOCKS_KEPT = 4;

export interface HttpOptions {
  /** Of each request: such as who asks. */
  headers?: Readonly<Record<string, string>>;
  signal?: AbortSignal;
}

/** A file on a server, of `size` bytes; `etag` is its version, where the server tells it. */
export function httpSource(url: string, size: number, options: HttpOptions & { etag?: string } = {}): FileSource {
  /** By number, the least recently used first. */
  const blocks = new Map<number, Promise<Uint8Array>>();

  function block(number: number): Promise<Uint8Array> {
    const start = number * BLOCK_BYTES;
    const found = blocks.get(number) ?? fetchRange(url, start, Math.min(size, start + BLOCK_BYTES), options);
    blocks.delete(number);
    blocks.set(number, found);
    found.catch(() => blocks.delete(number));
    for (const old of [...blocks.keys()].slice(0, Math.max(0, blocks.size - BLOCKS_KEPT))) blocks.delete(old);
    return found;
  }

  return {
    size,
    async read(offset, length) {
      const number = Math.floor(offset / BLOCK_BYTES);
      const at = offset - number * BLOCK_BYTES;
      return (await block(number)).subarray(at, at + length);
    },
  };
}

async function fetchRange(
  url: string,
  start: number,
  end: number,
  { signal, headers, etag }: HttpOptions & { etag?: string },
): Promise<Uint8Array> {
  const response = await ask(url, { signal, headers: { ...headers, Range: `bytes=${start}-${end - 1}` } });
  if (response.status !== 206) throw new UserError(`${url}: the server answered ${response.status} in place of a part of the file`);
  // not If-Range, which another site's server would have to allow
  if (etag !== undefined && (response.headers.get('ETag') ?? etag) !== etag)
    throw new UserError(`${url}: the file has changed on the server since it was opened; load it again`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (bytes.length !== end - start)
    throw new UserError(`${url}: the server sent ${bytes.length} bytes in place of ${end - start}; load it again`);
  return bytes;
}

/** The answer of a server. UserError, naming the file, where there is none. */
export async function ask(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    init.signal?.throwIfAborted();
    throw new UserError(`${url}: cannot be fetched: ${(error as Error).message}; is the server there, and does it allow this page (CORS)?`);
  }
}
