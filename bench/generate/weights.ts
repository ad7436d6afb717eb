// Random weights that cost next to nothing to make: a pool is drawn once, and a tensor is pieces of it from
// random places on. Speed does not depend on the values, as long as no number overflows.
import { createRandom } from '../../src/random.ts';

/** Standard deviation of the weights, as a fresh Gemma has it. */
export const WEIGHT_STD = 0.02;
const SEED = 42;
/** Weights in the pool. */
const POOL = 2 ** 20;

let pool: Float32Array | undefined;

/** Normal weights, the same at every call. */
export function floatPool(): Float32Array {
  if (!pool) {
    const random = createRandom(SEED, 'pool');
    pool = Float32Array.from({ length: POOL }, () => WEIGHT_STD * random.normal());
  }
  return pool;
}

let nibbles: Uint8Array | undefined;

/** Evenly distributed bytes: two 4-bit weights each. */
export function nibblePool(): Uint8Array {
  if (!nibbles) {
    const random = createRandom(SEED, 'nibbles');
    nibbles = Uint8Array.from({ length: POOL }, () => random.integer(256));
  }
  return nibbles;
}

/**
 * `bytes` bytes out of the pool, for the tensor of that name: pieces that begin at a multiple of `block`
 * bytes.
 */
export function* piecesOf(pool: Uint8Array, bytes: number, block: number, name: string): Generator<Uint8Array> {
  const random = createRandom(SEED, name);
  const blocks = pool.length / block;
  for (let left = bytes; left > 0; ) {
    // from the first half on: a piece is at least half the pool, so that a large tensor is thousands of
    // pieces and not millions
    const start = random.integer(blocks >> 1) * block;
    const piece = pool.subarray(start, Math.min(pool.length, start + left));
    yield piece;
    left -= piece.length;
  }
}

/** `count` float32 weights out of the pool. */
export function floatsOf(count: number, name: string): Float32Array {
  const values = new Float32Array(count);
  const bytes = new Uint8Array(values.buffer);
  let offset = 0;
  for (const piece of piecesOf(new Uint8Array(floatPool().buffer), bytes.length, 4, name)) {
    bytes.set(piece, offset);
    offset += piece.length;
  }
  return values;
}
