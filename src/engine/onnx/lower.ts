// Lowers a graph to an ONNX model (opset 21 and ORT's com.microsoft contrib ops). Follows
// onnx/docs/Operators.md and onnxruntime/docs/ContribOperators.md. The same model file serves
// onnxruntime-node, the browser and export.

import { type Dims, dimProduct, sameDims } from '../../graph/dims.ts';
import { expandComposites, mergeCommon, type Outputs, rewrite, simplify } from '../../graph/passes.ts';
import {
  type Composite,
  createNode,
  type DType,
  isIn,
  type PerInput,
  type Tensor,
  type TensorOf,
  topologicalOrder,
  typedData,
} from '../../graph/tensor.ts';
import { GraphBuilder, type ShapedModel } from './builder.ts';
import { CLASS_LOOPS, classLoop, loopOverClasses } from './classes.ts';
import { type ExternalData, isStoredCast, joinNeighbors, readStored } from './packed.ts';
import { readParts } from './parts.ts';
import { FUSED_KERNELS, type Lowered, type LoweringRule, plainProduct, type Rules, type Target } from './rule.ts';
import { webgpuRules } from './webgpu-rules.ts';
import { encodeModel, MICROSOFT } from './writer.ts';

const WHOLE = [...FUSED_KERNELS, ...CLASS_LOOPS];

/**
 * What a session is told where weights are cast anew: folding would cast all of them when it begins, merging
 * would keep each cast through the whole run, and one pass folds casts of float16 alone.
 */
export const RECAST_EXTRA = {
  optimization: {
    disable_specified_optimizers: 'ConstantFolding;CommonSubexpressionElimination;FuseFp16InitializerToFp32NodeTransformer',
  },
} as const;

export interface LowerOptions {
  /** Inputs that become initializers with external data. By name. */
  externalInputs?: ReadonlyMap<string, ExternalData>;
  /** Composites left whole; the default keeps every fused kernel and loop. */
  fuse?: readonly (typeof WHOLE)[number][];
  /**
   * What products with packed weights compute in. 'int8', the default, rounds x to 8 bits a block, as
   * llama.cpp does, and is two to three times as fast; 'float32' keeps x, for gradients.
   */
  packedAccuracy?: 'float32' | 'int8';
  /**
   * Whether weights of 16 bits, and packed ones that no kernel reads, are cast anew for each node that reads
   * them, so that no copy in 32 bits lives from the forward to the backward pass. Only `externalInputs` are;
   * the runtime must be kept from merging and folding the casts (`RECAST_EXTRA`).
   */
  recast?: boolean;
  /**
   * Where the model is to run. `anywhere` writes products with ops of ONNX alone, which ONNX Runtime has on
   * every device: on the CPU it joins them to the fused ones by itself. `webgpu` writes nothing that its
   * WebGPU provider lacks. Default: `cpu`.
   */
  target?: Target;
  /**
   * What is computed once more for the backward pass, instead of being held from the forward pass until then:
   * the same bits in less memory. `cheap` are passes over elements, `all` is everything but what is marked
   * (`hold`). `forward` names the outputs of the forward pass.
   */
  recompute?: { forward: readonly string[]; what: 'cheap' | 'all' };
}

/**
 * Serialized ONNX model of the outputs. Input and output names are kept; the order of inputs is that of first
 * use. Throws an Error for bfloat16 where ONNX Runtime has no kernel for it, and for a named dim that no
 * input carries.
 */
export const lower = (outputs: Outputs, options: LowerOptions = {}): Uint8Array => encodeModel(lowerToModel(outputs, options).model);

