// node:fs/promises over the files of files.ts: the calls that reading and writing model folders make.

import { fileAt, moveTo, namesIn, putFile, removeAt } from '../files.ts';
import { blobSource } from '../sources.ts';
import { missing, type Stats, statsOf } from './fs.ts';

export interface FileHandle {
  stat(): Promise<Stats>;
  read(buffer: Uint8Array, offset: number, length: number, position: number): Promise<{ bytesRead: number; buffer: Uint8Array }>;
  write(data: Uint8Array, offset?: number, length?: number): Promise<{ bytesWritten: number }>;
  sync(): Promise<void>;
  close(): Promise<void>;
}

export async function open(path: string, mode = 'r'): Promise<FileHandle> {
  const isWritten = mode === 'w';
  if (!isWritten && !statsOf(path)) throw missing(path);
  const written: Blob[] = [];
  return {
    stat: async () => statsOf(path)!,
    async read(buffer, offset, length, position) {
      const file = fileAt(path);
      if (!file) throw missing(path);
      const wanted = Math.min(length, file.size - position);
      if (wanted <= 0) return { bytesRead: 0, buffer };
      const bytes = await file.read(position, wanted);
      buffer.set(bytes, offset);
      return { bytesRead: bytes.length, buffer };
    },
    async write(data, offset = 0, length = data.length - offset) {
      // a copy: pieces are overwritten by the next
      written.push(new Blob([data.slice(offset, offset + length) as Uint8Array<ArrayBuffer>]));
      return { bytesWritten: length };
    },
    async sync() {},
    async close() {
      if (isWritten) putFile(path, blobSource(new Blob(written)));
    },
  };
}

export async function readFile(path: string): Promise<Uint8Array> {
  const file = fileAt(path);
  if (!file) throw missing(path);
  if (file.bytes) return file.bytes;
  const bytes = new Uint8Array(file.size);
  for (let done = 0; done < bytes.length; ) {
    const part = await file.read(done, bytes.length - done);
    bytes.set(part, done);
    done += part.length;
  }
  return bytes;
}

export async function stat(path: string): Promise<Stats> {
  const stats = statsOf(path);
  if (!stats) throw missing(path);
  return stats;
}

export const readdir = async (path: string): Promise<string[]> => namesIn(path);
export const rename = async (from: string, to: string): Promise<void> => moveTo(from, to);
export const rm = async (path: string): Promise<void> => removeAt(path);
/** Nobody says how much room there is. */
export const statfs = async () => ({ bavail: 0, bsize: 0, blocks: 0 });
