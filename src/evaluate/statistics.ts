// Intervals for scores that are shares of right answers. Wilson (1927), in the form of Brown, Cai & DasGupta
// (2001), "Interval Estimation for a Binomial Proportion".

/** The 97.5 % point of the standard normal distribution: two-sided 95 %. */
const Z_95 = 1.959963984540054;

export interface Interval {
  low: number;
  high: number;
}

/**
 * Wilson 95 % interval of a proportion: honest near 0 and 1 and for small `n`, where the usual normal
 * interval is not. Without observations it is the whole of [0, 1].
 */
export function wilsonInterval(correct: number, n: number): Interval {
  if (!(n >= 0) || !(correct >= 0) || correct > n) throw new RangeError(`wilsonInterval: ${correct} right answers out of ${n}`);
  if (n === 0) return { low: 0, high: 1 };
  const share = correct / n;
  const z2 = Z_95 * Z_95;
  const center = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (Z_95 / (1 + z2 / n)) * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n));
  // The two ends are exactly 0 and 1 when nothing or everything is right; rounding would leave 1e-17.
  return { low: correct === 0 ? 0 : center - half, high: correct === n ? 1 : center + half };
}
