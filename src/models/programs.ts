// The graphs that are run, each built here and nowhere else, with named ports: encoder, connector, decoder
// (prefill and decoding), one pass over everything, training losses. Training, generation, `forward` and
// scoring use them, and an export would. Ports are named as in transformers where it has a name.

import type { Constant, Engine, Program, RunOptions, Value, Write } from '../engine/engine.ts';
import type { Dim } from '../graph/dims.ts';
import { add, argmax, concat, flattenLeading, gather, matmul, reduceMean, reduceSum } from '../graph/primitives.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import { downName, mergedWeight, upName, weightName } from '../nn/lora.ts';
import { type Adapter, type AdapterOf, inputNames, type Parameter, type ParameterOptions, Parameters } from '../nn/parameters.ts';
import type { LanguageOutputs, LayerCache } from './decoder.ts';
import { embedTokens, type LanguageConfig, labelLosses, languageModel, logits } from './language.ts';
import {
  imageRows,
  imageSize,
  imageTokenCount,
  type LlavaConfig,
  type LlavaImages,
  llava,
  projectedFeatures,
  visionFeatureSize,
  visionFeatures,
} from './llava.ts';
import { causalBias, packedBias } from './masks.ts';
import { type VisionConfig, visionHiddenStates } from './vision.ts';

/** A graph with its ports and the parameters that it asks for. */
export interface Graph<I extends string = string, O extends string = string> {
  inputs: Readonly<Record<I, Tensor>>;
  outputs: Readonly<Record<O, Tensor>>;
  /** What a run writes to engine state, by the name of the state. */
  writes?: Readonly<Record<string, Write>>;
  parameters: readonly Parameter[];
}

/** A compiled graph: `run` knows the names of its ports. */
export interface GraphProgram<I extends string, O extends string> extends Omit<Program, 'run'> {
  run(inputs: Readonly<Record<I, Value>>, options?: RunOptions): Promise<Record<O, Value>>;
}

export type GraphOptions = ParameterOptions;

type Ports<I extends string, O extends string> = Omit<Graph<I, O>, 'parameters'>;

/** Builds a graph and lists the parameters that `build` asks for. */
export function graphOf<I extends string, O extends string>(
  build: (p: Parameters) => Ports<I, O>,
  options: GraphOptions = {},
): Graph<I, O> {
  const parameters = new Parameters(options);
  return { ...build(parameters), parameters: parameters.list() };
}

/** Values of the inputs that hold `parameters`, taken from `values`. Throws an Error if one is missing. */
export function constantsOf(
  parameters: readonly Pick<Parameter, 'name' | 'storage'>[],
  values: ReadonlyMap<string, Constant>,
): Map<string, Constant> {
  return new Map(
    parameters.flatMap(inputNames).map((name) => {
      const value = values.get(name);
      if (!value) throw new Error(`no value for parameter ${name}`);
      return [name, value];
    }),
  );
}

/**
 * Compiles a graph with its parameters fixed at `values`, which are keyed by input name; entries that the
 * graph does not need are ignored.
 */
export async function compileGraph<I extends string, O extends string>(
  engine: Engine,
  { outputs, writes, parameters }: Graph<I, O>,
  values: ReadonlyMap<string, Constant>,
  options: { packedAccuracy?: 'float32' | 'int8' } = {},
): Promise<GraphProgram<I, O>> {
  const program = await engine.compile(outputs, { constants: constantsOf(parameters, values), writes, ...options });
  return program as GraphProgram<I, O>;
}

const ids = (name: string, dims: Dim[] = ['batch', 'tokens']) => input(name, 'int32', dims);
const rowsInput = (name: string, hidden: number, count: Dim = name) => input(name, 'float32', [count, hidden]);

// === Images ===

/** Port of images, float32 [images, 3, height, width], for a `size` of [height, width] in pixels. */
const pixelInput = (size: readonly [number, number]) => input('pixel_values', 'float32', ['images', 3, ...size]);

const ownSize = (config: LlavaConfig) => [imageSize(config), imageSize(config)] as const;

/** pixel_values [images, 3, size, size] -> features [images, imageTokens, visionFeatureSize]. */
export function encoderGraph(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const pixel_values = pixelInput(ownSize(config));
    return { inputs: { pixel_values }, outputs: { features: visionFeatures(p, config, pixel_values) } };
  }, options);
}

