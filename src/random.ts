// Seeded random numbers for everything that must be reproducible: data, initialization, shuffling, sampling.
// Generator: xoshiro128** (Blackman & Vigna, 2018) seeded through splitmix32; the same on every platform and
// engine.

export interface Random {
  /** Uniform in [0, 1), 32 bits of resolution. */
  uniform(): number;
  /** Integer in [0, n), for n up to 2^32. */
  integer(n: number): number;
  /** Standard normal (Box-Muller). */
  normal(): number;
  /** One element of a non-empty list. */
  pick<T>(list: readonly T[]): T;
  /** A new, shuffled copy (Fisher-Yates). */
  shuffle<T>(list: readonly T[]): T[];
  /** The same, without a copy. */
  shuffleInPlace(list: { length: number; [index: number]: unknown }): void;
  /** The four state words, to be stored in a checkpoint and passed to `restoreRandom`. */
  state(): [number, number, number, number];
}

function splitmix32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
}

/** 32-bit FNV-1a hash of a string: turns a name into a seed. */
export function hashString(text: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/**
 * A generator for the 32-bit `seed`; further `keys` (a stage name, an epoch, an index) give independent
 * streams.
 */
export function createRandom(seed: number, ...keys: (string | number)[]): Random {
  let mixed = seed >>> 0;
  for (const key of keys) mixed = splitmix32(mixed ^ (typeof key === 'number' ? Math.imul(key + 1, 0x85ebca6b) : hashString(key)))();
  const next = splitmix32(mixed);
  return restoreRandom([next(), next(), next(), next()]);
}

/** Continues a generator from the words of `Random.state()`. */
export function restoreRandom(words: readonly [number, number, number, number]): Random {
  let [a, b, c, d] = words;
  const bits = () => {
    let result = Math.imul(b, 5);
    result = Math.imul((result << 7) | (result >>> 25), 9) >>> 0;
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = (d << 11) | (d >>> 21);
    return result;
  };
  const uniform = () => bits() / 4294967296;
  const integer = (n: number) => Math.floor(uniform() * n);
  const shuffleInPlace: Random['shuffleInPlace'] = (list) => {
    for (let i = list.length - 1; i > 0; i--) {
      const j = integer(i + 1);
      [list[i], list[j]] = [list[j], list[i]];
    }
  };
  return {
    uniform,
    integer,
    normal: () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()),
    pick: (list) => list[integer(list.length)],
    shuffle: (list) => {
      const copy = [...list];
      shuffleInPlace(copy);
      return copy;
    },
    shuffleInPlace,
    state: () => [a, b, c, d],
  };
}
