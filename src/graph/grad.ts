// Reverse-mode differentiation: walks the nodes of a scalar's graph backwards and returns new tensors. Gradient rules are written
// with the ops themselves, so a gradient is a graph like any other: it lowers, it can be exported, it can be differentiated again.

import { add } from './primitives.ts';
import { constant, opRule, ShapeError, type Tensor, topologicalOrder } from './tensor.ts';

/**
 * Gradients of `loss` (a scalar, dims []) with respect to each of `wrt`, in order. Nothing is computed for branches that reach none
 * of them: a frozen weight costs no gradient. Throws where `loss` does not depend on one of them.
 */
export function grad(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  if (loss.dims.length !== 0) throw new ShapeError('grad', 'the loss must be a scalar', [loss.dims]);
  const gradients = backpropagate([[loss, constant(1, [], loss.dtype)]], wrt);
  return wrt.map((tensor) => {
    const gradient = gradients.get(tensor);
    if (!gradient)
      throw new Error(`grad: the loss does not depend on ${tensor.op === 'input' ? tensor.attributes.name : `a ${tensor.op}`}`);
    return gradient;
  });
}

function backpropagate(seeds: readonly (readonly [Tensor, Tensor])[], wrt: readonly Tensor[]): Map<Tensor, Tensor> {
  const gradients = new Map<Tensor, Tensor>();
  const wanted = new Set(wrt);
  const accumulate = (tensor: Tensor, gradient: Tensor) => {
    const sum = gradients.get(tensor);
    gradients.set(tensor, sum ? add(sum, gradient) : gradient);
  };
  for (const [tensor, gradient] of seeds) accumulate(tensor, gradient);

  const order = topologicalOrder(seeds.map(([tensor]) => tensor));
  // what depends on a wanted tensor; a composite's own inputs cut the walk when its definition is differentiated
  const needed = new Set<Tensor>();
  for (const tensor of order) if (wanted.has(tensor) || tensor.inputs.some((x) => needed.has(x))) needed.add(tensor);

  for (let i = order.length - 1; i >= 0; i--) {
    const tensor = order[i];
    const dy = gradients.get(tensor);
    if (!dy || !needed.has(tensor) || tensor.inputs.length === 0) continue;
    const rule = opRule(tensor.op);
    let inputGradients: readonly (Tensor | undefined)[];
    if (rule.gradient) {
      inputGradients = rule.gradient(tensor, dy);
    } else if (rule.definition) {
      inputGradients = definitionGradient(tensor, dy);
    } else {
      throw new Error(`grad: op ${tensor.op} has no gradient`);
    }
    tensor.inputs.forEach((x, j) => {
      const gradient = inputGradients[j];
      if (gradient && needed.has(x)) accumulate(x, gradient);
    });
  }
  return gradients;
}

/** Gradient of a composite through its definition in primitives, whatever shorter rule it may carry. */
export function definitionGradient(tensor: Tensor, dy: Tensor): (Tensor | undefined)[] {
  // fresh leaves stand for the inputs, so that the walk ends there and inputs that are the same tensor stay apart
  const leaves = tensor.inputs.map((x) => Object.freeze({ ...x, op: 'stopGradient', inputs: [x], attributes: {} }));
  const body = opRule(tensor.op).definition!(leaves, tensor.attributes);
  const gradients = backpropagate([[body, dy]], leaves);
  return leaves.map((leaf) => gradients.get(leaf));
}
