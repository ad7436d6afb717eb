// Random weights that cost next to nothing to make: a pool is drawn once, and a tensor consists of pieces
// that begin at random places in it. Speed does not depend on the values, as long as no number overflows.
import { createRandom } from '../../src/random.ts';

/** Standard deviation of the weights, as in a fresh Gemma. */
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

/** Uniformly distributed bytes: two 4-bit weights each. */
export function nibblePool(): Uint8Array {
  if (!nibbles) {
    const random = createRandom(SEED, 'nibbles');
    nibbles = Uint8Array.from({ length: POOL }, () => random.integer(256));
  }
  return nibbles;
}

/**
 * `bytes` bytes from the pool, for the tensor of that name: pieces that begin at a multiple of `block` bytes.
 */
export function* piecesOf(pool: Uint8Array, bytes: number, block: number, name: string): Generator<Uint8Array> {
  const random = createRandom(SEED, name);
  const blocks = pool.length / block;
  for (let left = bytes; left > 0; ) {
    // they begin in the first half: a piece is at least half the pool, so that a large tensor has thousands
    // of pieces, not millions
    const start = random.integer(blocks >> 1) * block;
    const piece = pool.subarray(start, Math.min(pool.length, start + left));
    yield piece;
    left -= piece.length;
  }
}

/** `count` float32 weights from the pool. */
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