/** The same before it is serialized. Throws as `lower`. */
export function lowerToModel(outputs: Outputs, options: LowerOptions = {}): ShapedModel {
  const fuse = new Set<Composite>(options.fuse ?? WHOLE);
  const external = new Map(options.externalInputs);
  const primitives = mergeCommon(simplify(mergeCommon(readParts(expandComposites(outputs, (op) => fuse.has(op))))));
  const graph = joinNeighbors(readStored(loopOverClasses(scatterOntoSums(primitives))), external);
  const { target = 'cpu' } = options;
  const table: Rules = { ...rules, ...RULES_OF[target] };
  const ruleOptions = { packedAccuracy: options.packedAccuracy, recast: options.recast, target };
  const applyRule = <O extends Lowered>(tensor: TensorOf<O>, inputs: readonly string[]): string =>
    table[tensor.op](builder, inputs as PerInput<O, string>, tensor, ruleOptions);
  const builder = new GraphBuilder(external, { shapesFromHost: target === 'webgpu' });
  const names = new Map<Tensor, string>();
  const emit = (tensor: Tensor): string => {
    if (!isIn(rules, tensor)) throw new Error(`${tensor.op} has no ONNX lowering`);
    checkBfloat16(tensor, target);
    const isBehind = forward.size > 0 && !forward.has(tensor);
    const inputs = tensor.inputs.map(isBehind ? nameBehind : nameOf);
    const apply = () => builder.shaped(applyRule(tensor, inputs), tensor);
    return (isBehind && isLocal(tensor)) || isOfInputs(tensor) ? builder.lead(apply) : apply();
  };
  const forward = new Set(topologicalOrder((options.recompute?.forward ?? []).map((name) => graph[name])));
  const again = new Map<Tensor, string>();
  const anew = (tensor: Tensor) =>
    options.recast && (tensor.op === 'dequantize' || isStoredCast(tensor)) && tensor.inputs.every((x) => isFixed(x, external));
  // ORT runs nodes in the order of a search from the outputs that enters the later of two operands first.
  // What only reads initializers, or repeats a part of the forward pass, must be the earlier, or it is run,
  // and its result held, before everything that the other operand needs.
  const nameOf = (tensor: Tensor): string => (anew(tensor) ? builder.lead(() => emit(tensor)) : names.get(tensor)!);
  const isLocal = options.recompute ? localDerivatives(graph, forward) : () => false;
  const isOfInputs = options.recompute ? madeOfInputs(graph) : () => false;
  const isRepeated = options.recompute?.what === 'all' ? isBetweenMarks : isCheap;
  /** The value of a tensor for a node behind the forward pass. */
  const nameBehind = (tensor: Tensor): string => {
    if (!forward.has(tensor) || !isRepeated(tensor)) return nameOf(tensor);
    const inputs = again.has(tensor) ? [] : tensor.inputs.map(nameBehind);
    const name = again.get(tensor) ?? builder.lead(() => builder.shaped(applyRule(tensor, inputs), tensor));
    again.set(tensor, name);
    return name;
  };

  const order = topologicalOrder(Object.values(graph));
  for (const tensor of order) if (tensor.op === 'input') names.set(tensor, builder.input(tensor));
  for (const tensor of order) if (tensor.op !== 'input' && !anew(tensor)) names.set(tensor, emit(tensor));
  return builder.model(graph, nameOf);
}

/**
 * What the backward pass computes of one layer alone, such as the slope of an activation: it needs no
 * gradient, so it could run at any time, and must run late. Everything behind the last mark of the forward
 * pass is on the way of the gradient.
 */
function localDerivatives(graph: Outputs, forward: ReadonlySet<Tensor>): (tensor: Tensor) => boolean {
  const marks = [...forward].filter(({ op }) => op === 'hold');
  const earlier = new Set(topologicalOrder(marks.flatMap(({ inputs }) => [...inputs])));
  const onTheWay = new Set<Tensor>(marks.filter((mark) => !earlier.has(mark)));
  for (const tensor of topologicalOrder(Object.values(graph))) if (tensor.inputs.some((x) => onTheWay.has(x))) onTheWay.add(tensor);
  return (tensor) => marks.length > 0 && !forward.has(tensor) && !onTheWay.has(tensor);
}

/**
 * What is cheap and needs inputs alone, such as the masks of a dropout: it could run at any time, and must
 * run late, or those of all layers are there before the first layer.
 */
function madeOfInputs(graph: Outputs): (tensor: Tensor) => boolean {
  const made = new Set<Tensor>();
  const isGiven = (x: Tensor) => x.op === 'input' || x.op === 'constant' || made.has(x);
  for (const tensor of topologicalOrder(Object.values(graph))) if (isCheap(tensor) && tensor.inputs.every(isGiven)) made.add(tensor);
  return (tensor) => made.has(tensor);
}

/** Ops that cost little beside the memory that their results hold: a pass over the elements. */
const CHEAP = [
  ...(['sub', 'mul', 'div', 'neg', 'sigmoid', 'tanh', 'erf', 'equal', 'greater', 'lessOrEqual', 'and', 'or', 'where'] as const),
  ...(['cast', 'reshape', 'expand', 'rmsNorm', 'layerNorm', 'geluTanh', 'quickGelu'] as const),
] satisfies Lowered[];
const cheapOps: ReadonlySet<string> = new Set(CHEAP);

