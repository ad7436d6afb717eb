// A softmax over very many classes as a Scan over pieces of their weight, with logits of one piece at a time
// (onnx/docs/Operators.md, Scan; the running maximum is that of Milakov & Gimelshein 2018, and of Dao et al.
// 2022).

import type { Tensor, TensorOf } from '../../graph/tensor.ts';
import type { GraphBuilder } from './builder.ts';
import { MICROSOFT } from './writer.ts';

/** Classes of a piece, at most; and at least, where the number of classes has a divisor between. */
const MOST = 4096;
const LEAST = 256;

/** Into pieces of how many rows a matrix of `rows` is cut: all of one size. */
function pieceRows(rows: number): number {
  for (let size = MOST; size >= LEAST; size--) if (rows % size === 0) return size;
  return rows;
}

type Scanned = TensorOf<'linearLogSumExp' | 'classMean'>;

/**
 * log sum exp of the logits of each row and, where the graph has it, the mean of the classes' rows, in one loop.
 * The weight may be stored in 16 bits: its pieces are cast. `order` has all tensors of the graph.
 */
export function scanClasses(b: GraphBuilder, [hidden, weight]: readonly string[], tensor: Scanned, order: readonly Tensor[]) {
  const { inputs, attributes, dtype } = tensor;
  const { scale, softcap } = attributes;
  const [rows, width] = inputs[0].dims;
  const classes = inputs[1].dims[0] as number;
  const isTwin = (other: Tensor) => other.op === 'classMean' && other.inputs.every((x, i) => x === inputs[i]);
  const hasMean = order.some(isTwin);
  return b.once(`classes ${hidden} ${weight} ${scale} ${softcap}`, () => {
    const size = pieceRows(classes);
    const pieces = b.node('Reshape', [weight, b.int64([classes / size, size, width as number])]);
    const initial = (value: number, columns: number) => {
      const name = b.node('Expand', [b.number(value, dtype), b.shape([rows, columns])]);
      return { name, dtype, dims: [rows, columns] };
    };
    const state = [initial(-Infinity, 1), initial(0, 1), ...(hasMean ? [initial(0, width as number)] : [])];
    const over = { name: pieces, dtype: inputs[1].dtype, dims: [classes / size, size, width] };
    const reduce = (op: string, x: string) => b.node(op, [x, b.int64([1])], { keepdims: 1 });
    const [max, sum, weighted] = b.scan(state, over, ([max, sum, weighted], piece) => {
      const part = inputs[1].dtype === dtype ? piece : b.cast(piece, dtype);
      const alpha = { float: scale / (softcap ?? 1) };
      const product = b.node('FusedMatMul', [hidden, part], { transA: 0, transB: 1, alpha }, MICROSOFT);
      const tanh = softcap === undefined ? undefined : b.node('Tanh', [product]);
      const logits = tanh === undefined ? product : b.node('Mul', [tanh, b.number(softcap!, dtype)]);
      const higher = b.node('Max', [max, reduce('ReduceMax', logits)]);
      const shrink = b.node('Exp', [b.node('Sub', [max, higher])]);
      const terms = b.node('Exp', [b.node('Sub', [logits, higher])]);
      const grown = (before: string, more: string) => b.node('Add', [b.node('Mul', [before, shrink]), more]);
      const next = [higher, grown(sum, reduce('ReduceSum', terms))];
      if (!hasMean) return next;
      const slope = tanh === undefined ? undefined : b.node('Sub', [b.number(1, dtype), b.node('Mul', [tanh, tanh])]);
      const bent = slope === undefined ? terms : b.node('Mul', [terms, slope]);
      return [...next, grown(weighted, b.node('MatMul', [bent, part]))];
    });
    return {
      logSumExp: b.node('Squeeze', [b.node('Add', [max, b.node('Log', [sum])]), b.int64([1])]),
      mean: hasMean ? b.node('Div', [weighted, sum]) : undefined,
    };
  });
}
