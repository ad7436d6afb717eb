// Tables in parts, for a device that takes no buffer as large as the table: the graph has their parts joined
// along the rows, and what reads the table is written to read the parts, so that nothing joins them.

import { type Outputs, rewrite } from '../../graph/passes.ts';
import {
  add,
  concat,
  exp,
  gather,
  greater,
  lessOrEqual,
  log,
  logicalAnd,
  matmul,
  maximum,
  mul,
  reshape,
  slice,
  sub,
  where,
} from '../../graph/primitives.ts';
import { createNode, type Tensor, type TensorOf } from '../../graph/tensor.ts';
import { isStoredCast } from './packed.ts';

/** Rows of a table, from `start` up to `end`. */
interface Part {
  rows: Tensor;
  start: number;
  end: number;
}

/** The parts of a table, or nothing if it is whole. */
function partsOf(table: Tensor): Part[] | undefined {
  if (table.op !== 'concat' || table.attributes.axis !== 0 || table.dims.length !== 2) return undefined;
  const isPart = (part: Tensor) =>
    (part.op === 'input' || part.op === 'dequantize' || isStoredCast(part)) && typeof part.dims[0] === 'number';
  if (!table.inputs.every(isPart)) return undefined;
  let end = 0;
  return table.inputs.map((rows) => {
    const start = end;
    end += rows.dims[0] as number;
    return { rows, start, end };
  });
}

/** The same graph, in which lookups, products and softmaxes over classes read the parts of a table. */
export function readParts(outputs: Outputs): Outputs {
  return rewrite(outputs, (node) => {
    const table = node.op === 'gather' ? node.inputs[0] : node.inputs[1];
    const parts = table && partsOf(table);
    if (!parts) return node;
    switch (node.op) {
      case 'gather':
        return lookup(parts, node.inputs[1]);
      case 'matmul':
        return product(parts, node);
      case 'linearLogSumExp':
        return together(logSumExps(parts, node));
      case 'classMean':
        return mean(parts, node);
      default:
        return node;
    }
  });
}

/** Rows of a table by their numbers, int32. */
function lookup(parts: readonly Part[], indices: Tensor): Tensor {
  const rowsOf = ({ rows, start, end }: Part) => {
    const isHere = logicalAnd(greater(indices, start - 1), lessOrEqual(indices, end - 1));
    return { isHere, found: gather(rows, where(isHere, sub(indices, start), 0)) };
  };
  const [first, ...others] = parts.map(rowsOf);
  return others.reduce((known, { isHere, found }) => where(reshape(isHere, [...isHere.dims, 1]), found, known), first.found);
}

function product(parts: readonly Part[], { inputs: [x], attributes }: TensorOf<'matmul'>): Tensor {
  const { transA, transB } = attributes;
  if (transB)
    return concat(
      parts.map(({ rows }) => matmul(x, rows, attributes)),
      -1,
    );
  return parts.map(({ rows, start, end }) => matmul(slice(x, transA ? -2 : -1, start, end), rows, attributes)).reduce(add);
}

type OverClasses = TensorOf<'linearLogSumExp' | 'classMean'>;

/** The log sum exp over the classes of each part. */
const logSumExps = (parts: readonly Part[], { inputs: [hidden], attributes, dtype }: OverClasses) =>
  parts.map(({ rows }) => createNode('linearLogSumExp', [hidden, rows], attributes, { dtype, dims: [hidden.dims[0]] }));

/** log sum exp of some. */
function together(terms: readonly Tensor[]): Tensor {
  const highest = terms.reduce(maximum);
  return add(highest, log(terms.map((term) => exp(sub(term, highest))).reduce(add)));
}

/** The means over the classes of each part, by the share that it has of the whole. */
function mean(parts: readonly Part[], node: TensorOf<'classMean'>): Tensor {
  const { inputs, attributes, dtype, dims } = node;
  const terms = logSumExps(parts, node);
  const whole = together(terms);
  return parts
    .map(({ rows }, i) => {
      const ofPart = createNode('classMean', [inputs[0], rows], attributes, { dtype, dims });
      return mul(ofPart, reshape(exp(sub(terms[i], whole)), [dims[0], 1]));
    })
    .reduce(add);
}
