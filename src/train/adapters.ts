// The adapters of a stage (LoRA): which layers have one, what they begin with, how they are fed while they
// are trained. What is trained is merged into the weights of the checkpoint, and lies beside them in peft's
// format.

import { int32, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type Dim, dimSize } from '../graph/dims.ts';
import { input, type Tensor, topologicalOrder } from '../graph/tensor.ts';
import type { LlavaConfig } from '../models/llava.ts';
import { type LossGraph, linearLayers } from '../models/programs.ts';
import { downName, dropoutMask, isOfAdapter, oddNumber, upName } from '../nn/lora.ts';
import { type AdapterOf, initialize, uniform } from '../nn/parameters.ts';
import { resolvePath } from '../paths.ts';
import { type AdapterContents, fitAdapter, type LayerShape, readAdapter, scaleOf } from '../pretrained/adapter.ts';
import { createRandom } from '../random.ts';
import type { MicroBatch } from './batch.ts';
import { likest, patternOf } from './patterns.ts';
import type { LlavaStage } from './recipe.ts';
import type { StageData } from './stage.ts';
import type { ModelWeights } from './weights.ts';

export interface StageAdapters extends Pick<AdapterContents, 'isRankStabilized' | 'dropout' | 'layers' | 'wholeModules' | 'base'> {
  /** Values of A and B before the first step. */
  values: ReadonlyMap<string, Float32Array>;
}

export interface AdapterPlan {
  stage: LlavaStage;
  config: LlavaConfig;
  seed: number;
  /** Folder of the model that the stage begins with, if there is one. */
  base: string | undefined;
}

const moduleOf = (name: string) => name.slice(0, name.indexOf('.'));

/**
 * The adapters that a stage asks for, undefined where it asks for none. UserError for a pattern that no layer
 * has, for a layer whose module is trained whole, or an adapter folder that does not fit.
 */
export async function adaptersOf({ stage, config, seed, base }: AdapterPlan): Promise<StageAdapters | undefined> {
  const { lora, train, name } = stage;
  if (!lora) return undefined;
  const linear = linearLayers(config);
  const adapters = 'adapter' in lora ? await adaptersIn(lora.adapter, lora.dropout, linear) : freshAdapters(name, lora, linear, seed);
  const both = [...adapters.layers.keys()].find((module) => (train as string[]).includes(moduleOf(module)));
  if (both !== undefined)
    throw new UserError(
      `stage ${name}: ${both} has an adapter, but ${moduleOf(both)} is trained whole: take it out of \`train\`, or the layer out of \`lora.targets\``,
    );
  return { ...adapters, base, wholeModules: [...train] };
}

type OwnAdapters = Pick<StageAdapters, 'isRankStabilized' | 'dropout' | 'layers' | 'values'>;
type Linear = ReadonlyMap<string, readonly number[]>;

function freshAdapters(
  stage: string,
  { rank, alpha, dropout, targets, rslora }: Extract<NonNullable<LlavaStage['lora']>, { rank: number }>,
  linear: Linear,
  seed: number,
): OwnAdapters {
  const layers = new Map<string, LayerShape>();
  const values = new Map<string, Float32Array>();
  for (const target of targets) {
    const pattern = patternOf(target);
    const modules = [...linear.keys()].filter((module) => pattern.test(module));
    if (modules.length === 0)
      throw new UserError(`stage ${stage}: lora.targets: no linear layer is called ${target}: ${likest([...linear.keys()], target)}`);
    for (const module of modules) layers.set(module, { rank, alpha });
  }
  for (const module of layers.keys()) {
    const [outFeatures, inFeatures] = linear.get(module)!;
    const initializer = uniform(inFeatures ** -0.5);
    const random = createRandom(seed, stage, downName(module));
    values.set(downName(module), initialize({ dims: [rank, inFeatures], initializer }, random));
    values.set(upName(module), new Float32Array(outFeatures * rank));
  }
  return { isRankStabilized: rslora, dropout, layers, values };
}

