// Stage 1 on a few pictures in memory: the connector alone is trained, of a model that answers meanwhile.
// Order of samples, batches, loss and optimizer are those of a run whose recipe says the same.

import { concatFloat32 } from '../arrays.ts';
import { conversationBatches } from '../data/conversations.ts';
import { packSamples } from '../data/packing.ts';
import { batchesPerEpoch } from '../data/sample-order.ts';
import { type Engine, float32, type State } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { takeBreath } from '../generate/prompt.ts';
import type { AnsweringModel, Picture } from '../generate/session.ts';
import { type ImageProcessorConfig, readPixelValues } from '../images/processor.ts';
import { imageTokenCount, type LlavaConfig, visionFeatureSize } from '../models/llava.ts';
import { connectorGraph, llavaLoss } from '../models/programs.ts';
import { imagePlaces, type Turn, withImages } from '../text/chat.ts';
import { type MicroBatch, packedBatch } from './batch.ts';
import { type SavedContents, savedModel } from './saved.ts';
import { warmupStepsOf } from './schedule.ts';
import { trainStage } from './stage.ts';
import { furtherModel, moduleOf } from './tasks/llava-model.ts';
import { ModelWeights } from './weights.ts';

/** A picture and what is said about it: turns that end with an answer. Without `<image>`, it stands first. */
export interface ConnectorExample {
  picture: Picture;
  turns: readonly Turn[];
}

/** As fields of a recipe's stage of these names. */
export interface ConnectorTraining {
  steps: number;
  /** Samples in a step. Default: 16. */
  batchSize?: number;
  /** Peak learning rate; it rises for the first 3 % of the steps, and falls as a cosine. Default: 1e-3. */
  learningRate?: number;
  /** Default: gemma, the model's chat template; plain is a caption behind its picture. */
  template?: 'gemma' | 'plain';
  /** Orders the examples. Default: 0. */
  seed?: number;
  /** Is called after each step; the connector answers by then with what it has learnt. */
  onStep?(report: ConnectorStep): void | Promise<void>;
  /** Ends training after a step, by throwing its reason; what was learnt stays. */
  signal?: AbortSignal;
}

export interface ConnectorStep {
  /** Finished steps, from 1. */
  step: number;
  steps: number;
  /** Nats per trained token. */
  loss: number;
  learningRate: number;
}

export interface ConnectorTrainer {
  /** Trains on. UserError for no examples, an example that cannot be read, or turns without an answer. */
  train(examples: readonly ConnectorExample[], options: ConnectorTraining): Promise<void>;
  /** Features -> rows for the language model, as the connector is now. */
  imageRows(features: Float32Array): Promise<Float32Array>;
  /** The whole model as it is now, ready to be saved with `saveCheckpoint`. */
  contents(): Promise<SavedContents>;
  dispose(): Promise<void>;
}

export interface TrainedModel extends AnsweringModel {
  config: LlavaConfig;
  processor: ImageProcessorConfig;
}

/** Defaults of recipes that nobody changes here. */
const ROW_LENGTH = 384;
const MAX_LENGTH = 2048;
const WARMUP = 0.03;
const OPTIMIZER = { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 } as const;

/** Pictures that the encoder takes at a time. */
const ENCODED = 32;

const isTrained = (name: string) => moduleOf(name) === 'multi_modal_projector';

/**
 * A trainer for the connector of `model`, whose weights are read from its folder `dir` once more. With
 * `fresh`, it begins with a new connector (mlp2x_gelu), whose numbers follow from that seed. UserError as of
 * `loadModel`.
 */
