// Python's random numbers, bit for bit: official scorers draw an answer where they can read none. MT19937
// (Matsumoto and Nishimura 1998) as CPython seeds it with a whole number (Modules/_randommodule.c).

const [SIZE, MIDDLE] = [624, 397];

const step = (previous: number, multiplier: number) => Math.imul(previous ^ (previous >>> 30), multiplier);

/** State after `random.seed(seed)`, for a seed of 32 bits. */
function seeded(seed: number): Uint32Array {
  const state = new Uint32Array(SIZE);
  state[0] = 19650218;
  for (let i = 1; i < SIZE; i++) state[i] = Math.imul(state[i - 1] ^ (state[i - 1] >>> 30), 1812433253) + i;
  let i = 1;
  const next = () => {
    i++;
    if (i < SIZE) return;
    state[0] = state[SIZE - 1];
    i = 1;
  };
  for (let k = 0; k < SIZE; k++) {
    state[i] = (state[i] ^ step(state[i - 1], 1664525)) + seed;
    next();
  }
  for (let k = 1; k < SIZE; k++) {
    state[i] = (state[i] ^ step(state[i - 1], 1566083941)) - i;
    next();
  }
  state[0] = 0x80000000;
  return state;
}

function twist(state: Uint32Array): void {
  for (let i = 0; i < SIZE; i++) {
    const bits = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7fffffff);
    state[i] = state[(i + MIDDLE) % SIZE] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
  }
}

/** Python's `random`, seeded. */
export interface PythonRandom {
  /** `random.getrandbits(bits)`, for up to 32. */
  bits(bits: number): number;
  /** `random.choice(list)`. */
  choice<T>(list: readonly T[]): T;
}

export function pythonRandom(seed: number): PythonRandom {
  const state = seeded(seed);
  let at = SIZE;
  const bits = (count: number) => {
    if (at === SIZE) {
      twist(state);
      at = 0;
    }
    let word = state[at++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return ((word ^ (word >>> 18)) >>> 0) >>> (32 - count);
  };
  const choice = <T>(list: readonly T[]): T => {
    const count = 32 - Math.clz32(list.length);
    let drawn = bits(count);
    while (drawn >= list.length) drawn = bits(count);
    return list[drawn];
  };
  return { bits, choice };
}