/** Those of a folder, to be trained further. */
async function adaptersIn(path: string, dropout: number | undefined, linear: Linear): Promise<OwnAdapters> {
  const folder = resolvePath(path, 'lora.adapter');
  const dimsOf = (name: string) => (name.endsWith('.weight') ? linear.get(name.slice(0, -'.weight'.length)) : undefined);
  const read = await readAdapter(folder);
  const whole = [...read.tensors.keys()].find((name) => !isOfAdapter(name));
  if (whole !== undefined)
    throw new UserError(
      `${folder} holds ${whole}, trained whole, beside the adapter: merge the two into a model first (llava-gemma merge), and train that further`,
    );
  const adapter = fitAdapter(read, dimsOf, 'the model');
  const values = new Map([...adapter.tensors].map(([name, { data }]) => [name, data]));
  return { isRankStabilized: adapter.isRankStabilized, dropout: dropout ?? adapter.dropout, layers: adapter.layers, values };
}

/** Adds the adapters to the weights, as they are before the first step. */
export function addAdapters(weights: ModelWeights, { layers, values, isRankStabilized }: StageAdapters): void {
  for (const [module, shape] of layers)
    weights.addAdapter(module, {
      rank: shape.rank,
      scale: scaleOf(shape, isRankStabilized),
      down: values.get(downName(module))!,
      up: values.get(upName(module))!,
    });
}

// === Dropout ===

const rowsName = (module: string) => `dropout.${module}`;

/**
 * How the graph of the loss sees the adapters; what they leave out depends on inputs that `withDropout`
 * gives.
 */
export function adapterGraph({ layers, isRankStabilized, dropout }: StageAdapters): AdapterOf {
  const inputs = new Map<string, Tensor>();
  const rowsOf = (x: Tensor, module: string) => {
    const name = rowsName(moduleOf(module));
    const rows = inputs.get(name) ?? input(name, 'int32', [...x.dims.slice(0, -1), 1]);
    inputs.set(name, rows);
    return rows;
  };
  return (module) => {
    const shape = layers.get(module);
    if (!shape) return undefined;
    const scale = scaleOf(shape, isRankStabilized);
    if (dropout === 0) return { rank: shape.rank, scale };
    return { rank: shape.rank, scale, dropout: { rate: dropout, mask: (x, name) => dropoutMask(x, rowsOf(x, name), dropout, name) } };
  };
}

/**
 * The same batches, with the random numbers of the dropout: a function of the seed, the step and the batch.
 * `first` is the number of the first batch in its step.
 */
export function withDropout(
  batches: StageData['batches'],
  rows: ReadonlyMap<string, readonly Dim[]>,
  seed: number,
  stage: string,
  first = 0,
): StageData['batches'] {
  if (rows.size === 0) return batches;
  return async function* dropped(step) {
    let index = first;
    for await (const batch of batches(step)) {
      const random = createRandom(seed, 'dropout', stage, step, index++);
      const inputs: Record<string, Value> = { ...batch.inputs };
      for (const [name, dims] of rows) {
        const sizes = dims.map((dim) => sizeOf(dim, batch));
        const count = sizes.reduce((a, b) => a * b, 1);
        inputs[name] = int32(
          Int32Array.from({ length: count }, () => oddNumber(random)),
          sizes,
        );
      }
      yield { ...batch, inputs };
    }
  };
}

/** The inputs that the dropout of a graph needs, with their dims. */
export function dropoutInputs({ outputs }: LossGraph): Map<string, readonly Dim[]> {
  const rows = new Map<string, readonly Dim[]>();
  for (const tensor of topologicalOrder(Object.values(outputs)))
    if (tensor.op === 'input' && tensor.attributes.name.startsWith(rowsName(''))) rows.set(tensor.attributes.name, tensor.dims);
  return rows;
}

/** The size of a dim in a batch of packed rows and pictures. */
function sizeOf(dim: Dim, { inputs }: MicroBatch): number {
  const [batch, tokens] = inputs.input_ids.dims;
  const images = (inputs.image_features ?? inputs.pixel_values).dims[0];
  const known: Record<string, number> = { batch, tokens, images };
  return dimSize(dim, (name) => known[name]);
}