/**
 * Whether a tensor is computed by one of these; a sum is held, unless one of its operands has few elements.
 */
function isCheap(tensor: Tensor): tensor is Extract<Tensor, { op: Lowered }> {
  if (tensor.op === 'add') return tensor.inputs.some(({ dims }) => dims.length < tensor.dims.length);
  return cheapOps.has(tensor.op);
}

/** Whether a tensor is to be computed again where everything but marked tensors is. */
function isBetweenMarks(tensor: Tensor): tensor is Extract<Tensor, { op: Lowered }> {
  return isIn(rules, tensor) && !['hold', 'constant', 'classLoop'].includes(tensor.op) && !isStoredCast(tensor);
}

const isFixed = (tensor: Tensor, external: ReadonlyMap<string, ExternalData>) =>
  tensor.op === 'input' && external.has(tensor.attributes.name);

/**
 * x + scatter(..) scatters onto x instead of onto zeros that are then added, in place where nobody else reads
 * x: the one-hot part of a loss costs one element a row, the rows of an embedding's gradient join the head's.
 */
function scatterOntoSums(outputs: Outputs): Outputs {
  const onto = (scatter: Tensor, base: Tensor): Tensor | undefined => {
    if (!sameDims(scatter.dims, base.dims)) return undefined;
    if (scatter.op === 'scatterAdd') return createNode('scatterAddOnto', [...scatter.inputs, base], {}, scatter);
    if (scatter.op === 'putAlong') return createNode('putAlongOnto', [...scatter.inputs, base], {}, scatter);
    return undefined;
  };
  return rewrite(outputs, (node) => {
    if (node.op !== 'add') return node;
    const [a, b] = node.inputs;
    return onto(b, a) ?? onto(a, b) ?? node;
  });
}

// === bfloat16 ===

/**
 * All that ONNX Runtime's CPU kernels (1.30) do with bfloat16: they move and cast it, and compute nothing.
 */
const BFLOAT16_OPS: ReadonlySet<string> = new Set<Lowered>([
  'constant',
  'cast',
  'reshape',
  'transpose',
  'concat',
  'slice',
  'takeLast',
  'gather',
  'takeAlong',
  'maskedScatter',
  'maskedGather',
]);

function checkBfloat16(tensor: Tensor, target: Target): void {
  const isFree = [tensor, ...tensor.inputs].every(({ dtype }) => dtype !== 'bfloat16');
  if (target === 'webgpu' && !isFree) throw new Error(`${tensor.op}: ONNX Runtime has no kernel for bfloat16 on WebGPU`);
  // which casts the pieces of its weight
  if (tensor.op === 'classLoop' && tensor.dtype !== 'bfloat16') return;
  if (BFLOAT16_OPS.has(tensor.op) || isFree) return;
  throw new Error(`${tensor.op}: ONNX Runtime has no kernel for bfloat16; cast the operands to float32 or float16`);
}

// === Rules ===

/** An op that is one ONNX op of the same operands. */
const direct = (opType: string) => (b: GraphBuilder, inputs: readonly string[]) => b.node(opType, inputs);

const reduction =
  (opType: string): LoweringRule<'reduceSum' | 'reduceMean' | 'reduceMax'> =>
  (b, [x], { attributes: { axes, keepDims } }) =>
    b.node(opType, [x, b.int64(axes)], { keepdims: Number(keepDims) });

/** ScatterElements adding `updates` to `onto`; it has no sums of float16, which are made in float32. */
function scatterSum(b: GraphBuilder, [onto, at, updates]: readonly string[], axis: number, dtype: DType): string {
  const attributes = { axis, reduction: 'add' };
  if (dtype !== 'float16') return b.node('ScatterElements', [onto, at, updates], attributes);
  return b.cast(b.node('ScatterElements', [b.cast(onto, 'float32'), at, b.cast(updates, 'float32')], attributes), dtype);
}

