// One pass of a model over stored tensors, without a cache: logits, hidden states and image features as the
// forward of transformers 5.18 gives them (models/llava/modeling_llava.py), so that two implementations can
// be compared number by number.

import { type Constant, type Engine, float32, int32, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { LanguageConfig } from '../models/language.ts';
import { imageSize, imageTokenCount, type LlavaConfig } from '../models/llava.ts';
import { HIDDEN_POSITION } from '../models/masks.ts';
import {
  compileGraph,
  type Graph,
  headGraph,
  imageFeaturesGraph,
  type PassModel,
  passGraph,
  visionStatesGraph,
} from '../models/programs.ts';
import { patchesPerSide, type VisionConfig } from '../models/vision.ts';
import type { Parameter, StorageOf } from '../nn/parameters.ts';

/** What can be run: a LLaVA, or one of the models that it is made of. */
export type ForwardModel =
  | { kind: 'llava'; config: LlavaConfig }
  | { kind: 'language'; config: LanguageConfig }
  | { kind: 'vision'; config: VisionConfig };

/** The tensors that go in, by the names of transformers. */
export const FORWARD_INPUTS = ['input_ids', 'attention_mask', 'pixel_values'] as const;
export type ForwardInput = (typeof FORWARD_INPUTS)[number];

/**
 * `input_ids` int32 [batch, tokens]; `attention_mask` int32 [batch, tokens], 0 hides a token from all others;
 * `pixel_values` float32 [images, 3, size, size]: the images' rows fill the image tokens in order, row by row
 * of the batch. Positions count from 0 in every row, whatever the mask says.
 */
export type ForwardInputs = Partial<Record<ForwardInput, Value>>;

export interface ForwardOptions {
  /** Also `hidden_states.<n>`; an encoder alone always gives them. */
  hiddenStates?: boolean;
  /** Also `image_features`. */
  imageFeatures?: boolean;
  /** Whose inputs they are, such as a file: errors begin with it. */
  source?: string;
  /** Logits that are in memory at a time: whole rows of the vocabulary, one at least. */
  logitsAtOnce?: number;
}

/**
 * A float32 tensor, row-major, whose values are computed as they are asked for. They can be asked for once.
 */
export interface ForwardOutput {
  dims: readonly number[];
  pieces(): Iterable<Float32Array> | AsyncIterable<Float32Array>;
}

/** Where the values of parameters come from. */
export interface ParameterSource {
  /** How they are stored. */
  storage?: StorageOf;
  /** By the names of the inputs that hold them. */
  read(parameters: readonly Parameter[]): Promise<ReadonlyMap<string, Constant>>;
}

/** What the model may be given. The first is what it needs. */
const INPUTS_OF: Record<ForwardModel['kind'], readonly ForwardInput[]> = {
  llava: FORWARD_INPUTS,
  language: ['input_ids', 'attention_mask'],
  vision: ['pixel_values'],
};

/**
 * Runs `model` once, reading its parameters from `source` part by part, so that encoder and language model
 * need not be in memory together. Returns
 *
 * - `logits` [batch, tokens, vocab], of any value where the mask is 0;
 * - `hidden_states.0` to `.N` [batch, tokens, hidden]: input of the first layer, then the output of each, the
 * last one normed; of an encoder
 *   [images, rows, hidden], none of them normed;
 * - `image_features` [images, imageTokens, hidden]: what the connector gives, before `scale_image_features`.
 *
 * UserError, naming the tensor, for inputs that do not fit each other or the model.
 */
export async function forward(
  engine: Engine,
  model: ForwardModel,
  source: ParameterSource,
  inputs: ForwardInputs,
  options: ForwardOptions = {},
): Promise<Map<string, ForwardOutput>> {
  checkInputs(model, inputs, options.source ?? 'the inputs');
  if (model.kind === 'vision') return visionPass(engine, model.config, source, inputs.pixel_values!);
  const feeds = languageFeeds(inputs);
  if (model.kind === 'language') return languagePass(engine, model, source, feeds, options);
  const { config } = model;
  const hasImages = inputs.pixel_values !== undefined;
  const features = hasImages ? await llavaFeatures(engine, config, source, inputs.pixel_values!) : undefined;
  if (features) feeds.image_features = features;
  const outputs = await languagePass(engine, { ...model, hasImages }, source, feeds, options);
  if (features && options.imageFeatures) {
    const images = inputs.pixel_values!.dims[0];
    const dims = [images, features.dims[0] / images, config.text_config.hidden_size];
    outputs.set('image_features', whole({ ...features, dims }));
  }
  return outputs;
}

// === Passes ===

const whole = ({ dims, data }: Value): ForwardOutput => ({ dims, pieces: () => [data as Float32Array] });

// what is run here is what answers: packed weights as in generation
const compiled = { packedAccuracy: 'int8' } as const;

/** Compiles a graph, runs it once and lets it go. */
async function runOnce<I extends string, O extends string>(
  engine: Engine,
  graph: Graph<I, O>,
  values: ReadonlyMap<string, Constant>,
  feeds: Record<I, Value>,
): Promise<Record<O, Value>> {
  const program = await compileGraph(engine, graph, values, compiled);
  try {
    return await program.run(feeds);
  } finally {
    await program.dispose();
  }
}

/** The size of the pictures: an encoder that takes any makes its positions from it. */
const sizeOfPictures = ({ dims }: Value) => [dims[2], dims[3]] as const;

async function visionPass(engine: Engine, config: VisionConfig, source: ParameterSource, pixel_values: Value) {
  const graph = visionStatesGraph(config, sizeOfPictures(pixel_values), source);
  const states: Record<string, Value> = await runOnce(engine, graph, await source.read(graph.parameters), { pixel_values });
  return new Map(Object.entries(states).map(([name, value]) => [name, whole(value)]));
}

/** Image features of a LLaVA, [images * imageTokens, hidden]. */
async function llavaFeatures(engine: Engine, config: LlavaConfig, source: ParameterSource, pixel_values: Value): Promise<Value> {
  const graph = imageFeaturesGraph(config, sizeOfPictures(pixel_values), source);
  return (await runOnce(engine, graph, await source.read(graph.parameters), { pixel_values })).image_features;
}

/** Ids and positions. A hidden key stands where no query reaches. */
function languageFeeds({ input_ids, attention_mask }: ForwardInputs): Record<string, Value> {
  const { data, dims } = input_ids!;
  const positions = Int32Array.from(data as Int32Array, (_, i) => i % dims[1]);
  const keys = attention_mask ? positions.map((position, i) => (attention_mask.data[i] === 0 ? HIDDEN_POSITION : position)) : positions;
  return { input_ids: input_ids!, position_ids: int32(positions, dims), key_positions: int32(keys, dims) };
}

async function languagePass(
  engine: Engine,
  model: PassModel,
  source: ParameterSource,
  feeds: Record<string, Value>,
  { hiddenStates = false, logitsAtOnce = 2 ** 25 }: ForwardOptions,
): Promise<Map<string, ForwardOutput>> {
  const text = model.kind === 'llava' ? model.config.text_config : model.config;
  const pass = passGraph(model, { ...source, states: hiddenStates });
  // the head's only weight is the embedding, which the pass has read
  const values = await source.read(pass.parameters);
  const { last_hidden: lastHidden, ...states }: Record<string, Value> = await runOnce(engine, pass, values, feeds);
  const outputs = new Map(Object.entries(states).map(([name, value]) => [name, whole(value)]));
  const rowsAtOnce = Math.max(1, Math.floor(logitsAtOnce / text.vocab_size));
  return outputs.set('logits', {
    dims: [...lastHidden.dims.slice(0, 2), text.vocab_size],
    pieces: () => logitPieces(engine, headGraph(model, source), values, lastHidden, rowsAtOnce),
  });
}

/**
 * Logits of final hidden states, some rows at a time: over a vocabulary of 256,000 they are the largest
 * tensor by far.
 */
async function* logitPieces(
  engine: Engine,
  head: ReturnType<typeof headGraph>,
  values: ReadonlyMap<string, Constant>,
  { data, dims }: Value,
  rowsAtOnce: number,
): AsyncGenerator<Float32Array> {
  const states = data as Float32Array;
  const hidden = dims.at(-1)!;
  const program = await compileGraph(engine, head, values, compiled);
  try {
    for (let at = 0; at < states.length; at += rowsAtOnce * hidden) {
      const rows = states.subarray(at, at + rowsAtOnce * hidden);
      yield (await program.run({ hidden: float32(rows, [rows.length / hidden, hidden]) })).logits.data as Float32Array;
    }
  } finally {
    await program.dispose();
  }
}

// === Checks ===

/** What is wrong with a tensor of the inputs. */
type Refuse = (name: ForwardInput, what: string) => UserError;

const list = (names: readonly string[]) => names.join(', ').replace(/, ([^,]*)$/, ' and $1');
const shape = (dims: readonly number[]) => `[${dims.join(', ')}]`;

/** Where the element of a row-major tensor stands, such as [1, 3]. */
export function placeOf(index: number, dims: readonly number[]): string {
  const place = dims.toReversed().map((size) => {
    const at = index % size;
    index = Math.floor(index / size);
    return at;
  });
  return shape(place.reverse());
}

function checkInputs(model: ForwardModel, inputs: ForwardInputs, source: string): void {
  const refuse: Refuse = (name, what) => new UserError(`${source}: tensor ${JSON.stringify(name)}: ${what}`);
  const takes = INPUTS_OF[model.kind];
  for (const name of FORWARD_INPUTS)
    if (inputs[name] && !takes.includes(name)) {
      const lack = model.kind === 'vision' ? 'no language model' : 'no vision encoder';
      throw refuse(name, `the model has ${lack}; it takes ${list(takes)} only`);
    }
  if (!inputs[takes[0]]) throw new UserError(`${source}: it has no tensor ${JSON.stringify(takes[0])}, which the model needs`);

  const { input_ids, attention_mask, pixel_values } = inputs;
  const text = model.kind === 'llava' ? model.config.text_config : model.kind === 'language' ? model.config : undefined;
  const imageToken = model.kind === 'llava' ? model.config.image_token_index : undefined;
  if (input_ids && text) checkIds(refuse, input_ids, text, imageToken);
  if (input_ids && attention_mask && shape(attention_mask.dims) !== shape(input_ids.dims))
    throw refuse('attention_mask', `its shape is ${shape(attention_mask.dims)}, but input_ids has ${shape(input_ids.dims)}`);
  if (pixel_values && model.kind !== 'language') checkPixels(refuse, pixel_values, model);
  if (input_ids && model.kind === 'llava') checkImageTokens(refuse, input_ids, pixel_values, model.config);
}

function checkIds(refuse: Refuse, { dims, data }: Value, text: LanguageConfig, imageToken: number | undefined): void {
  const { vocab_size: vocabulary, max_position_embeddings: context } = text;
  if (dims.length !== 2 || dims.includes(0))
    throw refuse('input_ids', `its shape is ${shape(dims)}, but must be [batch, tokens] with one token at least`);
  if (dims[1] > context) throw refuse('input_ids', `its rows have ${dims[1]} tokens, but the model reads ${context}`);
  const wrong = data.findIndex((id) => (id < 0 || id >= vocabulary) && id !== imageToken);
  if (wrong < 0) return;
  const images = imageToken !== undefined && imageToken >= vocabulary ? `, and ${imageToken} for images` : '';
  throw refuse(
    'input_ids',
    `id ${data[wrong]} at ${placeOf(wrong, dims)} is not in the vocabulary, which has 0 to ${vocabulary - 1}${images}`,
  );
}

function checkPixels(refuse: Refuse, { dims }: Value, model: Extract<ForwardModel, { kind: 'llava' | 'vision' }>): void {
  const vision = model.kind === 'llava' ? model.config.vision_config : model.config;
  const [images, channels, height, width] = dims;
  if (dims.length !== 4 || channels !== 3 || images === 0)
    throw refuse('pixel_values', `its shape is ${shape(dims)}, but must be [images, 3, height, width] with one image at least`);
  if (height !== width) throw refuse('pixel_values', `its pictures have ${width} x ${height} pixels, but the encoder takes squares`);
  try {
    imageSize({ image_size: height, vision_config: vision });
  } catch (error) {
    throw error instanceof UserError ? refuse('pixel_values', error.message) : error;
  }
  if (patchesPerSide(vision, height) === 0)
    throw refuse(
      'pixel_values',
      `pictures of ${width} x ${height} pixels do not fill a patch of ${vision.patch_size} x ${vision.patch_size}`,
    );
}

function checkImageTokens(refuse: Refuse, { data }: Value, pixelValues: Value | undefined, config: LlavaConfig): void {
  const { image_token_index: imageToken } = config;
  const tokens = (data as Int32Array).reduce((sum, id) => sum + Number(id === imageToken), 0);
  const images = pixelValues?.dims[0] ?? 0;
  const rows = pixelValues ? images * imageTokenCount({ ...config, image_size: pixelValues.dims[2] }) : 0;
  if (tokens === rows) return;
  const given = pixelValues
    ? `pixel_values gives ${rows} rows (${images} images of ${rows / images})`
    : 'without pixel_values there are 0 rows';
  throw refuse('input_ids', `it has ${tokens} image tokens (id ${imageToken}), but ${given}`);
}
