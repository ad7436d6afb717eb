// Files that are sent from the disk, whole or in parts: those that are too large to be held in memory.

import { type FileHandle, open, stat } from 'node:fs/promises';
import { ApiError } from './errors.ts';

export interface DiskFile {
  path: string;
  /** Its media type. */
  type: string;
}

/** Bytes that are read at a time. */
const CHUNK = 2 ** 16;

/** The bytes from `start` to before `end`. The file is opened when the first of them are wanted. */
function bytesOf(path: string, start: number, end: number): ReadableStream<Uint8Array> {
  let file: FileHandle | undefined;
  let at = start;
  return new ReadableStream(
    {
      async pull(controller) {
        file ??= await open(path);
        const { bytesRead, buffer } = await file.read(new Uint8Array(Math.min(CHUNK, end - at)), 0, undefined, at);
        at += bytesRead;
        if (bytesRead > 0) controller.enqueue(buffer.subarray(0, bytesRead));
        else controller.error(new Error(`${path} has become shorter while it was sent`));
        if (bytesRead > 0 && at < end) return;
        await file.close();
        if (bytesRead > 0) controller.close();
      },
      cancel: () => file?.close(),
    },
    { highWaterMark: 0 },
  );
}

/**
 * The one part that a Range header names, of a file of `size` bytes; undefined where all of it is to be sent
 * (no such header, several parts, other units), and `none` where there is no such part.
 */
export function rangeOf(header: string | undefined, size: number): { start: number; end: number } | 'none' | undefined {
  const [, from = '', to = ''] = /^bytes=(\d*)-(\d*)$/.exec(header ?? '') ?? [];
  if (from === '' && to === '') return undefined;
  const start = from === '' ? Math.max(0, size - Number(to)) : Number(from);
  const end = from === '' || to === '' ? size : Math.min(size, Number(to) + 1);
  return start < end ? { start, end } : 'none';
}

/**
 * Sends a file, the part of it that is asked for, or that it is the one that the client has. ApiError 404.
 */
export async function diskFileResponse(
  { path, type }: DiskFile,
  asked: (header: string) => string | undefined,
  headers: Readonly<Record<string, string>>,
): Promise<Response> {
  const found = await stat(path).catch(() => undefined);
  if (!found?.isFile()) throw new ApiError(404, 'the file is not there any more', { code: 'unknown_url' });
  const { size, mtimeMs } = found;
  const etag = `"${size.toString(36)}-${Math.round(mtimeMs * 1000).toString(36)}"`;
  const all = { ...headers, 'Content-Type': type, 'Accept-Ranges': 'bytes', ETag: etag };
  if (asked('if-none-match') === etag) return new Response(null, { status: 304, headers: all });
  // parts of another version would not fit those that the client has
  const range = (asked('if-range') ?? etag) === etag ? rangeOf(asked('range'), size) : undefined;
  if (range === 'none') return new Response(null, { status: 416, headers: { ...all, 'Content-Range': `bytes */${size}` } });
  const { start, end } = range ?? { start: 0, end: size };
  const part = range && { 'Content-Range': `bytes ${start}-${end - 1}/${size}` };
  return new Response(start === end ? null : bytesOf(path, start, end), {
    status: range ? 206 : 200,
    headers: { ...all, ...part, 'Content-Length': String(end - start) },
  });
}
