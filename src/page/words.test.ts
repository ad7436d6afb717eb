import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { partAt, piecesOf } from './words.ts';

describe('pieces of an answer', () => {
  test('are words, signs and what lies between', () => {
    const words = (text: string) => piecesOf(text).flatMap(({ text, isWord }) => (isWord ? [text] : []));
    expect(words("It's a well-known red apple, isn't it?")).toEqual(["It's", 'a', 'well-known', 'red', 'apple', ',', "isn't", 'it', '?']);
    expect(words('café — 3.5\n→ ok')).toEqual(['café', '—', '3', '.', '5', '→', 'ok']);
  });

  test('are the answer, whatever it is', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (answer) => {
        const pieces = piecesOf(answer);
        expect(pieces.map(({ text }) => text).join('')).toBe(answer);
        for (const { text, start } of pieces) expect(answer.slice(start, start + text.length)).toBe(text);
      }),
    );
  });
});

describe('the part of an explanation', () => {
  const partsOf = (...texts: string[]) => texts.map((text) => ({ text }));

  test('is the one that holds the place', () => {
    const answer = 'a red apple, a red rose';
    const parts = partsOf(answer, 'a', 'red', 'apple', ',', 'a', 'red', 'rose');
    const places = piecesOf(answer).flatMap(({ start, isWord }) => (isWord ? [start] : []));
    expect(places.map((at) => partAt(parts, answer, at))).toEqual([1, 2, 3, 4, 5, 6, 7]);
  });

  test('is the whole answer where it has no others', () => {
    expect(partAt(partsOf('apple'), 'apple', 0)).toBe(0);
  });

  test('is found beside one that is not there', () => {
    expect(partAt(partsOf('a b c', 'a', 'x', 'c'), 'a b c', 4)).toBe(3);
    expect(partAt(partsOf('a b', 'x'), 'a b', 0)).toBe(0);
  });
});
