// Adapter folders as peft 0.21 writes them: adapter_config.json (tuners/lora/config.py) and
// adapter_model.safetensors, whose tensors are named as the modules of transformers behind
// `base_model.model.` (utils/save_and_load.py).

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { readJsonFile, storedToFloat32 } from '../checkpoint/checkpoint.ts';
import { mapNames, transformers5Name } from '../checkpoint/layouts.ts';
import { UserError } from '../errors.ts';
import { downName, isOfAdapter, loraScale, upName, weightName } from '../nn/lora.ts';
import { openSafetensors, type TensorSource } from '../weights/safetensors.ts';
import { checkConfig } from './folder.ts';

export const ADAPTER_CONFIG = 'adapter_config.json';
export const ADAPTER_WEIGHTS = 'adapter_model.safetensors';
const PREFIX = 'base_model.model.';

/** A linear layer's adapter, by what peft calls its sizes. */
export interface LayerShape {
  rank: number;
  alpha: number;
}

/** An adapter folder's contents; modules and tensors have our names. */
export interface AdapterFolder {
  dir: string;
  isRankStabilized: boolean;
  dropout: number;
  layers: Map<string, LayerShape>;
  /** Values of A and B by name (nn/lora.ts), and of modules that were trained whole (`modules_to_save`). */
  tensors: Map<string, { dims: number[]; data: Float32Array }>;
}

const off = (what: string) =>
  z
    .unknown()
    .refine((value) => !value, { error: `${what} is not supported` })
    .optional();
const patterns = z.record(z.string(), z.number()).nullish();

/** What peft would do with the weights, as far as it is done here; the rest is refused by name. */
const adapterConfigSchema = z.looseObject({
  peft_type: z.literal('LORA', { error: 'must be LORA: other adapters are not supported' }),
  r: z.int().positive(),
  lora_alpha: z.number().positive(),
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().default(false),
  rank_pattern: patterns,
  alpha_pattern: patterns,
  bias: z.literal('none', { error: 'trained biases are not supported' }).default('none'),
  init_lora_weights: z
    .union([z.boolean(), z.enum(['gaussian', 'eva', 'orthogonal'])], { error: 'changes the base model, which is not supported' })
    .default(true),
  use_dora: off('DoRA'),
  fan_in_fan_out: off('a transposed weight'),
  lora_bias: off('a bias of the adapter'),
  use_qalora: off('QALoRA'),
  use_bdlora: off('BD-LoRA'),
  layer_replication: off('layer replication'),
  target_parameters: off('an adapter of single parameters'),
  trainable_token_indices: off('training of single tokens'),
  alora_invocation_tokens: off('activated LoRA'),
});

/**
 * The value of the first pattern that a module's name ends with, as peft matches them (`get_pattern_key`).
 */
function matching(patterns: Record<string, number> | null | undefined, module: string): number | undefined {
  const key = Object.keys(patterns ?? {}).find((key) => new RegExp(`^(?:.*\\.)?(?:${key})$`).test(module));
  return key === undefined ? undefined : patterns![key];
}

const isSame = (a: Float32Array, b: Float32Array): boolean => a.length === b.length && a.every((value, i) => Object.is(value, b[i]));

/** Reads an adapter folder. UserError, naming the file, for what is missing, damaged or not supported. */
export async function readAdapter(dir: string): Promise<AdapterFolder> {
  const configFile = join(dir, ADAPTER_CONFIG);
  const weights = join(dir, ADAPTER_WEIGHTS);
  if (!existsSync(configFile)) throw new UserError(`${dir} is no adapter folder of peft: it has no ${ADAPTER_CONFIG}`);
  const config = checkConfig(adapterConfigSchema, await readJsonFile(configFile), configFile);
  if (!existsSync(weights)) {
    const pickled = existsSync(join(dir, 'adapter_model.bin'));
    throw new UserError(
      `${dir} has no ${ADAPTER_WEIGHTS}${pickled ? ': adapter_model.bin is not read; load it with peft and save it again, which writes safetensors' : ''}`,
    );
  }
  const file = await openSafetensors(weights);
  try {
    const layers = new Map<string, LayerShape>();
    const tensors: AdapterFolder['tensors'] = new Map();
    const inBase = file.names.map((name) => {
      if (!name.startsWith(PREFIX)) throw new UserError(`${weights}: tensor ${JSON.stringify(name)} does not begin with ${PREFIX}`);
      return name.slice(PREFIX.length);
    });
    const valuesOf = async (stored: string) => {
      const data = storedToFloat32(await file.read(PREFIX + stored), `${weights}: ${PREFIX}${stored}`);
      if (!data.every(Number.isFinite)) throw new UserError(`${weights}: ${PREFIX}${stored} holds NaN or infinity`);
      return data;
    };
    const { stored: storedNames, head } = mapNames(inBase);
    for (const [name, stored] of storedNames) {
      const { shape } = file.info(PREFIX + stored);
      const data = await valuesOf(stored);
      if (name.includes('.lora_') && !isOfAdapter(name))
        throw new UserError(`${weights}: ${PREFIX}${stored} is a part of an adapter that is not supported`);
      tensors.set(name, { dims: shape, data });
      if (!name.endsWith(downName(''))) continue;
      const module = name.slice(0, -downName('').length);
      const inPeft = stored.slice(0, -downName('').length);
      const rank = matching(config.rank_pattern, inPeft) ?? config.r;
      if (shape[0] !== rank) throw new UserError(`${weights}: ${PREFIX}${stored} has rank ${shape[0]}, but ${ADAPTER_CONFIG} says ${rank}`);
      layers.set(module, { rank, alpha: matching(config.alpha_pattern, inPeft) ?? config.lora_alpha });
    }
    if (head && !isSame(await valuesOf(head.stored), tensors.get(head.embedding)!.data))
      throw new UserError(
        `${weights}: ${PREFIX}${head.stored} differs from ${PREFIX}${storedNames.get(head.embedding)}: a language model whose output head is not its embedding is not supported`,
      );
    for (const module of layers.keys())
      if (tensors.get(upName(module))?.dims[1] !== layers.get(module)!.rank)
        throw new UserError(`${weights}: ${module} has a lora_A without a lora_B of its rank`);
    if (layers.size === 0) throw new UserError(`${weights}: it holds no adapter`);
    return { dir, isRankStabilized: config.use_rslora, dropout: config.lora_dropout, layers, tensors };
  } finally {
    await file.close();
  }
}

