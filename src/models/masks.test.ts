import { describe, expect, test } from 'vitest';
import { evaluateReference } from '../engine/reference-ops.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { causalBias, packedBias } from './masks.ts';

describe('attention masks', () => {
  const row = (values: number[]) => ({ dims: [1, values.length], data: Float64Array.from(values) });
  const ids = (name: string) => input(name, 'int32', [1, name]);

  /** What each query sees: a string of 1 and 0 per query. */
  function seen(bias: Tensor, inputs: Record<string, ReturnType<typeof row>>): string[] {
    const { dims, data } = evaluateReference({ bias }, inputs).bias;
    const keys = dims[3];
    return Array.from({ length: dims[2] }, (_, query) =>
      [...data.slice(query * keys, (query + 1) * keys)].map((v) => Number(v === 0)).join(''),
    );
  }

  test('causal: keys up to the own position, wherever they stand', () => {
    const inputs = { tokens: row([2, 3]), keys: row([0, 1, 1 << 30, 2, 3]) };
    expect(seen(causalBias(ids('tokens'), ids('keys'))(), inputs)).toEqual(['11010', '11011']);
  });

  test('causal with a window: that many positions, the own one included', () => {
    const bias = causalBias(ids('tokens'), ids('keys'));
    const inputs = { tokens: row([2, 3]), keys: row([0, 1, 1 << 30, 2, 3]) };
    expect(seen(bias(2), inputs)).toEqual(['01010', '00011']);
    expect(seen(bias(1), inputs)).toEqual(['00010', '00001']);
    expect(seen(bias(3), inputs)).toEqual(['11010', '01011']);
    expect(seen(bias(100), inputs)).toEqual(seen(bias(), inputs));
  });

  test('layers with the same window share one tensor', () => {
    const bias = causalBias(ids('tokens'), ids('tokens'));
    expect(bias(4)).toBe(bias(4));
    expect(bias()).toBe(bias());
    expect(bias(4)).not.toBe(bias(5));
    expect(bias(4)).not.toBe(bias());
  });

  describe('packed', () => {
    const tokens = (name: string) => input(name, 'int32', [1, 'tokens']);
    const bias = packedBias({ positionIds: tokens('positions'), sampleIds: tokens('samples'), branchIds: tokens('branches') });
    // a prefix of two with branches of two and one, then another sample of two, then padding
    const inputs = {
      positions: row([0, 1, 2, 3, 2, 0, 1, 0]),
      samples: row([1, 1, 1, 1, 1, 2, 2, 0]),
      branches: row([0, 0, 1, 1, 2, 1, 1, 0]),
    };

    test('prefix and own branch, never another branch or sample', () => {
      expect(seen(bias(), inputs)).toEqual([
        '10000000',
        '11000000',
        '11100000',
        '11110000',
        '11001000',
        '00000100',
        '00000110',
        '00000001',
      ]);
    });

    test('a window counts positions, so a second branch sees as much of the prefix as the first', () => {
      expect(seen(bias(2), inputs)).toEqual([
        '10000000',
        '11000000',
        '01100000',
        '00110000',
        '01001000',
        '00000100',
        '00000110',
        '00000001',
      ]);
    });
  });
});
