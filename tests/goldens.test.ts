// Fidelity: the tiny models of tests/reference (PyTorch and Hugging Face transformers) are loaded through the
// ordinary checkpoint path and must give the same outputs, losses and gradients. Errors of gradients are
// relative to the largest magnitude of their tensor.

import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import type { z } from 'zod';
import { readJsonFile } from '../src/checkpoint/checkpoint.ts';
import { float32, int32, type Value } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { evaluateReference, type ReferenceValue } from '../src/engine/reference-ops.ts';
import { linearCrossEntropy } from '../src/graph/composites.ts';
import { grad } from '../src/graph/grad.ts';
import { add, exp, gather, mul, reduceSum, reshape, slice } from '../src/graph/primitives.ts';
import { input, type Tensor } from '../src/graph/tensor.ts';
import { clipConfigSchema, clipImageEmbeds, clipLogitScale, clipTextEmbeds, clipVision } from '../src/models/clip.ts';
import { contrastiveLoss } from '../src/models/contrastive.ts';
import { dinov2Norm } from '../src/models/dinov2.ts';
import { embedTokens, languageConfigSchema, languageModel, logits } from '../src/models/language.ts';
import { imageRows, llava, llavaConfigSchema, visionFeatures } from '../src/models/llava.ts';
import { causalBias, HIDDEN_POSITION } from '../src/models/masks.ts';
import { type LossGraph, languageModelLoss, llavaLoss } from '../src/models/programs.ts';
import { siglipPool } from '../src/models/siglip.ts';
import { type VisionConfig, visionConfigSchema, visionHiddenStates } from '../src/models/vision.ts';
import { type Parameter, Parameters } from '../src/nn/parameters.ts';
import { withCheckpoint } from '../src/pretrained/folder.ts';
import { readParameters } from '../src/pretrained/values.ts';
import { createRandom } from '../src/random.ts';
import { createAdamW } from '../src/train/optimizer.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';

const TOLERANCE = 1e-4;
const GRADIENT_TOLERANCE = 1e-3;
const OUTPUT = 'output.';
const engine = createOrtEngine({ threads: 1 });

// === Reading goldens ===

type Tensors = Record<string, Value>;

const folderOf = (name: string) => fileURLToPath(new URL(`./reference/goldens/${name}`, import.meta.url));

/** All tensors of a golden file; 64-bit integers as int32, which is what our graphs take. */
async function readGolden(name: string, fileName: string): Promise<Tensors> {
  const file = await openSafetensors(`${folderOf(name)}/${fileName}.safetensors`);
  try {
    const tensors: Tensors = {};
    for (const tensor of file.names) {
      const { dtype, shape, data } = await file.read(tensor);
      const bytes = data.slice().buffer;
      tensors[tensor] =
        dtype === 'I64' ? int32(Int32Array.from(new BigInt64Array(bytes), Number), shape) : float32(new Float32Array(bytes), shape);
    }
    return tensors;
  } finally {
    await file.close();
  }
}

/** Runs graphs on ONNX Runtime with parameters from the golden's own folder. */
async function runGolden<T extends z.ZodType>(
  name: string,
  schema: T,
  build: (config: z.output<T>, p: Parameters) => Record<string, Tensor>,
  inputs: Tensors,
): Promise<Tensors> {
  return withCheckpoint(folderOf(name), schema, async (config, checkpoint) => {
    const parameters = new Parameters();
    const outputs = build(config, parameters);
    const values = await readParameters(checkpoint, parameters.list());
    return runGraph(outputs, parameters.list(), values, inputs);
  });
}

async function runGraph(
  outputs: Record<string, Tensor>,
  parameters: readonly Parameter[],
  values: ReadonlyMap<string, Float32Array>,
  inputs: Tensors,
) {
  // a gradient has its parameter's name, which is already an input's
  const program = await engine.compile(Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [OUTPUT + name, tensor])));
  try {
    const results = await program.run({ ...parameterFeeds(parameters, values), ...inputs });
    return Object.fromEntries(Object.entries(results).map(([name, value]) => [name.slice(OUTPUT.length), value]));
  } finally {
    await program.dispose();
  }
}

