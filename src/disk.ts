// Free space on a disk.
import { statfs } from 'node:fs/promises';

/**
 * Bytes free for this user on the disk of `folder`, which must exist; Infinity if the file system does not
 * report it, as with some network file systems.
 */
export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize, blocks } = await statfs(folder);
  return blocks > 0 ? bavail * bsize : Number.POSITIVE_INFINITY;
}
