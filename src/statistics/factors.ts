// Columns of a linear model for factors and their interactions, in sum-to-zero ("effect") coding.

/** A factor and its level in every observation. */
export interface Factor {
  name: string;
  /** At least two; the first is the one that the others are compared with. */
  levels: readonly string[];
  /** For each observation, the index of its level. */
  values: ArrayLike<number>;
}

/** Columns of a linear model, each with a number for every observation. */
export interface Design {
  /** `(mean)`, `encoder[siglip]`, `encoder[siglip]:language[7b]`, ... */
  names: string[];
  columns: Float64Array[];
  /** The main effects and interactions, each with the names of its columns: one less than levels a factor. */
  terms: { factors: string[]; columns: string[] }[];
}

/** The subsets of at most `order` of a list, the smaller first: main effects, then pairs, ... */
function subsets<T>(list: readonly T[], order: number): T[][] {
  const ofSize = (size: number, from: number): T[][] =>
    size === 0 ? [[]] : list.slice(from).flatMap((item, i) => ofSize(size - 1, from + i + 1).map((rest) => [item, ...rest]));
  return Array.from({ length: Math.min(order, list.length) }, (_, i) => ofSize(i + 1, 0)).flat();
}

interface Column {
  name: string;
  values: Float64Array;
}

/** Where level `index` stands in the column of level `of`: 1 in its own, -1 for the first level, else 0. */
const code = (index: number, of: number): number => (index === of ? 1 : index === 0 ? -1 : 0);

/** For each level but the first, its column over `n` observations. */
function codedColumns({ name, levels }: Factor, n: number, codeOf: (row: number, of: number) => number): Column[] {
  if (levels.length < 2) throw new RangeError(`factor ${name} has fewer than two levels`);
  return levels
    .slice(1)
    .map((level, i) => ({ name: `${name}[${level}]`, values: Float64Array.from({ length: n }, (_, row) => codeOf(row, i + 1)) }));
}

const product = (a: Column, b: Column): Column => ({
  name: `${a.name}:${b.name}`,
  values: a.values.map((value, i) => value * b.values[i]),
});

/** The mean and the terms of up to `order` factors, from the coded columns of each factor. */
function expand(factors: readonly Factor[], n: number, order: number, coded: (factor: Factor) => Column[]): Design {
  const columnsOf = new Map(factors.map((factor) => [factor, coded(factor)]));
  const design: Design = { names: ['(mean)'], columns: [new Float64Array(n).fill(1)], terms: [] };
  for (const subset of subsets(factors, order)) {
    const columns = subset
      .map((factor) => columnsOf.get(factor)!)
      .reduce((left, right) => left.flatMap((a) => right.map((b) => product(a, b))));
    const names = columns.map(({ name }) => name);
    design.names.push(...names);
    design.columns.push(...columns.map(({ values }) => values));
    design.terms.push({ factors: subset.map(({ name }) => name), columns: names });
  }
  return design;
}

/**
 * The mean, and all effects and interactions of up to `order` factors (all of them by default).
 *
 * A coefficient is how far its level lies from the mean of the levels. For factors with two levels, twice the
 * coefficient is what design of experiments calls the effect: the second level less the first of a main
 * effect; of an interaction, half of how much the effect of one changes from the first to the second level of
 * the other. Columns of a complete design with equal cells are orthogonal between terms.
 */
export function designOf(factors: readonly Factor[], order = factors.length): Design {
  if (new Set(factors.map(({ name }) => name)).size !== factors.length) throw new RangeError('two factors have the same name');
  const n = factors[0]?.values.length ?? 0;
  if (n === 0 || factors.some(({ values }) => values.length !== n)) throw new RangeError('factors need as many values each, and some');
  return expand(factors, n, order, (factor) => {
    const { name, levels, values } = factor;
    for (let row = 0; row < n; row++)
      if (levels[values[row]] === undefined) throw new RangeError(`factor ${name} has no level ${values[row]}`);
    return codedColumns(factor, n, (row, of) => code(values[row], of));
  });
}

/** Levels by the names of their factors. */
export type Cell = Readonly<Record<string, string>>;

/**
 * Weights of the coefficients of `designOf(factors, order)` that make the score at `cell` less that at
 * `other`, for `contrast`. A factor that is not named is averaged over its levels. The effect of an encoder
 * at one size: `cellDifference(factors, { encoder: 'dinov2', size: '7b' }, { encoder: 'clip', size: '7b' })`.
 */
export function cellDifference(factors: readonly Factor[], cell: Cell, other: Cell, order = factors.length): Record<string, number> {
  for (const name of [...Object.keys(cell), ...Object.keys(other)])
    if (!factors.some((factor) => factor.name === name)) throw new RangeError(`there is no factor ${name}`);
  const { names, columns } = expand(factors, 2, order, (factor) => {
    const indices = [cell, other].map((each) => {
      const level = each[factor.name];
      const index = factor.levels.indexOf(level);
      if (level !== undefined && index < 0) throw new RangeError(`factor ${factor.name} has no level ${level}`);
      return index;
    });
    return codedColumns(factor, 2, (row, of) => (indices[row] < 0 ? 0 : code(indices[row], of)));
  });
  return Object.fromEntries(names.map((name, i) => [name, columns[i][0] - columns[i][1]]));
}
