// A graph that belongs to a model, with the parameters that it asks for, and its program for inference: parameters are constants there.

import { type Engine, float32, type Program, type Value } from '../engine/engine.ts';
import type { Tensor } from '../graph/tensor.ts';
import { type Parameter, Parameters } from '../nn/parameters.ts';

export interface ModelGraph {
  outputs: Record<string, Tensor>;
  parameters: readonly Parameter[];
}

/** Runs `build`, which makes the outputs, and lists what it asked for. */
export function modelGraph(build: (p: Parameters) => Record<string, Tensor>): ModelGraph {
  const parameters = new Parameters();
  return { outputs: build(parameters), parameters: parameters.list() };
}

/** Compiles a graph with its parameters fixed at `values`, by Hugging Face name; others in there are left aside. */
export function compileGraph(
  engine: Engine,
  { outputs, parameters }: ModelGraph,
  values: ReadonlyMap<string, Float32Array>,
): Promise<Program> {
  const constants = new Map<string, Value>();
  for (const { name, dims } of parameters) {
    const data = values.get(name);
    if (!data) throw new Error(`no value for parameter ${name}`);
    constants.set(name, float32(data, dims));
  }
  return engine.compile(outputs, { constants });
}
