// What was read for earlier prompts, kept within a budget of memory: a prompt that begins alike, such as
// another question about the same picture, goes on from there.

import { type KvRow, kvRowBytes } from './kv-slots.ts';

/** Tokens as a cache has read them: an image token is one of its picture's. */
export interface ReadTokens {
  ids: readonly number[];
  imageToken: number;
  imageTokens: number;
  /** A key for each picture, in the order of the image tokens. */
  pictures: readonly string[];
}

/** How many of the first tokens are the same, pictures included. */
export function sharedPrefix(a: ReadTokens, b: ReadTokens): number {
  const limit = Math.min(a.ids.length, b.ids.length);
  let places = 0;
  for (let t = 0; t < limit; t++) {
    if (a.ids[t] !== b.ids[t]) return t;
    if (a.ids[t] !== a.imageToken) continue;
    const picture = Math.floor(places++ / a.imageTokens);
    if (a.pictures[picture] !== b.pictures[picture]) return t;
  }
  return limit;
}

interface Kept {
  tokens: ReadTokens;
  row: KvRow;
  bytes: number;
}

/** Prefixes by how recently they were of use. */
export class PrefixStore {
  private readonly budget: number;
  /** The least recently used first. */
  private kept: Kept[] = [];

  /** `budget` in bytes. */
  constructor(budget: number) {
    this.budget = budget;
  }

  /** Bytes that are kept. */
  get bytes(): number {
    return this.kept.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The kept row that shares most of the first tokens, and how many. */
  find(tokens: ReadTokens): { row: KvRow; length: number } | undefined {
    const { best, length } = this.nearest(tokens);
    if (!best) return undefined;
    this.kept = [...this.kept.filter((each) => each !== best), best];
    return { row: best.row, length };
  }

  /**
   * Keeps what was read of `tokens`, which `read` copies. It takes the place of what shares more than half of
   * its own tokens with it, such as an earlier question about the same picture.
   */
  keep(tokens: ReadTokens, bytes: number, read: () => KvRow): void {
    if (bytes > this.budget || tokens.ids.length === 0) return;
    this.kept = this.kept.filter(({ tokens: old }) => sharedPrefix(old, tokens) * 2 <= old.ids.length);
    const row = read();
    this.kept.push({ tokens, row, bytes: kvRowBytes(row) });
    while (this.bytes > this.budget) this.kept.shift();
  }

  private nearest(tokens: ReadTokens): { best?: Kept; length: number } {
    let best: Kept | undefined;
    let length = 0;
    for (const each of this.kept) {
      const shared = sharedPrefix(each.tokens, tokens);
      if (shared > length) [best, length] = [each, shared];
    }
    return { best, length };
  }
}