/**
 * The same adapter with the names that its modules have in a model whose parameters `dimsOf` knows: an
 * adapter of a language model by itself fits the one in a LLaVA. UserError for a module that the model has
 * not, or has in another shape.
 */
export function fitAdapter(adapter: AdapterFolder, dimsOf: (name: string) => readonly number[] | undefined, model: string): AdapterFolder {
  const inModel = (name: string, exists: (candidate: string) => boolean) =>
    [name, name.replace(/^vision_tower\.(?!vision_model\.)/, 'vision_tower.vision_model.'), `language_model.${name}`].find(exists);
  const layers: AdapterFolder['layers'] = new Map();
  const tensors: AdapterFolder['tensors'] = new Map();
  const take = (name: string, from: string) => tensors.set(name, adapter.tensors.get(from)!);
  for (const [module, shape] of adapter.layers) {
    const own = inModel(module, (candidate) => dimsOf(weightName(candidate)) !== undefined);
    if (own === undefined) throw new UserError(`${adapter.dir} is an adapter of ${module}, which ${model} does not have`);
    const [down, up] = [adapter.tensors.get(downName(module))!, adapter.tensors.get(upName(module))!];
    const dims = dimsOf(weightName(own))!;
    if (dims[0] !== up.dims[0] || dims[1] !== down.dims[1])
      throw new UserError(
        `${adapter.dir}: ${module} is an adapter of a weight [${up.dims[0]}, ${down.dims[1]}], but that of ${model} is [${dims.join(', ')}]`,
      );
    layers.set(own, shape);
    take(downName(own), downName(module));
    take(upName(own), upName(module));
  }
  for (const [name, { dims }] of adapter.tensors) {
    if (isOfAdapter(name)) continue;
    const own = inModel(name, (candidate) => dimsOf(candidate)?.join() === dims.join());
    if (own === undefined) throw new UserError(`${adapter.dir} holds ${name} [${dims.join(', ')}], which ${model} does not have`);
    take(own, name);
  }
  return { ...adapter, layers, tensors };
}

/** Factor of what a layer's adapter adds. */
export const scaleOf = ({ rank, alpha }: LayerShape, isRankStabilized: boolean): number => loraScale(rank, alpha, isRankStabilized);

export interface AdapterContents extends Pick<AdapterFolder, 'isRankStabilized' | 'dropout' | 'layers'> {
  /** Folder or hub name of the model that it goes with. */
  base?: string;
  /** A and B of each layer, and the tensors of modules that were trained whole, by our names. */
  tensors: ReadonlyMap<string, TensorSource>;
  /** Modules that were trained whole. */
  wholeModules: readonly string[];
}

/** adapter_config.json and the tensors of adapter_model.safetensors. */
export function adapterFiles({ base, isRankStabilized, dropout, layers, tensors, wholeModules }: AdapterContents): {
  config: string;
  tensors: Map<string, TensorSource>;
} {
  const [{ rank, alpha }] = layers.values();
  const exceptions = (field: keyof LayerShape, usual: number) =>
    Object.fromEntries(
      [...layers].flatMap(([module, shape]) => (shape[field] === usual ? [] : [[literal(transformers5Name(module)), shape[field]]])),
    );
  const config = {
    peft_type: 'LORA',
    task_type: null,
    base_model_name_or_path: base ?? null,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: dropout,
    use_rslora: isRankStabilized,
    target_modules: [...layers.keys()].map(transformers5Name),
    rank_pattern: exceptions('rank', rank),
    alpha_pattern: exceptions('alpha', alpha),
    modules_to_save: wholeModules.length > 0 ? wholeModules : null,
    bias: 'none',
    fan_in_fan_out: false,
    init_lora_weights: true,
    inference_mode: true,
  };
  return {
    config: `${JSON.stringify(config, null, 2)}\n`,
    tensors: new Map([...tensors].map(([name, source]) => [PREFIX + transformers5Name(name), source])),
  };
}

const literal = (name: string) => name.replaceAll('.', '\\.');