/** ScatterElements adds row by row in order; ScatterND would race between threads, and bits would differ. */
function scatterRows(b: GraphBuilder, [indices, updates]: readonly string[], tensor: TensorOf<'scatterAdd' | 'scatterAddOnto'>) {
  const [indexType, updateType] = tensor.inputs;
  const rowDims = tensor.dims.slice(1) as number[];
  const flat: Dims = [dimProduct(indexType.dims), ...rowDims];
  const flatUpdates = b.node('Reshape', [updates, b.reshapeTarget(updateType.dims, flat)]);
  const column = b.node('Reshape', [indices, b.int64([-1, ...rowDims.map(() => 1)])]);
  const wide = b.shaped(b.node('Expand', [column, b.int64([1, ...rowDims])]), { dtype: 'int64', dims: flat });
  return (onto: string) => scatterSum(b, [onto, wide, flatUpdates], 0, tensor.dtype);
}

/**
 * The transpose of a matrix, behind a reshape to its own dims, or the runtime would take it into the product.
 */
function transposedApart(b: GraphBuilder, matrix: string, columns: number): string {
  return b.node('Reshape', [b.node('Transpose', [matrix], { perm: [1, 0] }), b.int64([columns, -1])]);
}

/** Columns of the narrower matrix from which on it pays: it did with 768, but not with 256. */
const LEAST_TRANSPOSED = 512;

/**
 * a^T b of two matrices, as gradients of weights are, by a plain product: the kernel transposes pieces of `a`
 * anew for each block of the columns of `b`. The narrower of the two is transposed before, once; where that
 * is `b`, the result is, too, unless memory comes first. Undefined for anything else.
 */
function transposedProduct(b: GraphBuilder, [x, y]: readonly string[], { dims, inputs, attributes }: TensorOf<'matmul'>, lean = false) {
  const [rows, columns] = dims;
  const isPair = dims.length === 2 && inputs.every((x) => x.dims.length === 2);
  if (!isPair || !attributes.transA || attributes.transB || attributes.alpha !== 1) return undefined;
  if (typeof rows !== 'number' || typeof columns !== 'number' || Math.min(rows, columns) < LEAST_TRANSPOSED) return undefined;
  if (rows <= columns) return b.node('MatMul', [transposedApart(b, x, rows), y]);
  if (lean) return undefined;
  return b.node('Transpose', [b.node('MatMul', [transposedApart(b, y, columns), x])], { perm: [1, 0] });
}

/** Indices where a mask holds, one row each. */
const nonZero = (b: GraphBuilder, mask: string) => b.node('Transpose', [b.node('NonZero', [mask])], { perm: [1, 0] });

