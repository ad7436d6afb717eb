// Room on the disk, asked for before minutes of work end in a full one.
import { UserError } from '../errors.ts';
import { formatBytes } from './format.ts';

/** Throws UserError where the disk of `folder`, which need not be there yet, has no room for `bytes`; `what` begins the sentence. */
export async function checkRoom(folder: string, bytes: number, what: string): Promise<void> {
  const [{ existsSync }, { dirname, resolve }, { freeBytes }] = await Promise.all([
    import('node:fs'),
    import('node:path'),
    import('../disk.ts'),
  ]);
  let existing = resolve(folder);
  while (!existsSync(existing)) existing = dirname(existing);
  const free = await freeBytes(existing);
  if (free < bytes) throw new UserError(`${folder}: ${what} ${formatBytes(bytes)}, but the disk has ${formatBytes(free)} free`);
}
