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

/** For each level but the first: 1 there, -1 at the first, 0 elsewhere. */
function codedColumns({ name, levels, values }: Factor): Column[] {
  if (levels.length < 2) throw new RangeError(`factor ${name} has fewer than two levels`);
  for (let i = 0; i < values.length; i++)
    if (levels[values[i]] === undefined) throw new RangeError(`factor ${name} has no level ${values[i]}`);
  return levels.slice(1).map((level, i) => ({
    name: `${name}[${level}]`,
    values: Float64Array.from({ length: values.length }, (_, row) => (values[row] === i + 1 ? 1 : values[row] === 0 ? -1 : 0)),
  }));
}

const product = (a: Column, b: Column): Column => ({
  name: `${a.name}:${b.name}`,
  values: a.values.map((value, i) => value * b.values[i]),
});

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
  const coded = new Map(factors.map((factor) => [factor.name, codedColumns(factor)]));
  const design: Design = { names: ['(mean)'], columns: [new Float64Array(n).fill(1)], terms: [] };
  for (const subset of subsets(factors, order)) {
    const columns = subset
      .map(({ name }) => coded.get(name)!)
      .reduce((left, right) => left.flatMap((a) => right.map((b) => product(a, b))));
    const names = columns.map(({ name }) => name);
    design.names.push(...names);
    design.columns.push(...columns.map(({ values }) => values));
    design.terms.push({ factors: subset.map(({ name }) => name), columns: names });
  }
  return design;
}
