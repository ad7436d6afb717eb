// Symbolic tensors. A tensor is an immutable node: an op, its inputs, attributes, a dtype and dims; calling
// an op makes a node. There is no tape and no hidden state: a graph is whatever its outputs reach. Every op
// there is is declared here, one line each; the tables of gradients, definitions, reference rules and
// lowerings are typed by these lines, so that one that lacks an op does not compile.

import { type BlockFormat, bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from '../floats.ts';
import { type Dims, ShapeError } from './dims.ts';

// === Element types ===

/**
 * Element types. float16 and bfloat16 data are bit patterns in a Uint16Array (src/floats.ts); bool is one
 * byte, 0 or 1.
 */
export type DType = 'float32' | 'float16' | 'bfloat16' | 'int64' | 'int32' | 'bool' | 'int8' | 'uint8';
export type TypedData = Float32Array | Int32Array | Uint8Array | Int8Array | BigInt64Array | Uint16Array;

export const isFloat = (dtype: DType): boolean => dtype === 'float32' || dtype === 'float16' || dtype === 'bfloat16';
export const isInteger = (dtype: DType): boolean => dtype.startsWith('int') || dtype === 'uint8';

const FROM_NUMBERS: Readonly<Record<DType, (values: ArrayLike<number>) => TypedData>> = {
  float32: (values) => Float32Array.from(values),
  float16: (values) => float32ToFloat16(Float32Array.from(values)),
  bfloat16: (values) => float32ToBfloat16(Float32Array.from(values)),
  int64: (values) => BigInt64Array.from(Array.from(values, BigInt)),
  int32: (values) => Int32Array.from(values),
  bool: (values) => Uint8Array.from(values, (value) => Number(value !== 0)),
  int8: (values) => Int8Array.from(values),
  uint8: (values) => Uint8Array.from(values),
};

/**
 * Numbers as data of `dtype`: floats are rounded to nearest, ties to even. Throws a RangeError for a fraction
 * in int64.
 */
export function typedData(values: ArrayLike<number>, dtype: DType): TypedData {
  return FROM_NUMBERS[dtype](values);
}

/** The numbers that data of `dtype` stands for. Exact, but for int64 beyond 2^53. */
export function numbersOf(data: TypedData, dtype: DType): Float64Array {
  if (dtype === 'float16') return Float64Array.from(float16ToFloat32(data as Uint16Array));
  if (dtype === 'bfloat16') return Float64Array.from(bfloat16ToFloat32(data as Uint16Array));
  return Float64Array.from(data as ArrayLike<number>, Number);
}

// === Ops ===

/** An op by its operands and its attributes. What the result's own dtype and dims say is no attribute. */
interface OpType<Inputs, Attributes = Readonly<Record<never, never>>> {
  readonly inputs: Readonly<Inputs>;
  readonly attributes: Readonly<Attributes>;
}

type Unary = OpType<[x: Tensor]>;
type Binary = OpType<[a: Tensor, b: Tensor]>;
type Reduction = OpType<[x: Tensor], { axes: readonly number[]; keepDims: boolean }>;

/** What a tensor can begin with. */
export interface Leaves {
  input: OpType<[], { name: string }>;
  constant: OpType<[], { data: TypedData }>;
}

/** Ops that every engine runs. Builders, shape rules and gradients are in primitives.ts. */
export interface Primitives {
  add: Binary;
  sub: Binary;
  mul: Binary;
  div: Binary;
  maximum: Binary;
  neg: Unary;
  exp: Unary;
  log: Unary;
  sqrt: Unary;
  tanh: Unary;
  sigmoid: Unary;
  erf: Unary;
  stopGradient: Unary;
  hold: Unary;
  equal: Binary;
  greater: Binary;
  lessOrEqual: Binary;
  and: Binary;
  or: Binary;
  cast: Unary;
  where: OpType<[condition: Tensor, a: Tensor, b: Tensor]>;
  matmul: OpType<[a: Tensor, b: Tensor], { transA: boolean; transB: boolean; alpha: number }>;
  reshape: Unary;
  transpose: OpType<[x: Tensor], { perm: readonly number[] }>;
  concat: OpType<Tensor[], { axis: number }>;
  slice: OpType<[x: Tensor], { axis: number; start: number; end: number }>;
  pad: OpType<[x: Tensor], { axis: number; before: number; after: number }>;
  expand: Unary;
  reduceSum: Reduction;
  reduceMean: Reduction;
  reduceMax: Reduction;
  softmax: Unary;
  argmax: Unary;
  gather: OpType<[data: Tensor, indices: Tensor]>;
  scatterAdd: OpType<[indices: Tensor, updates: Tensor]>;
  takeAlong: OpType<[x: Tensor, indices: Tensor]>;
  putAlong: OpType<[indices: Tensor, values: Tensor]>;
  maskedScatter: OpType<[x: Tensor, mask: Tensor, rows: Tensor]>;
  maskedGather: OpType<[x: Tensor, mask: Tensor]>;
  rotary: OpType<[x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor]>;
  dequantize: OpType<[packed: Tensor, scale: Tensor], BlockFormat>;
}

/** Ops with a definition in primitives, which an engine may take whole. They are in composites.ts. */
export interface Composites {
  rmsNorm: OpType<[x: Tensor, weight: Tensor], { epsilon: number }>;
  layerNorm: OpType<[x: Tensor, weight: Tensor, bias: Tensor], { epsilon: number }>;
  geluTanh: Unary;
  geluErf: Unary;
  quickGelu: Unary;
  /** With a mask as a fourth operand, or without. */
  attention: OpType<[q: Tensor, k: Tensor, v: Tensor, ...bias: Tensor[]], { scale: number; softcap?: number }>;
  linearCrossEntropy: OpType<[hidden: Tensor, weight: Tensor, labels: Tensor], { scale: number; softcap?: number }>;
  linearLogSumExp: OpType<[hidden: Tensor, weight: Tensor], { scale: number; softcap?: number }>;
  classMean: OpType<[hidden: Tensor, weight: Tensor], { scale: number; softcap?: number }>;
  classGradient: OpType<[hidden: Tensor, weight: Tensor, logSumExp: Tensor, factors: Tensor], { scale: number; softcap?: number }>;
  squaredNorm: Unary;
  /** One of the results of an update. */
  adamW: OpType<
    [parameter: Tensor, gradient: Tensor, expAvg: Tensor, expAvgSq: Tensor, clip: Tensor, keep: Tensor, rate: Tensor, rootScale: Tensor],
    { part: 'parameter' | 'expAvg' | 'expAvgSq' | 'change'; beta1: number; beta2: number; eps: number }
  >;
  /** The same with moments in blocks of 8-bit codes, the largest magnitudes of the blocks beside them. */
  adamW8bit: OpType<
    [
      ...[parameter: Tensor, gradient: Tensor, expAvg: Tensor, expAvgAbsmax: Tensor, expAvgSq: Tensor, expAvgSqAbsmax: Tensor],
      ...[clip: Tensor, keep: Tensor, rate: Tensor, rootScale: Tensor],
    ],
    {
      part: 'parameter' | 'expAvg' | 'expAvgAbsmax' | 'expAvgSq' | 'expAvgSqAbsmax' | 'change';
      beta1: number;
      beta2: number;
      eps: number;
    }
  >;
}

/**
 * Ops that only passes of an engine make, after differentiation: nodes joined to what one kernel computes
 * (engine/onnx/packed.ts).
 */
export interface Dialect {
  /** x [.., columns] times the transpose of a packed matrix [rows, columns], times alpha. */
  matmulPacked: OpType<[x: Tensor, packed: Tensor, scale: Tensor], BlockFormat & { alpha: number }>;
  /** Rows of a packed matrix. */
  gatherPacked: OpType<[packed: Tensor, scale: Tensor, indices: Tensor], BlockFormat>;
  /**
   * linearLogSumExp or classMean over the weight as it is stored: in 32 or 16 bits, or packed with its scale.
   * `both` says that the graph asks for both of the same operands.
   */
  classLoop: OpType<
    [hidden: Tensor, ...stored: Tensor[]],
    { part: 'logSumExp' | 'mean'; both: boolean; scale: number; softcap?: number; format?: BlockFormat }
  >;
  /** `scatterAdd` onto a tensor instead of onto zeros. */
  scatterAddOnto: OpType<[indices: Tensor, updates: Tensor, onto: Tensor]>;
  /** `putAlong`, added to a tensor instead of to zeros. */
  putAlongOnto: OpType<[indices: Tensor, values: Tensor, onto: Tensor]>;
}

interface Ops extends Leaves, Primitives, Composites, Dialect {}

export type Primitive = keyof Primitives;
export type Composite = keyof Composites;
export type Op = keyof Ops;

// === Nodes ===

/** What a tensor holds: the type of its elements and its shape. */
export interface TensorType {
  readonly dtype: DType;
  readonly dims: Dims;
}

/** A node of one op. */
export interface TensorNode<O extends Op> extends TensorType {
  readonly op: O;
  readonly inputs: Ops[O]['inputs'];
  readonly attributes: Ops[O]['attributes'];
}

/** A tensor that is one of the ops `O`; `op` tells which. */
export type TensorOf<O extends Op> = { [K in O]: TensorNode<K> }[O];

export type Tensor = TensorOf<Op>;

type Each<Inputs, T> = { readonly [I in keyof Inputs]: T };
/** For each operand of an op a `T`: a gradient, a value, a name. */
export type PerInput<O extends Op, T> = Each<Ops[O]['inputs'], T>;

/** What a composite must say of itself, and may say where the derived gradient costs more than it must. */
export interface CompositeRule<O extends Composite> {
  /** The op in terms of simpler ops. */
  definition(y: TensorOf<O>): Tensor;
  /**
   * Gradients for each input given the gradient of the result; undefined where there is none (labels, masks).
   * No gradients at all ask for those of the definition.
   */
  gradient?(y: TensorOf<O>, dy: Tensor): PerInput<O, Tensor | undefined> | undefined;
}

/** Makes a node. For the builders of ops, which check what they are given and say the type of the result. */
export function createNode<O extends Op>(
  op: O,
  inputs: Ops[O]['inputs'],
  attributes: Ops[O]['attributes'],
  { dtype, dims }: TensorType,
): TensorOf<O> {
  return Object.freeze({ op, inputs, attributes, dtype, dims }) as TensorOf<O>;
}

/** The same node over other inputs, as many and of the same types. */
export function withInputs<O extends Op>(tensor: TensorOf<O>, inputs: readonly Tensor[]): TensorOf<O> {
  return Object.freeze({ ...tensor, inputs }) as TensorOf<O>;
}

/** Whether a tensor is one of the ops that a table has. */
export function isIn<O extends Op>(table: Readonly<Record<O, unknown>>, tensor: Tensor): tensor is Extract<Tensor, { op: O }> {
  return Object.hasOwn(table, tensor.op);
}

// === Leaves ===

/** A named value given at each run; parameters are inputs too, under their Hugging Face names. */
export function input(name: string, dtype: DType, dims: Dims): TensorOf<'input'> {
  return createNode('input', [], { name }, { dtype, dims });
}

export const inputName = (tensor: TensorOf<'input'>): string => tensor.attributes.name;

/**
 * A value fixed in the graph, row-major. A number fills a scalar (dims []); for float16 and bfloat16 it is
 * rounded, while an array of these holds bit patterns. Throws ShapeError where the data is of another type
 * than `dtype`, or does not fill `dims`.
 */
export function constant(value: number | TypedData, dims: readonly number[] = [], dtype: DType = 'float32'): TensorOf<'constant'> {
  const data = typeof value === 'number' ? typedData([value], dtype) : value;
  const size = dims.reduce((a, b) => a * b, 1);
  if (data.length !== size) throw new ShapeError('constant', `${data.length} values do not fill the shape`, [dims]);
  const array = typedData([], dtype).constructor;
  if (data.constructor !== array)
    throw new ShapeError('constant', `${dtype} comes as ${array.name}, not as ${data.constructor.name}`, [dims]);
  return createNode('constant', [], { data }, { dtype, dims });
}

// === Order ===

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
