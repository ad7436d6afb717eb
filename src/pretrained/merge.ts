// An adapter put into the weights that it belongs to: afterwards the model answers the same without it.

import { type Constant, type Engine, float32 } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { compileGraph, constantsOf, mergedWeightGraph } from '../models/programs.ts';
import { downName, isOfAdapter, upName, weightName } from '../nn/lora.ts';
import { type Adapter, packedName, type Storage } from '../nn/parameters.ts';
import { fitAdapter, readAdapter, scaleOf } from './adapter.ts';
import type { ModelFolder } from './folder.ts';
import type { FloatTensor } from './hub-form.ts';

export interface MergedLayer extends Pick<Adapter, 'rank' | 'scale'> {
  module: string;
  /** [out, in] of the weight, and how it is stored. */
  dims: readonly number[];
  storage: Storage;
}

/** The merged weight [out, in] of a layer; `values` hold the weight, A and B by the names of their inputs. */
export async function mergedValues(
  engine: Engine,
  { module, dims, storage, ...adapter }: MergedLayer,
  values: ReadonlyMap<string, Constant>,
): Promise<Float32Array> {
  const storageOf = (name: string) => (name === weightName(module) ? storage : 'float32');
  const graph = mergedWeightGraph(module, dims, adapter, { storage: storageOf });
  const program = await compileGraph(engine, graph, constantsOf(graph.parameters, values));
  try {
    return (await program.run({})).merged.data as Float32Array;
  } finally {
    await program.dispose();
  }
}

/**
 * The tensors of a model that an adapter folder changes, as they are with it; each is computed when its turn
 * comes. UserError for an adapter that does not fit.
 */
export async function mergedTensors(model: ModelFolder, dir: string, engine: Engine): Promise<Map<string, FloatTensor>> {
  const read = await readAdapter(dir);
  const dimsOf = (name: string) => {
    if (model.has(packedName(name)))
      throw new UserError(`${model.dir} is quantized: merge the adapter into the model that it was made from, and quantize that`);
    return model.has(name) ? model.shape(name) : undefined;
  };
  const adapter = fitAdapter(read, dimsOf, model.dir);
  const merged = new Map<string, FloatTensor>();
  for (const [module, shape] of adapter.layers) {
    const name = weightName(module);
    const dims = model.shape(name);
    const [down, up] = [adapter.tensors.get(downName(module))!, adapter.tensors.get(upName(module))!];
    const layer = { module, dims, storage: 'float32' as const, rank: shape.rank, scale: scaleOf(shape, adapter.isRankStabilized) };
    merged.set(name, {
      shape: dims,
      async *data() {
        const weight = float32(await model.float32(name), dims);
        const values = { [name]: weight, [downName(module)]: float32(down.data, down.dims), [upName(module)]: float32(up.data, up.dims) };
        yield mergedValues(engine, layer, new Map(Object.entries(values)));
      },
    });
  }
  for (const [name, { dims, data }] of adapter.tensors) if (!isOfAdapter(name)) merged.set(name, { shape: dims, data: () => [data] });
  return merged;
}