/**
 * features [images, imageTokens, visionFeatureSize] -> rows [images * imageTokens, hidden], as they enter the
 * language model.
 */
export function connectorGraph(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const features = featureInput(config);
    return { inputs: { features }, outputs: { rows: imageRows(p, config, { features }) } };
  }, options);
}

const featureInput = (config: LlavaConfig, name = 'features') =>
  input(name, 'float32', ['images', imageTokenCount(config), visionFeatureSize(config)]);

/**
 * pixel_values of a `size` that the encoder takes, [images, 3, height, width] -> image_features
 * [images * imageTokens, hidden], not scaled.
 */
export function imageFeaturesGraph(config: LlavaConfig, size: readonly [number, number], options?: GraphOptions) {
  return graphOf((p) => {
    const pixel_values = pixelInput(size);
    return { inputs: { pixel_values }, outputs: { image_features: projectedFeatures(p, config, { pixelValues: pixel_values }) } };
  }, options);
}

/** pixel_values -> hidden_states.0 to .N of an encoder, each [images, rows, hidden]. */
export function visionStatesGraph(config: VisionConfig, size: readonly [number, number], options?: GraphOptions) {
  return graphOf((p) => {
    const pixel_values = pixelInput(size);
    return { inputs: { pixel_values }, outputs: hiddenStates(visionHiddenStates(p, config, pixel_values)) };
  }, options);
}

const hiddenStates = (states: readonly Tensor[]): Record<string, Tensor> =>
  Object.fromEntries(states.map((state, i) => [`hidden_states.${i}`, state]));

// === Text ===

const KINDS = ['key', 'value'] as const;

/** Name of a layer's keys or values in the cache. */
export const cacheName = (layer: number, kind: (typeof KINDS)[number]) => `past.${layer}.${kind}`;

/** The cache of each layer as inputs: [batch, kvHeads, past, headDim]. */
function cacheInputs({ num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim }: LanguageConfig): LayerCache[] {
  const past = (layer: number, kind: (typeof KINDS)[number]) =>
    input(cacheName(layer, kind), 'float32', ['batch', kvHeads, 'past', headDim]);
  return Array.from({ length: layers }, (_, layer) => ({ key: past(layer, 'key'), value: past(layer, 'value') }));
}

/** Keys and values of a step's tokens, each [batch, kvHeads, tokens, headDim], appended to the cache. */
function cacheWrites(present: readonly LayerCache[]): Record<string, Write> {
  return Object.fromEntries(
    present.flatMap((layer, i) => KINDS.map((kind) => [cacheName(i, kind), { mode: 'append', tensor: layer[kind] } as const])),
  );
}

/**
 * Prefill (with an empty cache) and decoding: input_ids and position_ids [batch, tokens], key_positions
 * [batch, past + tokens], image_rows [rows, hidden] for the image tokens, logit_rows [rows] as flat indices
 * into the batch -> logits [rows, vocab] and `likeliest` [rows]. The cache of each layer is state, under
 * `cacheName`.
 */
export function decoderGraph(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const { hidden_size: hidden } = config.text_config;
    const inputs = {
      input_ids: ids('input_ids'),
      position_ids: ids('position_ids'),
      key_positions: ids('key_positions', ['batch', 'past+tokens']),
      image_rows: rowsInput('image_rows', hidden),
      logit_rows: ids('logit_rows', ['logit_rows']),
    };
    const { lastHidden, present } = llava(p, config, {
      inputIds: inputs.input_ids,
      positionIds: inputs.position_ids,
      attentionBias: causalBias(inputs.position_ids, inputs.key_positions),
      images: { rows: inputs.image_rows },
      past: cacheInputs(config.text_config),
    });
    const last = gather(flattenLeading(lastHidden), inputs.logit_rows);
    const all = p.module('language_model', (p) => logits(p, config.text_config, last));
    const allowed = withoutImageToken(all, config);
    return { inputs, outputs: { logits: allowed, likeliest: argmax(allowed) }, writes: cacheWrites(present) };
  }, options);
}

