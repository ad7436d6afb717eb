// Reverse-mode differentiation: walks the nodes of a scalar's graph backwards and returns new tensors.
// Gradient rules are written with the ops themselves, so a gradient is a graph like any other: it lowers, it
// can be exported, it can be differentiated again.

import { compositeRules } from './composites.ts';
import { ShapeError } from './dims.ts';
import { add, gradients as primitiveGradients } from './primitives.ts';
import {
  type Composite,
  constant,
  createNode,
  isIn,
  type Primitive,
  type Tensor,
  type TensorOf,
  topologicalOrder,
  withInputs,
} from './tensor.ts';

type InputGradients = readonly (Tensor | undefined)[];

/**
 * Gradients of `loss` (a scalar, dims []) with respect to each of `wrt`, in order. Nothing is computed for
 * branches that reach none of them: a frozen weight costs no gradient. Throws where `loss` does not depend on
 * one of them.
 */
export function grad(loss: Tensor, wrt: readonly Tensor[]): Tensor[] {
  if (loss.dims.length !== 0) throw new ShapeError('grad', 'the loss must be a scalar', [loss.dims]);
  const gradients = backpropagate(loss, constant(1, [], loss.dtype), wrt);
  return wrt.map((tensor) => {
    const gradient = gradients.get(tensor);
    if (!gradient)
      throw new Error(`grad: the loss does not depend on ${tensor.op === 'input' ? tensor.attributes.name : `a ${tensor.op}`}`);
    return gradient;
  });
}

/** Gradients of what `y` and `wrt` depend on, `dy` being the gradient of `y`. */
function backpropagate(y: Tensor, dy: Tensor, wrt: readonly Tensor[]): Map<Tensor, Tensor> {
  const gradients = new Map<Tensor, Tensor>([[y, dy]]);
  const wanted = new Set(wrt);
  const order = topologicalOrder([y]);
  // what depends on a wanted tensor; a composite's own inputs cut the walk when its definition is
  // differentiated
  const needed = new Set<Tensor>();
  for (const tensor of order) if (wanted.has(tensor) || tensor.inputs.some((x) => needed.has(x))) needed.add(tensor);

  for (const tensor of order.reverse()) {
    const gradient = gradients.get(tensor);
    if (!gradient || !needed.has(tensor) || tensor.inputs.length === 0) continue;
    inputGradients(tensor, gradient).forEach((part, i) => {
      const x = tensor.inputs[i];
      if (!part || !needed.has(x)) return;
      const sum = gradients.get(x);
      gradients.set(x, sum ? add(sum, part) : part);
    });
  }
  return gradients;
}

function inputGradients(tensor: Tensor, dy: Tensor): InputGradients {
  if (isIn(primitiveGradients, tensor)) return primitiveGradient(tensor, dy);
  if (isIn(compositeRules, tensor)) return ruleGradient(tensor, dy) ?? definitionGradient(tensor, dy);
  throw new Error(`grad: ${tensor.op} is an engine's own op; differentiate before the graph is lowered`);
}

function primitiveGradient<O extends Primitive>(tensor: TensorOf<O>, dy: Tensor): InputGradients {
  return primitiveGradients[tensor.op](tensor, dy);
}

/** Gradient of a composite by its shorter rule; undefined where it has none. */
export function ruleGradient<O extends Composite>(tensor: TensorOf<O>, dy: Tensor): InputGradients | undefined {
  return compositeRules[tensor.op].gradient?.(tensor, dy);
}

/** Gradient of a composite through its definition in primitives, whatever shorter rule it may carry. */
export function definitionGradient<O extends Composite>(tensor: TensorOf<O>, dy: Tensor): InputGradients {
  // fresh leaves stand for the inputs, so that the walk ends there and inputs that are the same tensor stay
  // apart
  const leaves = tensor.inputs.map((x) => createNode('stopGradient', [x], {}, x));
  const body = compositeRules[tensor.op].definition(withInputs(tensor, leaves));
  const gradients = backpropagate(body, dy, leaves);
  return leaves.map((leaf) => gradients.get(leaf));
}
