// The loss of each step as a line.

/**
 * Corners of the line through `losses`, as SVG's `points`, in a picture of this size: the first step is at
 * the left, the last of `steps` at the right, the largest loss at the top, zero at the bottom.
 */
export function curvePoints(losses: readonly number[], steps: number, width: number, height: number): string {
  const top = losses.reduce((most, loss) => Math.max(most, loss), Number.MIN_VALUE);
  const across = width / Math.max(1, steps - 1);
  return losses.map((loss, i) => `${(i * across).toFixed(1)},${(height * (1 - loss / top)).toFixed(1)}`).join(' ');
}