/** Logits [.., vocab] in which the image token is no answer, though padded tables have a row for it. */
export function withoutImageToken(logits: Tensor, { image_token_index: imageToken, text_config }: LlavaConfig): Tensor {
  const { vocab_size: vocabulary } = text_config;
  if (imageToken >= vocabulary) return logits;
  const ruledOut = Float32Array.from({ length: vocabulary }, (_, id) => (id === imageToken ? -Infinity : 0));
  return add(logits, constant(ruledOut, [vocabulary]));
}

/** What `passGraph` runs: a LLaVA, with or without image features, or a language model by itself. */
export type PassModel = { kind: 'llava'; config: LlavaConfig; hasImages: boolean } | { kind: 'language'; config: LanguageConfig };

/**
 * One pass without a cache: input_ids, position_ids, key_positions [batch, tokens] and, with images,
 * image_features [rows, hidden] (not scaled) -> `last_hidden` [batch, tokens, hidden] and, if asked for,
 * hidden_states.0 to .N.
 */
export function passGraph(model: PassModel, { states = false, ...options }: GraphOptions & { states?: boolean } = {}) {
  return graphOf((p) => {
    const positionIds = ids('position_ids');
    const inputIds = ids('input_ids');
    const keyPositions = ids('key_positions');
    const attentionBias = causalBias(positionIds, keyPositions);
    const inputs: Record<string, Tensor> = { input_ids: inputIds, position_ids: positionIds, key_positions: keyPositions };
    let outputs: LanguageOutputs;
    if (model.kind === 'language') {
      const inputsEmbeds = embedTokens(p, model.config, inputIds);
      outputs = languageModel(p, model.config, { inputsEmbeds, positionIds, attentionBias });
    } else {
      const { config, hasImages } = model;
      const images: LlavaImages | undefined = hasImages
        ? { projected: rowsInput('image_features', config.text_config.hidden_size, 'rows') }
        : undefined;
      if (images) inputs.image_features = images.projected as Tensor;
      outputs = llava(p, config, { inputIds, positionIds, attentionBias, images });
    }
    return { inputs, outputs: { last_hidden: outputs.lastHidden, ...(states ? hiddenStates(outputs.hiddenStates) : {}) } };
  }, options);
}

/** hidden [rows, hidden], after the final norm -> logits [rows, vocab]. */
export function headGraph(model: PassModel, options?: GraphOptions) {
  return graphOf((p) => {
    const text = model.kind === 'llava' ? model.config.text_config : model.config;
    const hidden = rowsInput('hidden', text.hidden_size, 'rows');
    const of = (p: Parameters) => logits(p, text, hidden);
    return { inputs: { hidden }, outputs: { logits: model.kind === 'llava' ? p.module('language_model', of) : of(p) } };
  }, options);
}

/**
 * What a LLaVA thinks of given texts, on packed rows: the inputs of `llavaLoss`, but `image_rows` [rows,
 * hidden] as `connectorGraph` gives them -> `losses` [labels], cross entropy of each label in nats, and
 * `hidden_states.0` to `.N`, each [batch, tokens, hidden].
 *
 * With `attention`, of one row (batch 1): `queries` [1, 1, queries, tokens] are weights of the tokens that
 * look -> `attention` [1, layers, queries, tokens], what is looked at, mean over heads.
 */
export function scoringGraph(config: LlavaConfig, { attention = false, ...options }: GraphOptions & { attention?: boolean } = {}) {
  const probabilities: Tensor[] = [];
  return graphOf(
    (p) => {
      const packed = packedInputs();
      const image_rows = rowsInput('image_rows', config.text_config.hidden_size);
      const { lastHidden, hiddenStates: states } = llava(p, config, { ...packedRows(packed), images: { rows: image_rows } });
      const rows = gather(flattenLeading(lastHidden), packed.label_rows);
      const losses = p.module('language_model', (p) => labelLosses(p, config.text_config, rows, packed.labels));
      const inputs: Record<string, Tensor> = { ...packed, image_rows };
      const outputs: Record<string, Tensor> = { losses, ...hiddenStates(states) };
      if (attention) {
        inputs.queries = input('queries', 'float32', [1, 1, 'queries', 'tokens']);
        const looked = probabilities.map((each) => matmul(inputs.queries, reduceMean(each, [1], true)));
        outputs.attention = concat(looked, 1);
      }
      return { inputs, outputs };
    },
    attention ? { ...options, onAttention: (_module, each) => probabilities.push(each) } : options,
  );
}

// === Adapters ===