const rules: Rules = {
  constant: (b, _, { attributes: { data }, dims, dtype }) => b.initializer(data, dims as number[], dtype),
  add: direct('Add'),
  sub: direct('Sub'),
  mul: direct('Mul'),
  div: direct('Div'),
  maximum: direct('Max'),
  hold: (_, [x]) => x,
  neg: direct('Neg'),
  exp: direct('Exp'),
  log: direct('Log'),
  sqrt: direct('Sqrt'),
  tanh: direct('Tanh'),
  sigmoid: direct('Sigmoid'),
  erf: direct('Erf'),
  equal: direct('Equal'),
  greater: direct('Greater'),
  lessOrEqual: direct('LessOrEqual'),
  and: direct('And'),
  or: direct('Or'),
  where: direct('Where'),
  cast: (b, [x], { dtype }) => b.cast(x, dtype),
  matmul(b, inputs, tensor, { recast }) {
    const { transA, transB, alpha } = tensor.attributes;
    if (!transA && !transB && alpha === 1) return b.node('MatMul', inputs);
    const attributes = { transA: Number(transA), transB: Number(transB), alpha: { float: alpha } };
    return transposedProduct(b, inputs, tensor, recast) ?? b.node('FusedMatMul', inputs, attributes, MICROSOFT);
  },
  reshape: (b, [x], { inputs: [{ dims }], ...tensor }) => b.node('Reshape', [x, b.reshapeTarget(dims, tensor.dims)]),
  transpose: (b, inputs, { attributes: { perm } }) => b.node('Transpose', inputs, { perm }),
  concat: (b, inputs, { attributes: { axis } }) => b.node('Concat', inputs, { axis }),
  slice: (b, [x], { attributes: { axis, start, end } }) => b.node('Slice', [x, b.int64([start]), b.int64([end]), b.int64([axis])]),
  takeLast(b, [x, count], { inputs, attributes: { axis } }) {
    // -0 is the first entry, so that 0 keeps all
    const start = b.node('Neg', [inputs[1].dtype === 'int64' ? count : b.cast(count, 'int64')]);
    return b.node('Slice', [x, b.node('Unsqueeze', [start, b.int64([0])]), b.int64([Number.MAX_SAFE_INTEGER]), b.int64([axis])]);
  },
  pad: (b, [x], { attributes: { axis, before, after } }) => b.node('Pad', [x, b.int64([before, after]), '', b.int64([axis])]),
  expand: (b, [x], { dims }) => b.node('Expand', [x, b.shape(dims)]),
  reduceSum: reduction('ReduceSum'),
  reduceMean: reduction('ReduceMean'),
  reduceMax: reduction('ReduceMax'),
  softmax: (b, inputs) => b.node('Softmax', inputs, { axis: -1 }),
  argmax: (b, inputs) => b.cast(b.node('ArgMax', inputs, { axis: -1, keepdims: 0 }), 'int32'),
  cumsum: (b, [x], { dims }) => b.node('CumSum', [x, b.initializer(typedData([dims.length - 1], 'int64'), [], 'int64')]),
  gather: (b, inputs) => b.node('Gather', inputs, { axis: 0 }),
  scatterAdd: (b, inputs, tensor) => scatterRows(b, inputs, tensor)(b.zeros(tensor.dims, tensor.dtype)),
  scatterAddOnto: (b, inputs, tensor) => scatterRows(b, inputs, tensor)(inputs[2]),
  takeAlong(b, [x, indices]) {
    const elements = b.node('GatherElements', [x, b.column(indices)], { axis: -1 });
    return b.node('Squeeze', [elements, b.int64([-1])]);
  },
  putAlong(b, [indices, values], { dims, dtype }) {
    const [at, updates] = [b.column(indices), b.column(values)];
    return b.node('ScatterElements', [b.zeros(dims, dtype), at, updates], { axis: -1 });
  },
  putAlongOnto(b, [indices, values, onto], { dtype }) {
    const [at, updates] = [b.column(indices), b.column(values)];
    return scatterSum(b, [onto, at, updates], -1, dtype);
  },
  maskedScatter: (b, [x, mask, rows]) => b.node('ScatterND', [x, nonZero(b, mask), rows]),
  maskedGather: (b, [x, mask]) => b.node('GatherND', [x, nonZero(b, mask)]),
  rotary: (b, [x, positions, cos, sin]) => b.node('RotaryEmbedding', [x, b.cast(positions, 'int64'), cos, sin], {}, MICROSOFT),
  matmulPacked(b, [x, packed, scale], { inputs, attributes: { bits, blockSize, alpha }, dtype }, { packedAccuracy = 'int8' }) {
    const [K, N] = [inputs[0].dims.at(-1) as number, inputs[1].dims[0] as number];
    // accuracy_level 0 leaves x in float32, 4 rounds it to int8
    const attributes = { K, N, bits, block_size: blockSize, accuracy_level: packedAccuracy === 'int8' ? 4 : 0 };
    const blocks = b.packedBlocks(packed, inputs[1], (blockSize * bits) / 8);
    const product = b.node('MatMulNBits', [x, blocks, scale], attributes, MICROSOFT);
    return alpha === 1 ? product : b.node('Mul', [product, b.number(alpha, dtype)]);
  },
  gatherPacked(b, [packed, scale, indices], { attributes: { bits, blockSize } }) {
    const attributes = { gather_axis: 0, quantize_axis: 1, bits, block_size: blockSize };
    return b.node('GatherBlockQuantized', [packed, indices, scale], attributes, MICROSOFT);
  },
  // the matrix itself, where no kernel reads it as it is
  dequantize: (b, [packed, scale], { attributes, dims, dtype }) => b.unpacked(packed, scale, attributes, dims as number[], dtype),
  classLoop,
  rmsNorm: (b, inputs, { attributes: { epsilon } }) =>
    b.node('SimplifiedLayerNormalization', inputs, { axis: -1, epsilon: { float: epsilon } }),
  layerNorm: (b, inputs, { attributes: { epsilon } }) => b.node('LayerNormalization', inputs, { axis: -1, epsilon: { float: epsilon } }),
  geluTanh: (b, inputs) => b.node('Gelu', inputs, { approximate: 'tanh' }),
  quickGelu: (b, inputs) => b.node('QuickGelu', inputs, { alpha: { float: 1.702 } }, MICROSOFT),
};

/** What is written otherwise for a target than by `rules`. */
const RULES_OF: { readonly [T in Target]: Partial<Rules> } = { cpu: {}, anywhere: { matmul: plainProduct }, webgpu: webgpuRules };