const parameterFeeds = (parameters: readonly Parameter[], values: ReadonlyMap<string, Float32Array>): Tensors =>
  Object.fromEntries(parameters.map(({ name, dims }) => [name, float32(values.get(name)!, dims)]));

/** Loss and the gradient of every parameter, gradients under the parameters' names. */
function lossAndGradients(loss: Tensor, parameters: readonly Parameter[]): Record<string, Tensor> {
  const gradients = grad(
    loss,
    parameters.map(({ tensor }) => tensor),
  );
  return { loss, ...Object.fromEntries(parameters.map(({ name }, i) => [name, gradients[i]])) };
}

/** The loss of packed rows as in the goldens: the mean over labels. */
const meanLoss = ({ outputs }: LossGraph) => mul(outputs.loss, input('loss_scale', 'float32', []));

// === Comparing ===

const maxMagnitude = ({ data }: Value) => (data as Float32Array).reduce((max, v) => Math.max(max, Math.abs(v)), 0);

/** Largest absolute difference. */
function maxDifference(actual: Value, expected: Value): number {
  expect(actual.data.length).toBe(expected.data.length);
  return (actual.data as Float32Array).reduce((max, v, i) => {
    // Math.max propagates NaN
    return Math.max(max, Math.abs(v - (expected.data[i] as number)));
  }, 0);
}

function expectOutputs(label: string, actual: Tensors, expected: Tensors, names: readonly string[]) {
  let worst = 0;
  for (const name of names) {
    const difference = maxDifference(actual[name], expected[name]);
    expect(difference, `${label}: ${name}`).toBeLessThan(TOLERANCE);
    worst = Math.max(worst, difference);
  }
  console.log(`${label}: worst absolute error of ${names.length} outputs ${worst.toExponential(1)}`);
}

/**
 * In exact arithmetic a key's bias shifts all scores of a query alike and has no gradient: what is stored is
 * rounding error.
 */
const hasNoGradient = (name: string) => /(k_proj|attention\.key)\.bias$/.test(name);

/**
 * Every golden gradient against ours (or those that `covered` picks); returns and prints the worst relative
 * error.
 */
function expectGradients(label: string, actual: Tensors, expected: Tensors, covered: (name: string) => boolean = () => true): number {
  const largest = Math.max(...Object.values(expected).map(maxMagnitude));
  const names = Object.keys(expected).filter(covered);
  expect(names.length).toBeGreaterThan(0);
  let worst = { name: '', error: 0 };
  for (const name of names) {
    const scale = hasNoGradient(name) ? largest : maxMagnitude(expected[name]);
    expect(scale, name).toBeGreaterThan(0);
    const error = maxDifference(actual[name], expected[name]) / scale;
    expect(error, `${label}: gradient of ${name}`).toBeLessThan(GRADIENT_TOLERANCE);
    if (error > worst.error) worst = { name, error };
  }
  console.log(
    `${label}: worst relative error of ${names.length} gradients against PyTorch autograd ${worst.error.toExponential(1)} (${worst.name})`,
  );
  return worst.error;
}

// === Inputs ===

/**
 * Positions that count from 0 in every row, and keys that padding hides, as transformers treats right-padded
 * rows.
 */
function positionsOf(mask: Value): Tensors {
  const tokens = mask.dims[1];
  const positions = Int32Array.from(mask.data as Int32Array, (_, i) => i % tokens);
  const keys = positions.map((position, i) => (mask.data[i] ? position : HIDDEN_POSITION));
  return { position_ids: int32(positions, mask.dims), key_positions: int32(keys, mask.dims) };
}

