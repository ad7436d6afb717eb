// Shapes: a dim is a number or a name, as in ONNX, and shapes that do not fit are a ShapeError. Dims are
// polynomials in names with whole coefficients, kept as canonical text (products multiplied out, terms
// sorted), so that equal dims have equal text.

/**
 * A dimension: a size, a name ("batch"), or a canonical product or sum of names ("batch*tokens",
 * "past+tokens").
 */
export type Dim = number | string;
export type Dims = readonly Dim[];

/** "[batch, 3]". */
export function formatDims(dims: Dims): string {
  return `[${dims.join(', ')}]`;
}

// === Errors ===

/**
 * Shapes that do not fit: the message names the op, the shapes and, once it has passed through `withPath`,
 * the module path.
 */
export class ShapeError extends Error {
  override name = 'ShapeError';
  readonly op: string;
  readonly reason: string;
  readonly shapes: readonly Dims[];
  path: string[] = [];

  constructor(op: string, reason: string, shapes: readonly Dims[]) {
    super();
    this.op = op;
    this.reason = reason;
    this.shapes = shapes;
    this.describe();
  }

  /** Prepends an enclosing module to the path. */
  within(module: string): this {
    this.path.unshift(module);
    this.describe();
    return this;
  }

  private describe() {
    const where = this.path.length > 0 ? ` in ${this.path.join('.')}` : '';
    this.message = `${this.op}${where}: ${this.reason} (shapes ${this.shapes.map(formatDims).join(', ')})`;
  }
}

/** Runs `body`; a shape error inside it gets `module` in front of its path. */
export function withPath<T>(module: string, body: () => T): T {
  try {
    return body();
  } catch (error) {
    throw error instanceof ShapeError ? error.within(module) : error;
  }
}

// === Arithmetic ===

/** Coefficient of each product of names ("batch*tokens"; "" for the number), in the order of the text. */
type Polynomial = Map<string, number>;

function parseDim(dim: Dim): Polynomial {
  const terms: Polynomial = new Map();
  for (const term of String(dim).split('+')) {
    const names: string[] = [];
    let coefficient = 1;
    for (const part of term.split('*')) {
      if (/^\d+$/.test(part)) coefficient *= Number(part);
      else names.push(part);
    }
    const monomial = names.sort().join('*');
    terms.set(monomial, (terms.get(monomial) ?? 0) + coefficient);
  }
  return terms;
}

function formatTerm(monomial: string, coefficient: number): string {
  if (monomial === '') return String(coefficient);
  return coefficient === 1 ? monomial : `${coefficient}*${monomial}`;
}

function formatDim(terms: Polynomial): Dim {
  const number = terms.get('') ?? 0;
  const named = [...terms].filter(([monomial, coefficient]) => monomial !== '' && coefficient !== 0).sort(([a], [b]) => (a < b ? -1 : 1));
  if (named.length === 0) return number;
  const text = named.map(([monomial, coefficient]) => formatTerm(monomial, coefficient));
  return (number === 0 ? text : [...text, String(number)]).join('+');
}

/** Product of dims in canonical form: dimProduct(["tokens", 2, "batch"]) = "2*batch*tokens". */
export function dimProduct(dims: Dims): Dim {
  let product: Polynomial = new Map([['', 1]]);
  for (const dim of dims) {
    const next: Polynomial = new Map();
    for (const [a, coefficientA] of product)
      for (const [b, coefficientB] of parseDim(dim)) {
        const names = [...a.split('*'), ...b.split('*')].filter((name) => name !== '');
        const monomial = names.sort().join('*');
        next.set(monomial, (next.get(monomial) ?? 0) + coefficientA * coefficientB);
      }
    product = next;
  }
  return formatDim(product);
}

/** Sum of dims in canonical form: dimSum(["past", "tokens"]) = "past+tokens". */
export function dimSum(dims: Dims): Dim {
  const sum: Polynomial = new Map();
  for (const dim of dims) for (const [monomial, coefficient] of parseDim(dim)) sum.set(monomial, (sum.get(monomial) ?? 0) + coefficient);
  return formatDim(sum);
}

/** What `computeDim` computes with: numbers at run time, or nodes of a graph that will. */
export interface DimArithmetic<T> {
  number(size: number): T;
  /** The dim of this text as a whole, where it is known. */
  known(dim: string): T | undefined;
  add(a: T, b: T): T;
  multiply(a: T, b: T): T;
}

/**
 * The size of a dim, put together from the largest parts that are known. Throws an Error for a name that is
 * not.
 */
export function computeDim<T>(dim: Dim, arithmetic: DimArithmetic<T>): T {
  if (typeof dim === 'number') return arithmetic.number(dim);
  const known = arithmetic.known(dim);
  if (known !== undefined) return known;
  const terms = [...parseDim(dim)];
  if (terms.length > 1)
    return terms
      .map(([monomial, coefficient]) => computeDim(monomial === '' ? coefficient : formatTerm(monomial, coefficient), arithmetic))
      .reduce(arithmetic.add);
  const [[monomial, coefficient]] = terms;
  const names = monomial.split('*');
  if (names.length === 1 && coefficient === 1) throw new Error(`no graph input carries the dimension "${dim}"`);
  return (coefficient === 1 ? names : [coefficient, ...names]).map((part) => computeDim(part, arithmetic)).reduce(arithmetic.multiply);
}

/**
 * The size of a dim where `known` gives that of a name. Throws an Error for a name of which it is undefined.
 */
export const dimSize = (dim: Dim, known: (name: string) => number | undefined): number =>
  computeDim<number>(dim, { number: (size) => size, known, add: (a, b) => a + b, multiply: (a, b) => a * b });

/** A dim with `size` in the place of the name `name`. */
export const substituteDim = (dim: Dim, name: string, size: number): Dim =>
  computeDim<Dim>(dim, {
    number: (size) => size,
    known: (text) => (text === name ? size : /[*+]/.test(text) ? undefined : text),
    add: (a, b) => dimSum([a, b]),
    multiply: (a, b) => dimProduct([a, b]),
  });

// === Comparison ===

/** NumPy broadcasting over names and sizes; throws ShapeError for `op`. */
export function broadcastDims(op: string, a: Dims, b: Dims): Dims {
  const rank = Math.max(a.length, b.length);
  const result: Dim[] = [];
  for (let i = 0; i < rank; i++) {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) throw new ShapeError(op, `dimension ${x} does not broadcast with ${y}`, [a, b]);
    result.push(x === 1 ? y : x);
  }
  return result;
}

/** Whether two shapes are equal, names and all. */
export function sameDims(a: Dims, b: Dims): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** Axis in [0, rank) from a possibly negative one; throws ShapeError for `op`. */
export function normalizeAxis(op: string, axis: number, dims: Dims): number {
  const result = axis < 0 ? axis + dims.length : axis;
  if (result < 0 || result >= dims.length) throw new ShapeError(op, `axis ${axis} is outside the shape`, [dims]);
  return result;
}
