// The speed of float32 products alone, through our engine: what the ratio of two training steps has to be
// read beside, since some nine tenths of a large step are products.

import { setTimeout as sleep } from 'node:timers/promises';
import { float32 } from '../../src/engine/engine.ts';
import { createOrtEngine } from '../../src/engine/ort.ts';
import { matmul, slice } from '../../src/graph/primitives.ts';
import { input } from '../../src/graph/tensor.ts';
import type { TorchServer } from '../peers/torch.ts';
import { median, PAUSE, round } from '../statistics.ts';

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
const PRODUCTS_PER_TURN = 6;

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

export interface ProductTurns {
  /** One turn of each side. */
  take(): Promise<void>;
  /**
   * GFLOP/s, medians of all turns: float32 products by our engine, and PyTorch's in the precisions asked for.
   */
  speeds(): { ours_fp32: number; torch_fp32: number; torch_bf16: number | undefined };
}

/** Measures a product on both sides in turns; `server` answers as bench/peers/torch_server.py. */
export async function productTurns(
  product: Product,
  server: TorchServer,
  { bf16 = true, ...options }: { threads: number; spin: boolean; bf16?: boolean },
): Promise<ProductTurns> {
  const torch = (precision: string) => async (count: number) => (await server.request<{ ms: number[] }>({ product, precision, count })).ms;
  const ours = await productSide(product, options);
  const sides = [ours, torch('fp32'), ...(bf16 ? [torch('bf16')] : [])].map((take) => ({ take, ms: [] as number[] }));
  return {
    async take() {
      for (const { take, ms } of sides) {
        await sleep(PAUSE);
        ms.push(...(await take(1 + PRODUCTS_PER_TURN)).slice(1));
      }
    },
    speeds() {
      const [ours_fp32, torch_fp32, torch_bf16] = sides.map(({ ms }) => round(gflops(product, median(ms)), 1));
      return { ours_fp32, torch_fp32, torch_bf16 };
    },
  };
}
