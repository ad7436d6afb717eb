// A graph that belongs to a model, with the parameters that it asks for, and its program for inference: parameters are constants there.

import type { Constant, Engine, Program } from '../engine/engine.ts';
import type { Tensor } from '../graph/tensor.ts';
import { inputNames, type PackedFormat, type Parameter, Parameters } from '../nn/parameters.ts';

export interface ModelGraph {
  outputs: Record<string, Tensor>;
  parameters: readonly Parameter[];
}

/** Runs `build`, which makes the outputs, and lists what it asked for. Parameters that `packed` knows come as packed weights. */
export function modelGraph(build: (p: Parameters) => Record<string, Tensor>, packed?: PackedFormat): ModelGraph {
  const parameters = new Parameters(packed);
  return { outputs: build(parameters), parameters: parameters.list() };
}

/** Values of the inputs that hold `parameters`, out of `values`. */
export function constantsOf(parameters: readonly Parameter[], values: ReadonlyMap<string, Constant>): Map<string, Constant> {
  return new Map(
    parameters.flatMap(inputNames).map((name) => {
      const value = values.get(name);
      if (!value) throw new Error(`no value for parameter ${name}`);
      return [name, value];
    }),
  );
}

/** Compiles a graph with its parameters fixed at `values`, by the names of their inputs; others in there are left aside. */
export function compileGraph(engine: Engine, { outputs, parameters }: ModelGraph, values: ReadonlyMap<string, Constant>): Promise<Program> {
  return engine.compile(outputs, { constants: constantsOf(parameters, values) });
}
