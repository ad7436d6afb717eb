// The speed of float32 products alone, through our engine: what the ratio of two training steps has to be
// read beside, since some nine tenths of a large step are products.

import { float32 } from '../../src/engine/engine.ts';
import { createOrtEngine } from '../../src/engine/ort.ts';
import { matmul, slice } from '../../src/graph/primitives.ts';
import { input } from '../../src/graph/tensor.ts';

/** a [m, k] times b [k, n], or times the transpose of b [n, k]. */
export interface Product {
  m: number;
  k: number;
  n: number;
  transB: boolean;
}

/** A product as large as any, at which a library shows what it can do. */
export const LARGE_PRODUCT: Product = { m: 1024, k: 1024, n: 4096, transB: false };

/** Products a turn asks for, after one that is left out. */
export const PRODUCTS_PER_TURN = 6;

export const describeProduct = ({ m, k, n, transB }: Product) => `${m} x ${k} x ${n}${transB ? ', weight transposed' : ''}`;

/** GFLOP/s of a product that took `ms`. */
export const gflops = ({ m, k, n }: Product, ms: number) => (2 * m * k * n) / ms / 1e6;

/**
 * Measures a product: ms of each of `count`. Only its first row is read back, so that no time goes into
 * copying the result.
 */
export async function productSide(
  product: Product,
  options: { threads: number; spin: boolean },
): Promise<(count: number) => Promise<number[]>> {
  const { m, k, n, transB } = product;
  const dims = { a: [m, k], b: transB ? [n, k] : [k, n] };
  const y = matmul(input('a', 'float32', dims.a), input('b', 'float32', dims.b), { transB });
  const program = await createOrtEngine(options).compile({ row: slice(y, 0, 0, 1) });
  const values = Object.fromEntries(
    Object.entries(dims).map(([name, dims]) => [
      name,
      float32(
        new Float32Array(dims[0] * dims[1]).map((_, i) => Math.sin(i)),
        dims,
      ),
    ]),
  );
  return async (count) => {
    const times: number[] = [];
    for (let i = 0; i < count; i++) {
      const start = performance.now();
      await program.run(values);
      times.push(performance.now() - start);
    }
    return times;
  };
}
