// Numbers by digest, in typed arrays: for as many pictures as a data file may name, where a Map of texts
// would take more memory than all else. Open addressing with linear steps (Knuth, TAOCP 3, 6.4).

/** Bytes of a digest that tell texts apart: that two of a million share them is one chance in 10^26. */
const KEY_WORDS = 4;
const KEY_BYTES = 4 * KEY_WORDS;
/** Most of the places that may be taken, so that searches stay short. */
const FULL = 0.7;

export interface DigestTable {
  readonly size: number;
  /** The number that `digest`, a hash of 16 bytes or more, was given last; undefined for none. */
  get(digest: Uint8Array): number | undefined;
  /** Gives a digest a number, 0 to 2^32 - 2. */
  set(digest: Uint8Array, number: number): void;
}

export function createDigestTable(): DigestTable {
  let places = 1024;
  let keys = new Uint32Array(places * KEY_WORDS);
  // one more than the number; 0 where the place is free
  let numbers = new Uint32Array(places);
  let size = 0;
  const key = new Uint32Array(KEY_WORDS);
  const keyBytes = new Uint8Array(key.buffer);
  /** Where `key` is, or would be put. */
  const find = (): number => {
    for (let place = key[0] & (places - 1); ; place = (place + 1) & (places - 1)) {
      if (numbers[place] === 0) return place;
      let word = 0;
      while (word < KEY_WORDS && keys[place * KEY_WORDS + word] === key[word]) word++;
      if (word === KEY_WORDS) return place;
    }
  };
  const put = (number: number) => {
    const place = find();
    if (numbers[place] === 0) size++;
    keys.set(key, place * KEY_WORDS);
    numbers[place] = number;
  };
  const grow = () => {
    const [oldKeys, oldNumbers] = [keys, numbers];
    places *= 2;
    keys = new Uint32Array(places * KEY_WORDS);
    numbers = new Uint32Array(places);
    size = 0;
    for (let place = 0; place < oldNumbers.length; place++) {
      if (oldNumbers[place] === 0) continue;
      key.set(oldKeys.subarray(place * KEY_WORDS, (place + 1) * KEY_WORDS));
      put(oldNumbers[place]);
    }
  };
  return {
    get size() {
      return size;
    },
    get(digest) {
      keyBytes.set(digest.subarray(0, KEY_BYTES));
      const number = numbers[find()];
      return number === 0 ? undefined : number - 1;
    },
    set(digest, number) {
      if (size >= places * FULL) grow();
      keyBytes.set(digest.subarray(0, KEY_BYTES));
      put(number + 1);
    },
  };
}