/** A padded batch as the packed rows of our loss graphs: padding is a sample of its own, without labels. */
function packedInputs({ input_ids, attention_mask, labels }: Tensors): Tensors {
  const tokens = input_ids.dims[1];
  const labelRows = [...labels.data.keys()].filter((i) => i % tokens > 0 && labels.data[i] !== -100);
  return {
    input_ids,
    position_ids: positionsOf(attention_mask).position_ids,
    sample_ids: attention_mask,
    branch_ids: int32(new Int32Array(input_ids.data.length), input_ids.dims),
    label_rows: int32(
      labelRows.map((i) => i - 1),
      [labelRows.length],
    ),
    labels: int32(
      labelRows.map((i) => labels.data[i] as number),
      [labelRows.length],
    ),
    loss_scale: float32([1 / labelRows.length], []),
  };
}

const ids = (name: string) => input(name, 'int32', ['batch', 'tokens']);
const cacheBias = (positionIds: Tensor) => causalBias(positionIds, ids('key_positions'));

// === Families ===

describe.each(['gemma', 'gemma-mqa', 'gemma2', 'gemma3'])('%s', (name) => {
  test('hidden states and logits, padded rows included', async () => {
    const inputs = await readGolden(name, 'inputs');
    const actual = await runGolden(
      name,
      languageConfigSchema,
      (config, p) => {
        const positionIds = ids('position_ids');
        const inputsEmbeds = embedTokens(p, config, ids('input_ids'));
        const { lastHidden, hiddenStates } = languageModel(p, config, { inputsEmbeds, positionIds, attentionBias: cacheBias(positionIds) });
        const states = Object.fromEntries(hiddenStates.map((state, i) => [`hidden_states.${i}`, state]));
        return { logits: logits(p, config, lastHidden), ...states };
      },
      { input_ids: inputs.input_ids, ...positionsOf(inputs.attention_mask) },
    );
    const expected = await readGolden(name, 'outputs');
    const { loss: _, ...outputs } = expected;
    expectOutputs(name, actual, expected, Object.keys(outputs));
  });

  test('loss and the gradient of every parameter', async () => {
    const packed = packedInputs(await readGolden(name, 'inputs'));
    const { actual, names } = await withCheckpoint(folderOf(name), languageConfigSchema, async (config, checkpoint) => {
      const graph = languageModelLoss(config);
      const list = graph.parameters;
      const values = await readParameters(checkpoint, list);
      const results = await runGraph(lossAndGradients(meanLoss(graph), list), list, values, packed);
      return { actual: results, names: list.map((parameter) => parameter.name) };
    });
    const expected = await readGolden(name, 'gradients');
    expect(names.sort()).toEqual(Object.keys(expected).sort());
    expectOutputs(`${name} loss`, actual, await readGolden(name, 'outputs'), ['loss']);
    expectGradients(name, actual, expected);
  });
});

