// A softmax over very many classes as a Scan over pieces of their weight, with the logits of one piece at a
// time (onnx/docs/Operators.md, Scan). The maximum so far is that of Milakov & Gimelshein 2018.

import type { BlockFormat } from '../../floats.ts';
import { type Outputs, rewrite } from '../../graph/passes.ts';
import { type Composite, createNode, type DType, type Tensor, type TensorOf, topologicalOrder, typedData } from '../../graph/tensor.ts';
import type { GraphBuilder } from './builder.ts';
import { isStoredCast } from './packed.ts';
import type { LoweringRule } from './rule.ts';
import { MICROSOFT, type OnnxValue } from './writer.ts';

/** Composites that become loops. */
export const CLASS_LOOPS = ['linearLogSumExp', 'classMean'] as const satisfies Composite[];

type Whole = TensorOf<(typeof CLASS_LOOPS)[number]>;
const isWhole = (tensor: Tensor): tensor is Whole => (CLASS_LOOPS as readonly string[]).includes(tensor.op);

/** Makes them loops over their weight as it is stored. */
export function loopOverClasses(outputs: Outputs): Outputs {
  const all = topologicalOrder(Object.values(outputs)).filter(isWhole);
  const hasTwin = ({ op, inputs }: Whole) => all.some((other) => other.op !== op && other.inputs.every((x, i) => x === inputs[i]));
  return rewrite(outputs, (node) => {
    if (!isWhole(node)) return node;
    const [hidden, weight] = node.inputs;
    const part = node.op === 'classMean' ? 'mean' : 'logSumExp';
    const attributes = { ...node.attributes, part, both: hasTwin(node) } as const;
    if (weight.op === 'dequantize')
      return createNode('classLoop', [hidden, ...weight.inputs], { ...attributes, format: weight.attributes }, node);
    return createNode('classLoop', [hidden, isStoredCast(weight) ? weight.inputs[0] : weight], attributes, node);
  });
}

/** Classes of a piece, at most; and at least, where the number of classes has a divisor between. */
const MOST = 4096;
const LEAST = 256;

/** Into pieces of how many rows a matrix of `rows` is cut: all of one size. */
function pieceRows(rows: number): number {
  for (let size = MOST; size >= LEAST; size--) if (rows % size === 0) return size;
  return rows;
}

/** How a loop is written for a target. */
interface LoopForm {
  /** Goes over the pieces of what is stored, one after the other, and gives the last state. */
  run(
    b: GraphBuilder,
    state: readonly OnnxValue[],
    over: readonly OnnxValue[],
    body: (state: string[], pieces: string[]) => string[],
  ): string[];
  /** alpha hidden weight^T. */
  product(b: GraphBuilder, hidden: string, weight: string, alpha: number): string;
  /** A piece of a packed weight as the matrix that it stands for. */
  unpacked(b: GraphBuilder, pieces: readonly string[], format: BlockFormat, dims: readonly number[], dtype: DType): string;
}

const scanned: LoopForm = {
  run: (b, state, over, body) => b.scan(state, over, body),
  product: (b, hidden, weight, alpha) =>
    b.node('FusedMatMul', [hidden, weight], { transA: 0, transB: 1, alpha: { float: alpha } }, MICROSOFT),
  unpacked: (b, [packed, scale], format, dims, dtype) => b.unpacked(packed, scale, format, dims, dtype),
};

/** Without a Scan, which the WebGPU provider lacks: each piece has nodes of its own. */
const unrolled: LoopForm = {
  run(b, state, over, body) {
    let names = state.map(({ name }) => name);
    for (let piece = 0; piece < Number(over[0].dims[0]); piece++) {
      const at = b.initializer(typedData([piece], 'int32'), [], 'int32');
      names = body(
        names,
        over.map(({ name }) => b.node('Gather', [name, at], { axis: 0 })),
      );
    }
    return names;
  },
  product: (b, hidden, weight, alpha) => b.node('Gemm', [hidden, weight], { transB: 1, alpha: { float: alpha } }),
  unpacked: (b, [packed, scale], format, [rows]) => b.unpackedByGather(packed, scale, format, rows),
};

/** The result of a loop. One loop makes both parts where the graph has both. */
export const classLoop: LoweringRule<'classLoop'> = (b, operands, { inputs, attributes, dtype }, { target }) => {
  const form = target === 'webgpu' ? unrolled : scanned;
  const { part, both, scale, softcap, format } = attributes;
  const [hidden, ...stored] = operands;
  const [rows, width] = inputs[0].dims as [number | string, number];
  const classes = inputs[1].dims[0] as number;
  const size = pieceRows(classes);
  const needsMean = both || part === 'mean';
  const run = () => {
    const initial = (value: number, columns: number) => {
      const name = b.node('Expand', [b.number(value, dtype), b.shape([rows, columns])]);
      return { name, dtype, dims: [rows, columns] };
    };
    const over = inputs.slice(1).map(({ dtype, dims }, i) => {
      const pieces = [classes / size, size, dims[1] as number];
      return { name: b.node('Reshape', [stored[i], b.int64(pieces)]), dtype, dims: pieces };
    });
    const state = [initial(-Infinity, 1), initial(0, 1), ...(needsMean ? [initial(0, width)] : [])];
    const [max, sum, weighted] = form.run(b, state, over, ([max, sum, weighted], pieces) => {
      const [piece] = pieces;
      const weight = format
        ? form.unpacked(b, pieces, format, [size, width], dtype)
        : over[0].dtype === dtype
          ? piece
          : b.cast(piece, dtype);
      const product = form.product(b, hidden, weight, scale / (softcap ?? 1));
      const tanh = softcap === undefined ? undefined : b.node('Tanh', [product]);
      const logits = tanh === undefined ? product : b.node('Mul', [tanh, b.number(softcap!, dtype)]);
      const reduced = (op: string, x: string) => b.node(op, [x, b.int64([1])], { keepdims: 1 });
      const higher = b.node('Max', [max, reduced('ReduceMax', logits)]);
      const shrink = b.node('Exp', [b.node('Sub', [max, higher])]);
      const terms = b.node('Exp', [b.node('Sub', [logits, higher])]);
      const grown = (before: string, more: string) => b.node('Add', [b.node('Mul', [before, shrink]), more]);
      const next = [higher, grown(sum, reduced('ReduceSum', terms))];
      if (!needsMean) return next;
      const slope = tanh === undefined ? undefined : b.node('Sub', [b.number(1, dtype), b.node('Mul', [tanh, tanh])]);
      const bent = slope === undefined ? terms : b.node('Mul', [terms, slope]);
      return [...next, grown(weighted, b.node('MatMul', [bent, weight]))];
    });
    return { max, sum, weighted };
  };
  const { max, sum, weighted } = both ? b.once(`classes ${operands} ${scale} ${softcap}`, run) : run();
  if (part === 'mean') return b.node('Div', [weighted, sum]);
  return b.node('Squeeze', [b.node('Add', [max, b.node('Log', [sum])]), b.int64([1])]);
};
