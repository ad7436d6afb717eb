import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { computeDim, type Dim, dimProduct, dimSum } from './dims.ts';

describe('dims', () => {
  const sizes: Record<string, number> = { batch: 3, past: 5, tokens: 7 };
  /** Written apart from computeDim, which is tested against it. */
  const sizeOf = (dim: Dim): number =>
    String(dim)
      .split('+')
      .map((term) => term.split('*').reduce((product, part) => product * (sizes[part] ?? Number(part)), 1))
      .reduce((a, b) => a + b, 0);
  const atom = fc.oneof(fc.integer({ min: 0, max: 4 }), fc.constantFrom<Dim>(...Object.keys(sizes)));
  const dim = fc.oneof(
    atom,
    fc.array(atom, { minLength: 1, maxLength: 3 }).map(dimSum),
    fc.array(atom, { minLength: 1, maxLength: 3 }).map(dimProduct),
  );
  const dims = fc.array(dim, { minLength: 0, maxLength: 3 });

  test('a product and a sum stand for the product and the sum of the sizes', () => {
    fc.assert(
      fc.property(dims, (list) => {
        expect(sizeOf(dimProduct(list))).toBe(list.map(sizeOf).reduce((a, b) => a * b, 1));
        expect(sizeOf(dimSum(list))).toBe(list.map(sizeOf).reduce((a, b) => a + b, 0));
      }),
    );
  });

  test('equal dims have equal text, in whatever order they were put together', () => {
    fc.assert(
      fc.property(dim, dim, dim, (a, b, c) => {
        expect(dimProduct([a, dimProduct([b, c])])).toBe(dimProduct([dimProduct([c, a]), b]));
        expect(dimSum([a, dimSum([b, c])])).toBe(dimSum([dimSum([c, a]), b]));
        expect(dimProduct([a, dimSum([b, c])])).toBe(dimSum([dimProduct([b, a]), dimProduct([a, c])]));
      }),
    );
  });

  test('canonical forms', () => {
    expect(dimProduct(['tokens', 2, 'batch'])).toBe('2*batch*tokens');
    expect(dimSum(['tokens', 'past'])).toBe('past+tokens');
    expect(dimProduct(['batch', 'past+tokens'])).toBe('batch*past+batch*tokens');
    expect(dimProduct([2, 3])).toBe(6);
  });

  test('a size is computed from names, or from larger parts that are known', () => {
    const arithmetic = (known: Record<string, number>) => ({
      number: (size: number) => size,
      known: (text: string): number | undefined => known[text],
      add: (a: number, b: number) => a + b,
      multiply: (a: number, b: number) => a * b,
    });
    fc.assert(
      fc.property(dim, (one) => {
        expect(computeDim(one, arithmetic(sizes))).toBe(sizeOf(one));
      }),
    );
    expect(computeDim('2*batch*tokens+3', arithmetic({ '2*batch*tokens': 8 }))).toBe(11);
    expect(() => computeDim('2*batch', arithmetic({}))).toThrow('no graph input carries the dimension "batch"');
  });
});
