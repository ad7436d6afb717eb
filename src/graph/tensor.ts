// Symbolic tensors. A tensor is an immutable node: an op, its inputs, attributes, a dtype and dims; calling an op makes a node.
// There is no tape and no hidden state: a graph is whatever its outputs reach. Dims are numbers or names, as in ONNX.

/** A dimension: a size, a name ("batch"), or a canonical product or sum of names ("batch*tokens", "past+tokens"). */
export type Dim = number | string;
export type Dims = readonly Dim[];
export type DType = 'float32' | 'float16' | 'bfloat16' | 'int64' | 'int32' | 'bool' | 'int8' | 'uint8';
export type TypedData = Float32Array | Int32Array | Uint8Array | Int8Array | BigInt64Array | Uint16Array;
export type AttributeValue = number | string | boolean | readonly Dim[] | TypedData;
export type Attributes = Readonly<Record<string, AttributeValue>>;

export interface Tensor {
  readonly op: string;
  readonly inputs: readonly Tensor[];
  readonly attributes: Attributes;
  readonly dtype: DType;
  readonly dims: Dims;
}

/** What an op must say of itself. Primitives are lowered by every engine; composites carry a definition in primitives. */
export interface OpRule {
  /** Result type of the op; throws ShapeError. */
  infer(inputs: readonly Tensor[], attributes: Attributes): { dtype: DType; dims: Dims };
  /** Gradients for each input given the gradient of the result; undefined where there is none (integers, masks). */
  gradient?(node: Tensor, dy: Tensor): readonly (Tensor | undefined)[];
  /** The op in terms of simpler ops (composites only). */
  definition?(inputs: readonly Tensor[], attributes: Attributes): Tensor;
}

const rules = new Map<string, OpRule>();

/** Registers an op when its module loads; the table never changes afterwards. */
export function defineOp(name: string, rule: OpRule): void {
  if (rules.has(name)) throw new Error(`op ${name} is defined twice`);
  rules.set(name, rule);
}

export function opRule(name: string): OpRule {
  const rule = rules.get(name);
  if (!rule) throw new Error(`unknown op ${name}`);
  return rule;
}

export function opNames(): string[] {
  return [...rules.keys()];
}

/** Shapes that don't fit, said with the op, the shapes and, once it has passed through `withPath`, the module path. */
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

export function formatDims(dims: Dims): string {
  return `[${dims.join(', ')}]`;
}

export function makeNode(op: string, inputs: readonly Tensor[], attributes: Attributes = {}): Tensor {
  const { dtype, dims } = opRule(op).infer(inputs, attributes);
  return Object.freeze({ op, inputs, attributes, dtype, dims });
}

// === Leaves ===

defineOp('input', { infer: (_, a) => ({ dtype: a.dtype as DType, dims: a.dims as Dims }) });
defineOp('constant', { infer: (_, a) => ({ dtype: a.dtype as DType, dims: a.dims as Dims }), gradient: () => [] });

/** A named value given at each run; parameters are inputs too, under their Hugging Face names. */
export function input(name: string, dtype: DType, dims: Dims): Tensor {
  return makeNode('input', [], { name, dtype, dims });
}

/** A value fixed in the graph. A number makes a scalar (dims []). */
export function constant(value: number | TypedData, dims: readonly number[] = [], dtype: DType = 'float32'): Tensor {
  let data: TypedData;
  if (typeof value === 'number')
    data = dtype === 'float32' ? Float32Array.of(value) : dtype === 'int32' ? Int32Array.of(value) : Uint8Array.of(value);
  else data = value;
  const size = dims.reduce((a, b) => a * b, 1);
  if (data.length !== size) throw new ShapeError('constant', `${data.length} values do not fill the shape`, [dims]);
  return makeNode('constant', [], { data, dims, dtype });
}

export function inputName(tensor: Tensor): string {
  return tensor.attributes.name as string;
}

// === Arithmetic on dims ===

// A dim is a polynomial in names: products are multiplied out, so that the text has no brackets and equal dims have equal text.

/** Factor of each monomial ("batch*tokens"; "" for the number). */
function parseDim(dim: Dim): Map<string, number> {
  const terms = new Map<string, number>();
  for (const term of String(dim).split('+')) {
    const parts = term.split('*');
    const names = parts.filter((part) => !/^\d+$/.test(part)).sort();
    const factor = parts.filter((part) => /^\d+$/.test(part)).reduce((product, part) => product * Number(part), 1);
    const monomial = names.join('*');
    terms.set(monomial, (terms.get(monomial) ?? 0) + factor);
  }
  return terms;
}

function formatDim(terms: Map<string, number>): Dim {
  const number = terms.get('') ?? 0;
  const names = [...terms].filter(([monomial, factor]) => monomial !== '' && factor !== 0).sort(([a], [b]) => (a < b ? -1 : 1));
  if (names.length === 0) return number;
  const text = names.map(([monomial, factor]) => (factor === 1 ? monomial : `${factor}*${monomial}`));
  return (number === 0 ? text : [...text, String(number)]).join('+');
}

/** Product of dims in canonical form: dimProduct(["tokens", 2, "batch"]) = "2*batch*tokens". */
export function dimProduct(dims: Dims): Dim {
  let product = new Map([['', 1]]);
  for (const dim of dims) {
    const next = new Map<string, number>();
    for (const [a, factorA] of product)
      for (const [b, factorB] of parseDim(dim)) {
        const monomial = [...a.split('*'), ...b.split('*')]
          .filter((name) => name !== '')
          .sort()
          .join('*');
        next.set(monomial, (next.get(monomial) ?? 0) + factorA * factorB);
      }
    product = next;
  }
  return formatDim(product);
}

/** Sum of dims in canonical form: dimSum(["past", "tokens"]) = "past+tokens". */
export function dimSum(dims: Dims): Dim {
  const sum = new Map<string, number>();
  for (const dim of dims) for (const [monomial, factor] of parseDim(dim)) sum.set(monomial, (sum.get(monomial) ?? 0) + factor);
  return formatDim(sum);
}

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

export function sameDims(a: Dims, b: Dims): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i]);
}

/** Axis in [0, rank) from a possibly negative one. */
export function normaliseAxis(op: string, axis: number, dims: Dims): number {
  const result = axis < 0 ? axis + dims.length : axis;
  if (result < 0 || result >= dims.length) throw new ShapeError(op, `axis ${axis} is outside the shape`, [dims]);
  return result;
}

/** Every tensor that `outputs` reach, inputs before users. */
export function topologicalOrder(outputs: Iterable<Tensor>): Tensor[] {
  const order: Tensor[] = [];
  const state = new Map<Tensor, 'open' | 'done'>();
  for (const output of outputs) {
    const stack: Tensor[] = [output];
    while (stack.length > 0) {
      const tensor = stack[stack.length - 1];
      const seen = state.get(tensor);
      if (seen === 'done') {
        stack.pop();
      } else if (seen === 'open') {
        stack.pop();
        state.set(tensor, 'done');
        order.push(tensor);
      } else {
        state.set(tensor, 'open');
        for (let i = tensor.inputs.length - 1; i >= 0; i--) if (!state.has(tensor.inputs[i])) stack.push(tensor.inputs[i]);
      }
    }
  }
  return order;
}
