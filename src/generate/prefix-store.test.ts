import { describe, expect, it } from 'vitest';
import type { SavedSlot } from '../engine/engine.ts';
import { PrefixStore, type ReadTokens, sharedPrefix } from './prefix-store.ts';

const IMAGE = 99;
const tokens = (ids: number[], ...pictures: string[]): ReadTokens => ({ ids, imageToken: IMAGE, imageTokens: 2, pictures });
type Row = SavedSlot & { isDisposed: boolean };
const saved: Row[] = [];
async function row(positions: number): Promise<Row> {
  const one = {
    bytes: 4 * positions,
    isDisposed: false,
    dispose() {
      one.isDisposed = true;
    },
  };
  saved.push(one);
  return one;
}
const keep = (store: PrefixStore<Row>, read: ReadTokens) => store.keep(read, 4 * read.ids.length, () => row(read.ids.length));

describe('sharedPrefix', () => {
  it('looks at the pictures behind the tokens', () => {
    const one = tokens([1, IMAGE, IMAGE, IMAGE, IMAGE, 5], 'a', 'b');
    expect(sharedPrefix(one, one)).toBe(6);
    expect(sharedPrefix(one, tokens([1, IMAGE, IMAGE, IMAGE, IMAGE, 6, 7], 'a', 'b'))).toBe(5);
    expect(sharedPrefix(one, tokens([1, IMAGE, IMAGE, IMAGE, IMAGE, 5], 'a', 'c'))).toBe(3);
    expect(sharedPrefix(one, tokens([1, IMAGE, IMAGE, IMAGE, IMAGE, 5], 'c', 'b'))).toBe(1);
    expect(sharedPrefix(one, tokens([]))).toBe(0);
  });
});

describe('a prefix store', () => {
  it('finds what shares most', async () => {
    const store = new PrefixStore<Row>(1000);
    await keep(store, tokens([1, 2, 3, 4, 5, 6]));
    await keep(store, tokens([1, 2, 9, 9, 9, 9]));
    expect(store.find(tokens([1, 2, 9, 9, 1]))?.length).toBe(4);
    expect(store.find(tokens([1, 2, 3]))?.length).toBe(3);
    expect(store.find(tokens([7]))).toBeUndefined();
  });

  it('keeps one of those that begin alike, and not more than its budget', async () => {
    const store = new PrefixStore<Row>(4 * 12);
    saved.length = 0;
    await keep(store, tokens([1, 2, 3, 4, 5, 6]));
    await keep(store, tokens([1, 2, 3, 4, 7, 8]));
    expect(store.bytes).toBe(24);
    await keep(store, tokens([10, 11, 12, 13, 14, 15]));
    store.find(tokens([1, 2]));
    await keep(store, tokens([20, 21, 22]));
    // the one that was not asked for has gone
    expect(store.bytes).toBe(36);
    expect(saved.map(({ isDisposed }) => isDisposed)).toEqual([true, false, true, false]);
    expect(store.find(tokens([10]))).toBeUndefined();
    expect(store.find(tokens([1, 2, 3, 4]))?.length).toBe(4);
    let copied = false;
    await store.keep(tokens([1]), 1000, () => {
      copied = true;
      return row(1);
    });
    expect(copied).toBe(false);
  });
});