describe('clip', () => {
  const END = 98;

  /** The golden's texts under the prefix of our text inputs; the end mask marks the first end token. */
  function texts({ input_ids, attention_mask }: Tensors) {
    const [count, tokens] = input_ids.dims;
    const end = new Uint8Array(count * tokens);
    for (let row = 0; row < count; row++) end[(input_ids.data as Int32Array).indexOf(END, row * tokens)] = 1;
    return {
      ids: input_ids,
      mask: attention_mask,
      positions: int32(
        Array.from({ length: tokens }, (_, t) => t),
        [1, tokens],
      ),
      end: { dtype: 'bool', dims: input_ids.dims, data: end } as Value,
    };
  }
  const prefixed = (prefix: string, values: Tensors): Tensors =>
    Object.fromEntries(Object.entries(values).map(([key, value]) => [`${prefix}_${key}`, value]));

  const unit = ({ data, dims }: Value): Value => {
    const width = dims[1];
    return float32(
      Float32Array.from(data as Float32Array, (v, i) => {
        const row = (data as Float32Array).subarray(Math.floor(i / width) * width, (Math.floor(i / width) + 1) * width);
        return v / Math.hypot(...row);
      }),
      dims,
    );
  };

  test('vision hidden states, both embeddings and contrastive logits', async () => {
    const golden = await readGolden('clip', 'inputs');
    const actual = await runGolden(
      'clip',
      clipConfigSchema,
      (config, p) => {
        const states = clipVision(p, config.vision_config, input('pixel_values', 'float32', ['images', 3, 24, 24]));
        const row = (name: string) => input(name, 'int32', ['texts', 'tokens']);
        return {
          ...Object.fromEntries(states.map((state, i) => [`vision_hidden_states.${i}`, state])),
          image_embeds: clipImageEmbeds(p, config, states.at(-1)!),
          text_embeds: clipTextEmbeds(p, config, {
            inputIds: row('text_ids'),
            attentionMask: row('text_mask'),
            positionIds: input('text_positions', 'int32', [1, 'tokens']),
            endMask: input('text_end', 'bool', ['texts', 'tokens']),
          }),
          temperature: exp(clipLogitScale(p, config)),
        };
      },
      { pixel_values: golden.pixel_values, ...prefixed('text', texts(golden)) },
    );
    const expected = await readGolden('clip', 'outputs');
    const images = unit(actual.image_embeds);
    const captions = unit(actual.text_embeds);
    const [temperature] = actual.temperature.data as Float32Array;
    const [count, width] = images.dims;
    const row = ({ data }: Value, i: number) => (data as Float32Array).subarray(i * width, (i + 1) * width);
    const logits = Array.from({ length: count ** 2 }, (_, at) => {
      const text = row(captions, at % count);
      return temperature * row(images, Math.floor(at / count)).reduce((sum, v, k) => sum + v * text[k], 0);
    });
    const normalized = { ...actual, image_embeds: images, text_embeds: captions, logits_per_image: float32(logits, [count, count]) };
    const states = Object.keys(expected).filter((name) => name.startsWith('vision_hidden_states'));
    expect(states.length).toBe(4);
    expectOutputs('clip', normalized, expected, [...states, 'image_embeds', 'text_embeds', 'logits_per_image']);
  });

  test('contrastive loss and the gradient of every parameter', async () => {
    const golden = await readGolden('clip', 'inputs');
    const captions = texts(golden);
    const images = golden.pixel_values.dims[0];
    // one region and one name with weight 0: what remains is CLIP's own loss
    const inputs = {
      pixel_values: golden.pixel_values,
      ...prefixed('caption', captions),
      ...prefixed('name', captions),
      caption_labels: int32([0, 1, 2], [images]),
      caption_scale: float32([1 / (2 * images)], []),
      region_weights: float32(new Float32Array(images * 16).fill(1 / 16), [images, 1, 16]),
      region_rows: int32([0], [1]),
      region_labels: int32([0], [1]),
      region_scale: float32([0], []),
    };
    const { actual, names } = await withCheckpoint(folderOf('clip'), clipConfigSchema, async (config, checkpoint) => {
      const graph = contrastiveLoss(config, 1);
      const list = graph.parameters;
      const results = await runGraph(lossAndGradients(graph.outputs.loss, list), list, await readParameters(checkpoint, list), inputs);
      return { actual: results, names: list.map((parameter) => parameter.name) };
    });
    const expected = await readGolden('clip', 'gradients');
    expect(names.sort()).toEqual(Object.keys(expected).sort());
    expectOutputs('clip loss', actual, await readGolden('clip', 'outputs'), ['loss']);
    expectGradients('clip', actual, expected);
  });
});

/** transformers 5 omits `vision_model.` from the names. */
const shortNames = (tensors: Tensors): Tensors =>
  Object.fromEntries(Object.entries(tensors).map(([name, value]) => [name.replace(/(^|\.)vision_model\./, '$1'), value]));

