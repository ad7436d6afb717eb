// Replies on disk, by content: what was asked once is neither asked nor paid for again, whichever run asks.
// One small JSON file a reply, named by the sha-256 of the request and holding both. It is written beside its
// place and renamed into it: a process that is killed leaves whole entries only, and processes at the same
// time do each other no harm.

import { hash } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { z } from 'zod';
import { makeFolder } from '../disk.ts';
import { reasonOf, UserError } from '../errors.ts';

/** Where replies are kept unless another folder is named. */
export const REPLIES_FOLDER = '.cache/replies';

/**
 * Replies of type `T`. Requests are plain JSON, and equal if they are written alike: whoever makes them puts
 * their fields in one order.
 */
export interface ReplyCache<T> {
  /** Undefined for what was never asked, and for an entry that a dying disk cut short. */
  find(request: object): Promise<T | undefined>;
  /** UserError where the disk refuses. */
  keep(request: object, reply: T): Promise<void>;
}

/** Tells the unfinished files of one process apart. */
let written = 0;

export function openReplyCache<T>(folder: string, schema: z.ZodType<T>): ReplyCache<T> {
  const pathOf = (text: string) => {
    const key = hash('sha256', text, 'hex');
    return join(folder, key.slice(0, 2), `${key}.json`);
  };

  async function find(request: object): Promise<T | undefined> {
    const text = JSON.stringify(request);
    const path = pathOf(text);
    try {
      const entry = JSON.parse(await readFile(path, 'utf8'));
      return JSON.stringify(entry.request) === text ? schema.safeParse(entry.reply).data : undefined;
    } catch (error) {
      if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new UserError(`${path}: ${reasonOf(error)}`, { cause: error });
    }
  }

  async function keep(request: object, reply: T): Promise<void> {
    const path = pathOf(JSON.stringify(request));
    const partial = `${path}.${process.pid}-${written++}.tmp`;
    makeFolder(dirname(path));
    try {
      await writeFile(partial, `${JSON.stringify({ request, reply })}\n`);
      await rename(partial, path);
    } catch (error) {
      await rm(partial, { force: true }).catch(() => {});
      throw new UserError(`${path}: ${reasonOf(error)}`, { cause: error });
    }
  }

  return { find, keep };
}
