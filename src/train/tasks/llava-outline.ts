// What a stage of a LLaVA would do: a few of its batches, of which only the shapes are told, and the graph of
// its loss.

import { conversationBatches } from '../../data/conversations.ts';
import { type DataIndex, openData } from '../../data/data-set.ts';
import { type FeatureType, featureBytes } from '../../data/feature-cache.ts';
import { type EncodedSample, packSamples } from '../../data/packing.ts';
import { batchesPerEpoch, type SampleOrder, samplesPerEpoch } from '../../data/sample-order.ts';
import type { Value } from '../../engine/engine.ts';
import { UserError } from '../../errors.ts';
import { imageSize, imageTokenCount, type LlavaConfig, visionFeatureSize } from '../../models/llava.ts';
import { encoderGraph, llavaLoss } from '../../models/programs.ts';
import type { Tokenizer } from '../../text/tokenizer.ts';
import { adapterGraph, dropoutInputs, type StageAdapters, withDropout } from '../adapters.ts';
import { type MicroBatch, packedBatch } from '../batch.ts';
import type { LlavaStage } from '../recipe.ts';
import { ENCODED } from '../sources/llava.ts';
import type { StageOutline } from '../task.ts';

export interface LlavaStagePlan {
  settings: LlavaStage;
  seed: number;
  config: LlavaConfig;
  tokenizer: Tokenizer;
  data: DataIndex;
  /** Distinct pictures of the stage, at most: also those of what is held out. */
  pictures: number;
  adapters: StageAdapters | undefined;
  /** How features are kept; undefined where the encoder runs at each step. */
  kept: FeatureType | undefined;
  /** Of the features: see `PlannedFeatures`. */
  encoder: string;
  sources: readonly string[];
}

/** Batches that are looked at. */
const LOOKED_AT = 8;

/** Steps of a stage, and of one pass over its data: no whole number where a step has batches of two. */
export function stepsOfStage({ batch_size, accumulation, steps, epochs }: LlavaStage, { files }: Pick<DataIndex, 'files'>) {
  const stepsPerEpoch = batchesPerEpoch(samplesPerEpoch(files), batch_size) / accumulation;
  return { stepsPerEpoch, totalSteps: steps ?? Math.max(1, Math.round((epochs ?? 1) * stepsPerEpoch)) };
}

/** How a stage groups its samples by modality. */
export const modalityGroups = ({ group_by_modality, accumulation }: LlavaStage): SampleOrder['groupByModality'] =>
  group_by_modality ? { accumulation } : undefined;

/** Distinct pictures of an index, at most: one that different lists of pictures have is counted for each. */
export function pictureCount({ groups, pictures }: Pick<DataIndex, 'groups' | 'pictures'>): number {
  let seen = 0;
  return groups.reduce((count, group, sample) => {
    if (group < seen) return count;
    seen = group + 1;
    return count + pictures[sample];
  }, 0);
}

export async function outlineLlavaStage(plan: LlavaStagePlan): Promise<StageOutline> {
  const { settings, seed, config, data, pictures, adapters, kept, encoder, sources } = plan;
  const graphOptions = { fromPixels: !kept, ...(adapters ? { adapters: adapterGraph(adapters) } : {}) };
  const { totalSteps, stepsPerEpoch } = stepsOfStage(settings, data);
  const total = totalSteps * settings.accumulation;
  const count = Math.min(LOOKED_AT, total);
  const looked = Array.from({ length: count }, (_, i) => Math.floor((i * total) / count));
  const shapes = shapesOf(plan, looked);
  const rows = adapters ? dropoutInputs(llavaLoss(config, graphOptions)) : new Map();
  const dropped = withDropout((step) => [shapes[step]], rows, seed, settings.name);
  const batches: MicroBatch[] = [];
  for (const step of shapes.keys()) for await (const batch of dropped(step)) batches.push(batch);
  const size = imageTokenCount(config) * visionFeatureSize(config);
  return {
    settings,
    loss: (storage) => llavaLoss(config, { ...graphOptions, storage }),
    totalSteps,
    stepsPerEpoch,
    samples: samplesPerEpoch(data.files),
    pictures,
    batches,
    ...(kept ? { features: { bytes: pictures * featureBytes(size, kept), kept, encoder: `${encoder} in ${kept}`, sources } } : {}),
    ...(kept ? { encoder: { graph: (storage) => encoderGraph(config, { storage }), pictures: ENCODED } } : {}),
  };
}

/** The sample; undefined where it is bad. */
function goodOf(encode: () => EncodedSample): EncodedSample | undefined {
  try {
    return encode();
  } catch (error) {
    if (error instanceof UserError) return undefined;
    throw error;
  }
}

function shapesOf({ settings, seed, config, tokenizer, data, kept }: LlavaStagePlan, indices: readonly number[]): MicroBatch[] {
  const { template, batch_size: batchSize, max_length, row_length, on_bad_sample, name } = settings;
  const positions = config.text_config.max_position_embeddings;
  const imageTokens = imageTokenCount(config);
  const opened = openData(data);
  try {
    const maxLength = Math.min(max_length, positions);
    const order = { seed, stage: name, batchSize, groupByModality: modalityGroups(settings) };
    const batches = conversationBatches({ data: opened, tokenizer, imageTokens, template, maxLength, ...order });
    // as in training (sources/llava.ts): a batch of which nothing is left has the samples of the next
    const samplesOf = (index: number): EncodedSample[] => {
      for (let next = index; next < index + opened.length; next++) {
        const samples = batches.batch(next, (_, encode) => (on_bad_sample === 'skip' ? goodOf(encode) : encode()));
        if (samples.length > 0) return samples;
      }
      throw new UserError(`stage ${name}: not one of its samples can be trained on`);
    };
    return indices.map((index) => {
      const packed = packSamples(samplesOf(index), row_length, positions);
      const side = imageSize(config);
      const rows = packed.images.length;
      // none of their numbers is looked at
      const nothing = { dtype: 'float32', data: new Float32Array(0) } as const;
      const pictures: Record<string, Value> = kept
        ? { image_features: { ...nothing, dims: [rows, imageTokens, visionFeatureSize(config)] } }
        : { pixel_values: { ...nothing, dims: [rows, 3, side, side] } };
      const batch = packedBatch(packed);
      return { ...batch, inputs: { ...batch.inputs, ...pictures } };
    });
  } finally {
    opened.close();
  }
}