export async function createConnectorTrainer(
  engine: Engine,
  model: TrainedModel,
  dir: string,
  { fresh }: { fresh?: number } = {},
): Promise<ConnectorTrainer> {
  const weights = new ModelWeights(engine);
  const given = { llava: dir, ...(fresh === undefined ? {} : { new_connector: 'mlp2x_gelu' as const }) };
  const { config, files } = await furtherModel(given, fresh ?? 0, { weights, warn: () => {} });
  const graph = connectorGraph(config);
  const connector = await engine.compile(graph.outputs);
  const trained = new Map<string, State>();
  for (const { name } of graph.parameters) trained.set(name, await weights.trained(name));
  const [imageTokens, width] = [imageTokenCount(config), visionFeatureSize(config)];

  /** Batches of the examples by number. */
  async function openBatches(
    examples: readonly ConnectorExample[],
    { batchSize = 16, template = 'gemma', seed = 0, signal }: ConnectorTraining,
  ) {
    if (examples.length === 0) throw new UserError('there is nothing to train on: give pictures with texts');
    const { keys, features } = await encodeExamples(model, examples, signal);
    const groups = [...features.keys()];
    const positions = config.text_config.max_position_embeddings;
    const batches = conversationBatches({
      data: {
        files: [{ share: 1, samples: examples.length }],
        group: (i) => groups.indexOf(keys[i]),
        hasPictures: () => true,
        sample: (i) => ({ id: `example ${i + 1}`, images: [keys[i]], fields: {}, conversations: shown(examples[i].turns) }),
      },
      tokenizer: model.tokenizer,
      imageTokens,
      template,
      maxLength: Math.min(MAX_LENGTH, positions),
      batchSize,
      seed,
      stage: 'connector',
    });
    const batch = (index: number): MicroBatch => {
      const packed = packSamples(batches.batch(index), ROW_LENGTH, positions);
      const rows = concatFloat32(packed.images.map((key) => features.get(key)!));
      const { inputs, ...rest } = packedBatch(packed);
      return { inputs: { ...inputs, image_features: float32(rows, [packed.images.length, imageTokens, width]) }, ...rest };
    };
    return { batch, perEpoch: batchesPerEpoch(examples.length, batchSize) };
  }

  return {
    async train(examples, options) {
      const { steps, learningRate = 1e-3, onStep, signal } = options;
      signal?.throwIfAborted();
      const { batch, perEpoch } = await openBatches(examples, options);
      const loss = llavaLoss(config, { storage: weights.storageOf(isTrained) });
      await trainStage({
        engine,
        loss,
        trained,
        constants: await weights.constants(loss, isTrained),
        learningRate: () => learningRate,
        schedule: { kind: 'cosine', totalSteps: steps, warmupSteps: warmupStepsOf(steps, WARMUP), floor: 0 },
        optimizer: OPTIMIZER,
        data: { stepsPerEpoch: perEpoch, batches: (step) => [batch(step)] },
        async onStep({ step, loss, learningRateFactor }) {
          await onStep?.({ step, steps, loss, learningRate: learningRate * learningRateFactor });
          await takeBreath();
          signal?.throwIfAborted();
        },
      });
    },
    async imageRows(features) {
      const images = features.length / (imageTokens * width);
      const { rows } = await connector.run(
        { features: float32(features, [images, imageTokens, width]) },
        { state: Object.fromEntries(trained) },
      );
      return rows.data as Float32Array;
    },
    contents: () => savedModel({ saved: { config, files }, weights, moduleOf }),
    async dispose() {
      for (const state of trained.values()) state.clear();
      await connector.dispose();
    },
  };
}

const shown = (turns: readonly Turn[]): Turn[] => (imagePlaces(turns) === 0 ? withImages(turns, 1) : [...turns]);

/** The key of each example's picture, and the features of each of them, [imageTokens * width]. */
async function encodeExamples(
  { generator, processor, pictureKey }: TrainedModel,
  examples: readonly ConnectorExample[],
  signal?: AbortSignal,
) {
  const keys: string[] = [];
  const pictures = new Map<string, Picture>();
  for (const { picture } of examples) {
    const key = await pictureKey(picture);
    keys.push(key);
    pictures.set(key, picture);
  }
  const features = new Map<string, Float32Array>();
  const distinct = [...pictures];
  for (let start = 0; start < distinct.length; start += ENCODED) {
    signal?.throwIfAborted();
    const batch = distinct.slice(start, start + ENCODED);
    const names = batch.map(([key, picture]) =>
      typeof picture === 'string' ? picture : `the picture of example ${keys.indexOf(key) + 1}`,
    );
    const pixels = await readPixelValues(
      batch.map(([, picture]) => picture),
      processor,
      names,
    );
    const all = await generator.imageFeatures(pixels);
    const size = all.length / batch.length;
    batch.forEach(([key], i) => {
      features.set(key, all.slice(i * size, (i + 1) * size));
    });
  }
  return { keys, features };
}
