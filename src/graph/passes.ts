// Graph-to-graph passes. Each takes named outputs and returns named outputs that compute the same. Dead nodes need no pass: a node
// that no output reaches is not part of the graph.

import { makeNode, opRule, type Tensor, type TypedData, topologicalOrder } from './tensor.ts';

export type Outputs = Readonly<Record<string, Tensor>>;
export type Pass = (outputs: Outputs) => Outputs;

/** Rebuilds a graph bottom-up: `replace` gets each node with its inputs already rebuilt. */
export function rewrite(outputs: Outputs, replace: (node: Tensor) => Tensor): Outputs {
  const rebuilt = new Map<Tensor, Tensor>();
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    const inputs = tensor.inputs.map((x) => rebuilt.get(x)!);
    const same = inputs.every((x, i) => x === tensor.inputs[i]);
    rebuilt.set(tensor, replace(same ? tensor : Object.freeze({ ...tensor, inputs })));
  }
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, rebuilt.get(tensor)!]));
}

/** Replaces composites by their definitions, except those that `keep` takes whole. Markers such as stopGradient vanish. */
export function expandComposites(outputs: Outputs, keep: (op: string) => boolean = () => false): Outputs {
  const expandNode = (node: Tensor): Tensor => {
    if (node.op === 'stopGradient') return node.inputs[0];
    const { definition } = opRule(node.op);
    if (!definition || keep(node.op)) return node;
    // a definition may use composites itself
    const inputs = new Set(node.inputs);
    const body = definition(node.inputs, node.attributes);
    const walk = (tensor: Tensor, seen: Map<Tensor, Tensor>): Tensor => {
      if (inputs.has(tensor) || tensor.inputs.length === 0) return tensor;
      const known = seen.get(tensor);
      if (known) return known;
      const children = tensor.inputs.map((x) => walk(x, seen));
      const result = expandNode(children.every((x, i) => x === tensor.inputs[i]) ? tensor : Object.freeze({ ...tensor, inputs: children }));
      seen.set(tensor, result);
      return result;
    };
    return walk(body, new Map());
  };
  return rewrite(outputs, expandNode);
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
    const attributes = Object.keys(node.attributes)
      .sort()
      .map((name) => `${name}=${describe(node.attributes[name])}`)
      .join(';');
    const key = `${node.op}(${node.inputs.map((x) => ids.get(x)).join()})${attributes}`;
    const known = byKey.get(key);
    if (known) return known;
    byKey.set(key, node);
    ids.set(node, ids.size);
    return node;
  });
}

/** Small algebra that gradient rules leave behind: x * 1, x + 0, -(-x), a + (-b). */
export function simplify(outputs: Outputs): Outputs {
  const scalar = (x: Tensor): number | undefined =>
    x.op === 'constant' && x.dims.length === 0 ? Number((x.attributes.data as TypedData)[0]) : undefined;
  return rewrite(outputs, (node) => {
    const [a, b] = node.inputs;
    if (node.op === 'neg' && a.op === 'neg') return a.inputs[0];
    if (node.op === 'mul') {
      if (scalar(b) === 1) return a;
      if (scalar(a) === 1) return b;
    }
    if (node.op === 'div' && scalar(b) === 1) return a;
    if ((node.op === 'add' || node.op === 'sub') && scalar(b) === 0) return a;
    if (node.op === 'add' && scalar(a) === 0) return b;
    if (node.op === 'add' && b.op === 'neg') return makeNode('sub', [a, b.inputs[0]]);
    if (node.op === 'sub' && b.op === 'neg') return makeNode('add', [a, b.inputs[0]]);
    return node;
  });
}
