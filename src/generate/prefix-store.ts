// What was read for earlier prompts, kept within a budget of memory: a prompt that begins alike, such as
// another question about the same picture, goes on from there.

import type { SavedSlot } from '../engine/engine.ts';

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

interface Kept<Row> {
  tokens: ReadTokens;
  row: Row;
}

/** Prefixes by how recently they were of use. Rows belong to the store. */
export class PrefixStore<Row extends SavedSlot> {
  private readonly budget: number;
  /** The least recently used first. */
  private kept: Kept<Row>[] = [];

  /** `budget` in bytes. */
  constructor(budget: number) {
    this.budget = budget;
  }

  /** Bytes that are kept. */
  get bytes(): number {
    return this.kept.reduce((sum, { row }) => sum + row.bytes, 0);
  }

  /** The kept row that shares most of the first tokens, and how many. */
  find(tokens: ReadTokens): { row: Row; length: number } | undefined {
    const { best, length } = this.nearest(tokens);
    if (!best) return undefined;
    this.kept = [...this.kept.filter((each) => each !== best), best];
    return { row: best.row, length };
  }

  /**
   * Keeps what was read of `tokens`, so many bytes, which `save` copies. It takes the place of what shares
   * more than half of its own tokens with it, such as an earlier question about the same picture.
   */
  async keep(tokens: ReadTokens, bytes: number, save: () => Promise<Row>): Promise<void> {
    if (bytes > this.budget || tokens.ids.length === 0) return;
    this.drop(this.kept.filter(({ tokens: old }) => sharedPrefix(old, tokens) * 2 > old.ids.length));
    while (this.bytes + bytes > this.budget) this.drop(this.kept.slice(0, 1));
    const row = await save();
    this.kept.push({ tokens, row });
  }

  private drop(some: readonly Kept<Row>[]): void {
    for (const { row } of some) row.dispose();
    this.kept = this.kept.filter((each) => !some.includes(each));
  }

  private nearest(tokens: ReadTokens): { best?: Kept<Row>; length: number } {
    let best: Kept<Row> | undefined;
    let length = 0;
    for (const each of this.kept) {
      const shared = sharedPrefix(each.tokens, tokens);
      if (shared > length) [best, length] = [each, shared];
    }
    return { best, length };
  }
}