describe.each([
  { name: 'siglip', suffix: '' },
  { name: 'dinov2', suffix: '' },
  { name: 'dinov2', suffix: '-larger' },
  { name: 'dinov2', suffix: '-smaller' },
  { name: 'dinov2-swiglu', suffix: '' },
])('$name $suffix', ({ name, suffix }) => {
  /** Every hidden state, and what transformers computes from the last one. */
  function encode(config: VisionConfig, p: Parameters, size: number): Record<string, Tensor> {
    const states = visionHiddenStates(p, config, input('pixel_values', 'float32', ['images', 3, size, size]));
    const { lastHidden, pooled } = outputsOf(config, p, states.at(-1)!);
    const named = Object.fromEntries(states.map((state, i) => [`hidden_states.${i}`, state]));
    return { ...named, last_hidden_state: lastHidden, pooler_output: pooled };
  }
  function outputsOf(config: VisionConfig, p: Parameters, last: Tensor): { lastHidden: Tensor; pooled: Tensor } {
    if (config.model_type === 'siglip_vision_model') {
      const { lastHidden, pooled } = siglipPool(p, config, last);
      return { lastHidden, pooled: pooled! };
    }
    if (config.model_type !== 'dinov2') throw new Error(`${config.model_type} is compared elsewhere`);
    const lastHidden = dinov2Norm(p, config, last);
    return { lastHidden, pooled: reshape(slice(lastHidden, 1, 0, 1), ['images', config.hidden_size]) };
  }

  test('hidden states and pooled feature', async () => {
    const { pixel_values } = await readGolden(name, `inputs${suffix}`);
    const actual = await runGolden(name, visionConfigSchema, (config, p) => encode(config, p, pixel_values.dims[2]), { pixel_values });
    const { loss: _, ...expected } = await readGolden(name, `outputs${suffix}`);
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
    expectOutputs(name + suffix, actual, expected, Object.keys(expected));
  });

  test('the gradient of every parameter', async () => {
    const inputs = await readGolden(name, `inputs${suffix}`);
    const { actual, names } = await withCheckpoint(folderOf(name), visionConfigSchema, async (config, checkpoint) => {
      const parameters = new Parameters();
      const outputs = encode(config, parameters, inputs.pixel_values.dims[2]);
      const [rows, pooled] = ['last_hidden_state', 'pooler_output'].map((key) => {
        const weights = inputs[`${key}_weights`];
        const product = mul(outputs[key], input(`${key}_weights`, 'float32', outputs[key].dims));
        return mul(reduceSum(product, [...product.dims.keys()]), 1 / weights.data.length);
      });
      const list = parameters.list();
      const graph = lossAndGradients(add(rows, pooled), list);
      const results = await runGraph(graph, list, await readParameters(checkpoint, list), inputs);
      return { actual: shortNames(results), names: Object.keys(shortNames(results)) };
    });
    const expected = await readGolden(name, `gradients${suffix}`);
    expect(names.sort()).toEqual(['loss', ...Object.keys(expected)].sort());
    expectOutputs(`${name}${suffix} loss`, actual, await readGolden(name, `outputs${suffix}`), ['loss']);
    expectGradients(name + suffix, actual, expected);
  });
});