/** The weight [out, in] of a linear layer with its adapter added to it (nn/lora.ts), `merged`. */
export function mergedWeightGraph(
  module: string,
  [outFeatures, inFeatures]: readonly number[],
  { rank, scale }: Pick<Adapter, 'rank' | 'scale'>,
  options?: GraphOptions,
): Graph<never, 'merged'> {
  return graphOf((p) => {
    const weight = p.get(weightName(module), [outFeatures, inFeatures]);
    const [down, up] = [p.get(downName(module), [rank, inFeatures]), p.get(upName(module), [outFeatures, rank])];
    return { inputs: {}, outputs: { merged: mergedWeight(weight, down, up, scale) } };
  }, options);
}

/** The modules of a LLaVA that are linear layers, with the dims of their weights. */
export function linearLayers(config: LlavaConfig): Map<string, readonly number[]> {
  const modules: string[] = [];
  const adapters: AdapterOf = (module) => {
    modules.push(module);
    return undefined;
  };
  const { parameters } = llavaLoss(config, { fromPixels: true, adapters });
  const dims = new Map(parameters.map((parameter) => [parameter.name, parameter.dims]));
  return new Map(modules.map((module) => [module, dims.get(weightName(module))!]));
}

// === Training ===

/**
 * A training loss: a scalar `loss` in nats, summed over its batch (the trainer divides by the weight of the
 * batches of a step), and further sums worth logging.
 */
export type LossGraph = Graph<string, string>;

/** Inputs of packed rows (data/packing.ts), int32 [batch, tokens] each. */
function packedInputs() {
  return {
    input_ids: ids('input_ids'),
    position_ids: ids('position_ids'),
    sample_ids: ids('sample_ids'),
    branch_ids: ids('branch_ids'),
    label_rows: ids('label_rows', ['labels']),
    labels: ids('labels', ['labels']),
  };
}

type PackedInputs = ReturnType<typeof packedInputs>;

const packedRows = ({ input_ids, position_ids, sample_ids, branch_ids }: PackedInputs) => ({
  inputIds: input_ids,
  positionIds: position_ids,
  attentionBias: packedBias({ positionIds: position_ids, sampleIds: sample_ids, branchIds: branch_ids }),
});

/**
 * Cross entropy summed over labels. `label_rows` [labels] are flat indices (row * tokens + column) of the
 * hidden states that predict `labels` [labels]. Logits are computed only for those.
 */
function nextTokenLoss(p: Parameters, config: LanguageConfig, lastHidden: Tensor, { label_rows, labels }: PackedInputs): Tensor {
  return reduceSum(labelLosses(p, config, gather(flattenLeading(lastHidden), label_rows), labels), [0]);
}

/** Causal language modeling on packed rows. */
export function languageModelLoss(config: LanguageConfig, options?: GraphOptions): LossGraph {
  return graphOf((p) => {
    const inputs = packedInputs();
    const { inputIds, ...rest } = packedRows(inputs);
    const { lastHidden } = languageModel(p, config, { inputsEmbeds: embedTokens(p, config, inputIds), ...rest });
    return { inputs, outputs: { loss: nextTokenLoss(p, config, lastHidden, inputs) } };
  }, options);
}

/**
 * LLaVA on packed rows. Where a frozen encoder ran before training, its features are an input,
 * `image_features` float32 [images, imageTokens, visionFeatureSize]. With `fromPixels`, the encoder is a part
 * of the step, and the input is `pixel_values` [images, 3, size, size].
 */
export function llavaLoss(
  config: LlavaConfig,
  { fromPixels = false, ...options }: GraphOptions & { fromPixels?: boolean } = {},
): LossGraph {
  return graphOf((p) => {
    const packed = packedInputs();
    const pictures: Record<string, Tensor> = fromPixels
      ? { pixel_values: pixelInput(ownSize(config)) }
      : { image_features: featureInput(config, 'image_features') };
    const images: LlavaImages = fromPixels ? { pixelValues: pictures.pixel_values } : { features: pictures.image_features };
    const { lastHidden } = llava(p, config, { ...packedRows(packed), images });
    const loss = p.module('language_model', (p) => nextTokenLoss(p, config.text_config, lastHidden, packed));
    return { inputs: { ...packed, ...pictures }, outputs: { loss } };
  }, options);
}
