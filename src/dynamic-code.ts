// The dynamic 8-bit code of 8-bit optimizers (Dettmers 2016, arxiv.org/abs/1511.04561; Dettmers et al. 2022,
// arxiv.org/abs/2110.02861, sections 1.3 and 2). A block of numbers is stored as its largest magnitude and,
// for each number, the nearest of 256 shares of that: close together where they are large, and over seven
// powers of ten.

/** Numbers that share a largest magnitude. */
export const CODE_BLOCK = 256;

/** Blocks of `count` numbers; the last one may be shorter. */
export const codeBlocks = (count: number): number => Math.ceil(count / CODE_BLOCK);

export interface DynamicCode {
  /** What the codes 0 to 255 stand for, ascending. */
  readonly values: Float32Array;
  /** The middles between neighbors: the code of a number is how many of these are below it. */
  readonly bounds: Float32Array;
}

const POWERS = 7;

/**
 * The values of a power of ten are the middles of equal parts of [0.1, 1] times that: one part for 1e-6,
 * twice as many for each further power up to 1. The bit of the sign, where there is none, doubles them all. 0
 * and 1 complete the 256.
 */
function dynamicCode(isSigned: boolean): DynamicCode {
  const values = [0, 1];
  for (let power = 0; power < POWERS; power++) {
    const parts = 2 ** (isSigned ? power : power + 1);
    for (let part = 0; part < parts; part++) {
      const value = 10 ** (power - POWERS + 1) * (0.1 + (0.9 * (part + 0.5)) / parts);
      values.push(value);
      if (isSigned) values.push(-value);
    }
  }
  const sorted = Float32Array.from(values).sort();
  return { values: sorted, bounds: Float32Array.from({ length: 255 }, (_, i) => (sorted[i] + sorted[i + 1]) / 2) };
}

/** For numbers of both signs: 127 values below 0, and 128 above. */
export const signedCode: DynamicCode = dynamicCode(true);

/** For numbers that are not negative. */
export const unsignedCode: DynamicCode = dynamicCode(false);
