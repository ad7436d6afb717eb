// The simplex search of Nelder & Mead (1965), "A Simplex Method for Function Minimization", with the usual
// coefficients: reflect 1, expand 2, contract 1/2, shrink 1/2. For a handful of variables without gradients.

export interface NelderMeadOptions {
  /** Length of the first simplex along each axis; 0.5. */
  size?: number;
  /** Ends when values of the simplex differ by less; 1e-12. */
  tolerance?: number;
  /** Most steps; 2,000. */
  steps?: number;
}

export interface Minimum {
  point: number[];
  value: number;
}

/** The lowest place found from `start`. Values that are NaN count as infinitely high. */
export function nelderMead(
  f: (point: readonly number[]) => number,
  start: readonly number[],
  { size = 0.5, tolerance = 1e-12, steps = 2000 }: NelderMeadOptions = {},
): Minimum {
  const at = (point: number[]): Minimum => {
    const value = f(point);
    return { point, value: Number.isNaN(value) ? Number.POSITIVE_INFINITY : value };
  };
  const moved = (axis: number) => start.map((value, i) => (i === axis ? value + size : value));
  const simplex = [at([...start]), ...start.map((_, axis) => at(moved(axis)))];
  const order = () => simplex.sort((a, b) => a.value - b.value);
  for (let step = 0; step < steps; step++) {
    order();
    const [best] = simplex;
    const worst = simplex.at(-1)!;
    if (!(worst.value - best.value > tolerance)) break;
    const others = simplex.slice(0, -1);
    const center = start.map((_, i) => others.reduce((sum, { point }) => sum + point[i], 0) / others.length);
    const along = (factor: number) => at(center.map((value, i) => value + factor * (value - worst.point[i])));
    const reflected = along(1);
    if (reflected.value < best.value) {
      const expanded = along(2);
      simplex[simplex.length - 1] = expanded.value < reflected.value ? expanded : reflected;
    } else if (reflected.value < others.at(-1)!.value) {
      simplex[simplex.length - 1] = reflected;
    } else {
      const contracted = along(reflected.value < worst.value ? 0.5 : -0.5);
      if (contracted.value < Math.min(reflected.value, worst.value)) simplex[simplex.length - 1] = contracted;
      else for (let i = 1; i < simplex.length; i++) simplex[i] = at(simplex[i].point.map((value, k) => (value + best.point[k]) / 2));
    }
  }
  return order()[0];
}