describe.each([
  { name: 'llava', suffix: '', scaled: false, size: 24 },
  { name: 'llava', suffix: '-scaled', scaled: true, size: 24 },
  { name: 'llava-siglip', suffix: '', scaled: false, size: 26 },
])('$name, scale_image_features $scaled', ({ name, suffix, scaled, size }) => {
  const schema = llavaConfigSchema.transform((config) => ({ ...config, scale_image_features: scaled }));
  const label = name + suffix;

  test('features, hidden states and logits', async () => {
    const inputs = await readGolden(name, 'inputs');
    const actual = await runGolden(
      name,
      schema,
      (config, p) => {
        const features = visionFeatures(p, config, input('pixel_values', 'float32', ['images', 3, size, size]));
        const rows = imageRows(p, config, { features });
        const positionIds = ids('position_ids');
        const text = llava(p, config, {
          inputIds: ids('input_ids'),
          positionIds,
          attentionBias: cacheBias(positionIds),
          images: { rows },
        });
        return {
          vision_features: features,
          // the stored features are those of the projector itself
          image_features: mul(rows, scaled ? 1 / Math.sqrt(config.text_config.hidden_size) : 1),
          logits: p.module('language_model', (p) => logits(p, config.text_config, text.lastHidden)),
          ...Object.fromEntries(text.hiddenStates.map((state, i) => [`hidden_states.${i}`, state])),
        };
      },
      { input_ids: inputs.input_ids, pixel_values: inputs.pixel_values, ...positionsOf(inputs.attention_mask) },
    );
    const expected = await readGolden(name, `outputs${suffix}`);
    const { loss: _, ...outputs } = expected;
    expectOutputs(label, actual, expected, Object.keys(outputs));
  });

  test('loss and the gradient of every parameter from pixels on', async () => {
    const golden = await readGolden(name, 'inputs');
    const inputs = { ...packedInputs(golden), pixel_values: golden.pixel_values };
    const { actual, names } = await withCheckpoint(folderOf(name), schema, async (config, checkpoint) => {
      const whole = llavaLoss(config, { fromPixels: true });
      const list = whole.parameters;
      const results = await runGraph(lossAndGradients(meanLoss(whole), list), list, await readParameters(checkpoint, list), inputs);
      return { actual: results, names: list.map((parameter) => parameter.name) };
    });
    const expected = await readGolden(name, `gradients${suffix}`);
    expect(names.length).toBe(Object.keys(expected).length);
    expectOutputs(`${label} loss`, actual, await readGolden(name, `outputs${suffix}`), ['loss']);
    expectGradients(label, shortNames(actual), expected);
  });

  test('and with a frozen encoder, from its features on', async () => {
    const { vision_features: features, ...outputs } = await readGolden(name, `outputs${suffix}`);
    const packed = packedInputs(await readGolden(name, 'inputs'));
    const actual = await withCheckpoint(folderOf(name), schema, async (config, checkpoint) => {
      const graph = llavaLoss(config);
      const list = graph.parameters;
      const values = await readParameters(checkpoint, list);
      return runGraph(lossAndGradients(meanLoss(graph), list), list, values, { ...packed, image_features: features });
    });
    expectOutputs(`${label} objective`, actual, outputs, ['loss']);
    expectGradients(`${label} objective`, actual, await readGolden(name, `gradients${suffix}`), (name) => !name.startsWith('vision_tower'));
  });
});

test('gradients on a tiny LLaVA against finite differences in float64', async () => {
  const step = 1e-5;
  const golden = await readGolden('llava', 'inputs');
  const inputs = { ...packedInputs(golden), pixel_values: golden.pixel_values };
  await withCheckpoint(folderOf('llava'), llavaConfigSchema, async (config, checkpoint) => {
    const whole = llavaLoss(config, { fromPixels: true });
    const loss = meanLoss(whole);
    const list = whole.parameters;
    const values = await readParameters(checkpoint, list);
    const gradients = await runGraph(lossAndGradients(loss, list), list, values, inputs);
    const wide = ({ data, dims }: Value): ReferenceValue => ({ dims: [...dims], data: Float64Array.from(data as Float32Array) });
    const feeds = Object.fromEntries(
      Object.entries({ ...parameterFeeds(list, values), ...inputs }).map(([name, value]) => [name, wide(value)]),
    );
    const lossAt = (name: string, data: Float64Array) =>
      evaluateReference({ loss }, { ...feeds, [name]: { ...feeds[name], data } }).loss.data[0];

    const norms = new Map(list.map(({ name }) => [name, Math.hypot(...(gradients[name].data as Float32Array))]));
    const largest = Math.max(...norms.values());
    let worst = { name: '', error: 0 };
    for (const { name } of list) {
      const random = createRandom(11, name);
      const { data } = feeds[name];
      const direction = data.map(() => random.normal());
      const moved = (by: number) => data.map((v, i) => v + by * direction[i]);
      const numeric = (lossAt(name, moved(step)) - lossAt(name, moved(-step))) / (2 * step);
      const analytic = (gradients[name].data as Float32Array).reduce((sum, g, i) => sum + g * direction[i], 0);
      // the slope along a random direction is about as large as the gradient's norm
      const error = Math.abs(numeric - analytic) / (hasNoGradient(name) ? largest : norms.get(name)!);
      expect(error, `gradient of ${name}: ${analytic}, by differences ${numeric}`).toBeLessThan(GRADIENT_TOLERANCE);
      if (error > worst.error) worst = { name, error };
    }
    console.log(
      `llava: worst relative error of ${list.length} gradients against finite differences ${worst.error.toExponential(1)} (${worst.name})`,
    );
  });
});

