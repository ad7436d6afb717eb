// Graph-to-graph passes. Each takes named outputs and returns named outputs that compute the same. Dead nodes
// need no pass: a node that no output reaches is not part of the graph.

import { compositeRules } from './composites.ts';
import { type Dims, sameDims, substituteDim } from './dims.ts';
import { add, expand, reshape, sub } from './primitives.ts';
import {
  type Composite,
  input,
  inputName,
  isIn,
  numbersOf,
  type Op,
  type Tensor,
  type TensorOf,
  type TypedData,
  topologicalOrder,
  withInputs,
} from './tensor.ts';

export type Outputs = Readonly<Record<string, Tensor>>;
export type Pass = (outputs: Outputs) => Outputs;

/** A node over other inputs; itself where they are the ones it has. */
function rebuild(node: Tensor, inputs: readonly Tensor[]): Tensor {
  return inputs.every((x, i) => x === node.inputs[i]) ? node : withInputs(node, inputs);
}

/** Rebuilds a graph bottom-up: `replace` gets each node with its inputs already rebuilt. */
export function rewrite(outputs: Outputs, replace: (node: Tensor) => Tensor): Outputs {
  const rebuilt = new Map<Tensor, Tensor>();
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    const inputs = tensor.inputs.map((x) => rebuilt.get(x)!);
    rebuilt.set(tensor, replace(rebuild(tensor, inputs)));
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, rebuilt.get(tensor)!]));
}

/**
 * Replaces composites by their definitions, except those that `keep` takes whole. Markers such as
 * stopGradient vanish.
 */
export function expandComposites(outputs: Outputs, keep: (op: Composite) => boolean = () => false): Outputs {
  const expandNode = (node: Tensor): Tensor => {
    if (node.op === 'stopGradient') return node.inputs[0];
    if (!isIn(compositeRules, node) || keep(node.op)) return node;
    // a definition may use composites itself
    const inputs = new Set<Tensor>(node.inputs);
    const walk = (tensor: Tensor, seen: Map<Tensor, Tensor>): Tensor => {
      if (inputs.has(tensor) || tensor.inputs.length === 0) return tensor;
      const known = seen.get(tensor);
      if (known) return known;
      const children = tensor.inputs.map((x) => walk(x, seen));
      const result = expandNode(rebuild(tensor, children));
      seen.set(tensor, result);
      return result;
    };
    return walk(definitionOf(node), new Map());
  };
  return rewrite(outputs, expandNode);
}

function definitionOf<O extends Composite>(node: TensorOf<O>): Tensor {
  return compositeRules[node.op].definition(node);
}

/** Merges nodes that compute the same: the softmax that a gradient rule writes again is the forward's own. */
export function mergeCommon(outputs: Outputs): Outputs {
  const ids = new Map<Tensor, number>();
  const byKey = new Map<string, Tensor>();
  const data = new Map<TypedData, number>();
  const describe = (value: unknown): string => {
    if (!ArrayBuffer.isView(value)) return JSON.stringify(value);
    const array = value as TypedData;
    if (array.length <= 16) return `${array.constructor.name}(${array.join()})`;
    if (!data.has(array)) data.set(array, data.size);
    return `#${data.get(array)}`;
  };
  return rewrite(outputs, (node) => {
    const attributes = Object.entries(node.attributes)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => `${name}=${describe(value)}`)
      .join(';');
    const inputs = node.inputs.map((x) => ids.get(x)).join();
    const key = `${node.op}(${inputs})${attributes}:${node.dtype}[${node.dims.join()}]`;
    const known = byKey.get(key);
    if (known) return known;
    byKey.set(key, node);
    ids.set(node, ids.size);
    return node;
  });
}

/** Small algebra that gradient rules leave behind: x * 1, x + 0, -(-x), a + (-b). */
export function simplify(outputs: Outputs): Outputs {
  /** Whether `x` is the scalar constant `value`, 0 or 1. */
  const is = (x: Tensor, value: 0 | 1): boolean =>
    x.op === 'constant' && x.dims.length === 0 && numbersOf(x.attributes.data, x.dtype)[0] === value;
  return rewrite(outputs, (node) => {
    const [a, b] = node.inputs;
    if (node.op === 'neg' && a.op === 'neg') return a.inputs[0];
    if (node.op === 'mul') {
      if (is(b, 1)) return a;
      if (is(a, 1)) return b;
    }
    if (node.op === 'div' && is(b, 1)) return a;
    if ((node.op === 'add' || node.op === 'sub') && is(b, 0)) return a;
    if (node.op === 'add' && is(a, 0)) return b;
    if (node.op === 'add' && b.op === 'neg') return sub(a, b.inputs[0]);
    if (node.op === 'sub' && b.op === 'neg') return add(a, b.inputs[0]);
    return node;
  });
}

/** Ops whose operands broadcast: one that is the same for all need not be repeated. */
const BROADCASTING: ReadonlySet<Op> = new Set<Op>([
  'add',
  'sub',
  'mul',
  'div',
  'maximum',
  'equal',
  'greater',
  'lessOrEqual',
  'and',
  'or',
  'where',
  'matmul',
]);

/**
 * Computes once what is the same along the leading axis `axis` (a name, such as "batch"): everything that
 * none of the inputs `varied` goes into. Inputs that are the same are then given once, with 1 in the place of
 * the axis. One forward pass serves the backward passes of many losses this way.
 */
export function shareAxis(outputs: Outputs, axis: string, varied: ReadonlySet<string>): Outputs {
  const once = (dims: Dims): Dims => dims.map((dim) => substituteDim(dim, axis, 1));
  const isVaried = new Set<Tensor>();
  const rebuilt = new Map<Tensor, Tensor>();
  /**
   * A shared operand as often as its user needs it. The axis leads, also where it is multiplied into another.
   */
  const repeated = (original: Tensor): Tensor => {
    const shared = rebuilt.get(original)!;
    if (isVaried.has(original) || sameDims(shared.dims, original.dims)) return shared;
    return reshape(expand(reshape(shared, [1, ...shared.dims]), [axis, ...shared.dims]), original.dims);
  };
  /** Whether an operand broadcasts as it is: the axis is one of its dims, by itself. */
  const broadcasts = ({ dims }: Tensor) => dims.every((dim) => dim === axis || substituteDim(dim, axis, 1) === dim);
  for (const node of topologicalOrder(Object.values(outputs))) {
    if (node.op === 'input' ? varied.has(inputName(node)) : node.inputs.some((x) => isVaried.has(x))) isVaried.add(node);
    if (isVaried.has(node)) {
      const spreads = BROADCASTING.has(node.op) && node.inputs.some((x) => isVaried.has(x) && x.dims.includes(axis));
      const operands = node.inputs.map((x) => (spreads && broadcasts(x) ? rebuilt.get(x)! : repeated(x)));
      rebuilt.set(node, rebuild(node, operands));
    } else if (node.op === 'input') {
      rebuilt.set(node, sameDims(once(node.dims), node.dims) ? node : input(inputName(node), node.dtype, once(node.dims)));
    } else {
      const same = rebuild(
        node,
        node.inputs.map((x) => rebuilt.get(x)!),
      );
      rebuilt.set(node, Object.freeze({ ...same, dims: once(node.dims) }) as Tensor);
    }
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, rebuilt.get(tensor)!]));
}
