import { describe, expect, test } from 'vitest';
import { llavaConfigSchema } from '../models/llava.ts';
import { createRandom } from '../random.ts';
import { byPatch, meanMap, normalizedRow, patchLayout, rankCorrelation, ranked, rowsByPatch } from './maps.ts';
import { pieces, wordsOf } from './words.ts';

const text = { model_type: 'gemma', vocab_size: 8, hidden_size: 8 };
const layoutOf = (vision: object, strategy: string) =>
  patchLayout(
    llavaConfigSchema.parse({
      text_config: text,
      vision_feature_select_strategy: strategy,
      vision_config: { image_size: 24, patch_size: 8, ...vision },
    }),
  );

describe('rows', () => {
  test('equations (8) and (9), less the identity that (9) adds', () => {
    const row = normalizedRow([0.1715, 0.29375, 1.2075], 2);
    row[2] += 1;
    expect([...row]).toEqual([0.25492, 0.43664, 1.30844].map((value) => expect.closeTo(value, 5)));
  });

  test('a row of the identity is nothing, not NaN', () => {
    expect([...normalizedRow([0, 1, 0], 1)]).toEqual([0, 0, 0]);
  });
});

describe('patches', () => {
  test('a class token is no patch', () => {
    const layout = layoutOf({ model_type: 'clip_vision_model' }, 'default');
    expect(layout.encoderRows).toBe(10);
    expect([...byPatch([1, 2, 3, 4, 5, 6, 7, 8, 9], layout)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect([...rowsByPatch([99, 1, 2, 3, 4, 5, 6, 7, 8, 9], layout)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    const full = layoutOf({ model_type: 'clip_vision_model' }, 'full');
    expect([...byPatch([99, 1, 2, 3, 4, 5, 6, 7, 8, 9], full)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test('where the first row that is left out is a patch, it has no token', () => {
    const layout = layoutOf({ model_type: 'siglip_vision_model' }, 'default');
    expect([...byPatch([2, 3, 4, 5, 6, 7, 8, 9], layout)]).toEqual([0, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});

describe('ranks', () => {
  test('the largest first, ties in the order of the seed', () => {
    const map = [0, 3, 1, 3, 0, 0];
    const orders = Array.from({ length: 40 }, (_, seed) => ranked(map, createRandom(seed)));
    for (const order of orders) {
      expect(new Set(order.slice(0, 2))).toEqual(new Set([1, 3]));
      expect(order[2]).toBe(2);
    }
    expect(new Set(orders.map(([first]) => first))).toEqual(new Set([1, 3]));
    expect(new Set(orders.map((order) => order[3])).size).toBe(3);
    expect(ranked(map, createRandom(5))).toEqual(orders[5]);
  });

  test('rank correlation', () => {
    expect(rankCorrelation([1, 2, 3, 4], [10, 20, 25, 90])).toBeCloseTo(1);
    expect(rankCorrelation([1, 2, 3, 4], [4, 3, 2, 1])).toBeCloseTo(-1);
    expect(rankCorrelation([1, 2, 3], [5, 5, 5])).toBe(0);
    // ties share their rank: of 1, 2.5, 2.5, 4 with 1, 2, 3, 4
    expect(rankCorrelation([1, 2, 2, 3], [1, 2, 3, 4])).toBeCloseTo(4.5 / Math.sqrt(4.5 * 5));
  });

  test('the mean of maps', () => {
    expect([...meanMap([Float32Array.of(1, 0), Float32Array.of(0, 1)])]).toEqual([0.5, 0.5]);
  });
});

describe('words', () => {
  const tokens = ['▁a', '▁re', 'd', '▁dog', ',', '▁don', "'", 't', '.', '<0xF0>', '<0x9F>', '<0x90>', '<0xB6>'];
  const tokenizer = { token: (id: number) => tokens[id], isSpecial: () => false };
  const ids = tokens.map((_, id) => id);

  test('a character of several tokens comes with the last of them', () => {
    expect(pieces(tokenizer, ids).slice(8)).toEqual(['.', '', '', '', '🐶']);
    expect(pieces(tokenizer, ids.slice(0, -1)).join('')).toContain('�');
  });

  test('white space and punctuation divide', () => {
    const words = wordsOf(pieces(tokenizer, ids));
    expect(words.map(({ text }) => text)).toEqual(['a', 'red', 'dog', ',', 'don', "'", 't', '.🐶']);
    expect(words.reduce((sum, { count }) => sum + count, 0)).toBe(tokens.length);
    words.forEach(({ first, count }, i) => {
      expect(words[i + 1]?.first ?? tokens.length).toBe(first + count);
    });
  });

  test('special tokens stand alone', () => {
    expect(wordsOf(['<bos>', 'user', '\n', 'What'], (token) => token === 0).map(({ text }) => text)).toEqual(['<bos>', 'user', '', 'What']);
  });
});
