// Pictures for prompts that come at any time: those that wait are encoded together, one that is asked for
// twice is encoded once, and one that cannot be read hurts only those who asked for it.

import { UserError } from '../errors.ts';
import type { PromptPicture } from './batch-scheduler.ts';
import type { AnsweringModel, Picture } from './session.ts';

/** A picture cannot be read. */
export class PictureError extends UserError {}

/** Pictures encoded together. */
const TOGETHER = 8;

interface Reading {
  key: string;
  picture: Picture;
  resolve(rows: Float32Array): void;
  reject(reason: unknown): void;
}

export interface PictureReader {
  /** PictureError for one that cannot be read. */
  read(picture: Picture): Promise<PromptPicture>;
}

/** Keeps the rows of the `kept` pictures that were asked for last. */
export function createPictureReader(model: Pick<AnsweringModel, 'imageRows' | 'pictureKey'>, kept: number): PictureReader {
  /** By key, the least recently asked for first. */
  const known = new Map<string, Promise<Float32Array>>();
  const waiting: Reading[] = [];
  let isReading = false;

  function rowsOf(key: string, picture: Picture): Promise<Float32Array> {
    const rows =
      known.get(key) ??
      new Promise<Float32Array>((resolve, reject) => {
        waiting.push({ key, picture, resolve, reject });
      });
    known.delete(key);
    known.set(key, rows);
    for (const old of [...known.keys()].slice(0, Math.max(0, known.size - kept))) known.delete(old);
    return rows;
  }

  async function readWaiting(): Promise<void> {
    if (isReading) return;
    isReading = true;
    while (waiting.length > 0) await readTogether(waiting.splice(0, TOGETHER));
    isReading = false;
  }

  async function readTogether(group: readonly Reading[]): Promise<void> {
    try {
      const rows = await model.imageRows(group.map(({ picture }) => picture));
      group.forEach(({ resolve }, i) => {
        resolve(rows[i]);
      });
    } catch (error) {
      // one of them cannot be read: which, each by itself will show
      if (group.length > 1 && error instanceof UserError) for (const one of group) await readTogether([one]);
      else
        for (const { key, reject } of group) {
          known.delete(key);
          reject(error instanceof UserError ? new PictureError(error.message) : error);
        }
    }
  }

  return {
    async read(picture) {
      const key = await model.pictureKey(picture);
      const rows = rowsOf(key, picture);
      void readWaiting();
      return { key, rows: await rows };
    },
  };
}