test('adamw: five steps with clipping as torch.optim.AdamW and clip_grad_norm_ take them', async () => {
  const inputs = await readGolden('adamw', 'inputs');
  const outputs = await readGolden('adamw', 'outputs');
  const settings = (await readJsonFile(`${folderOf('adamw')}/config.json`)) as {
    betas: [number, number];
    eps: number;
    maxGradNorm: number;
    learningRates: number[];
  };
  const names = ['linear.weight', 'linear.bias', 'stack'];
  const parameters = names.map((name) => {
    const { dims, data } = inputs[`params.${name}`];
    const values = engine.state(float32((data as Float32Array).slice(), dims));
    return { name, dims, values, gradient: engine.zeros('float32', dims) };
  });
  const options = { betas: settings.betas, eps: settings.eps, weightDecay: 0.1, maxGradNorm: settings.maxGradNorm };
  const optimizer = await createAdamW(engine, parameters, options);
  for (const [step, rate] of settings.learningRates.entries()) {
    for (const { name, gradient } of parameters) await gradient.write(inputs[`gradients.${step}.${name}`]);
    const { gradNorm } = await optimizer.step({ step: step + 1, scale: 1, learningRate: () => rate });
    expect(gradNorm).toBeCloseTo(outputs[`grad_norm.${step}`].data[0] as number, 5);
    for (const { name, values } of parameters) {
      const moment = (kind: string) => optimizer.moments.get(`${name}.${kind}`)!.read();
      expect(maxDifference(await values.read(), outputs[`params.${step}.${name}`]), `${name} after step ${step}`).toBeLessThan(1e-6);
      for (const kind of ['exp_avg', 'exp_avg_sq'])
        expect(maxDifference(await moment(kind), outputs[`${kind}.${step}.${name}`])).toBeLessThan(1e-7);
    }
  }
  await optimizer.dispose();
});

test('cross entropy: rows without a label are left out', async () => {
  const { logits, labels } = await readGolden('cross_entropy', 'inputs');
  const outputs = await readGolden('cross_entropy', 'outputs');
  const gradients = await readGolden('cross_entropy', 'gradients');
  const [, classes] = logits.dims;
  const kept = [...labels.data.keys()].filter((row) => labels.data[row] !== -100);
  const hidden = input('hidden', 'float32', ['rows', classes]);
  // with the identity as the weight, the hidden rows are the logits
  const identity = input('identity', 'float32', [classes, classes]);
  const losses = linearCrossEntropy(
    gather(hidden, input('label_rows', 'int32', ['labels'])),
    identity,
    input('labels', 'int32', ['labels']),
  );
  const loss = mul(reduceSum(losses, [0]), 1 / kept.length);
  const program = await engine.compile({ losses, loss, logits: grad(loss, [hidden])[0] });
  const actual = await program.run({
    hidden: logits,
    identity: float32(
      Float32Array.from({ length: classes ** 2 }, (_, i) => Number(i % (classes + 1) === 0)),
      [classes, classes],
    ),
    label_rows: int32(kept, [kept.length]),
    labels: int32(
      kept.map((row) => labels.data[row] as number),
      [kept.length],
    ),
  });
  await program.dispose();
  const expectedLosses = float32(
    kept.map((row) => outputs.losses.data[row] as number),
    [kept.length],
  );
  expect(maxDifference(actual.losses, expectedLosses)).toBeLessThan(1e-6);
  expectOutputs('cross entropy', actual, { ...outputs, ...gradients }, ['loss', 'logits']);
});
