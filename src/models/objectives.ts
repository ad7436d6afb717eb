// Training objectives as graphs: next-token cross entropy (language model, LLaVA stages) and contrastive alignment (CLIP pretraining).

import { linearCrossEntropy } from '../graph/composites.ts';
import { dimProduct } from '../graph/dims.ts';
import { add, div, exp, flattenLeading, gather, matmul, mul, reduceSum, reshape, sqrt } from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { linear } from '../nn/layers.ts';
import { Parameters } from '../nn/parameters.ts';
import { type ClipConfig, clipImageEmbeds, clipLogitScale, clipPostNorm, clipTextEmbeds, clipVision, patchRows } from './clip.ts';
import { embedTokens, type LanguageConfig, labelLosses, languageModel } from './language.ts';
import { imageSize, imageTokenCount, type LlavaConfig, llavaText, projectFeatures, visionFeatureSize, visionFeatures } from './llava.ts';
import { packedBias } from './masks.ts';

export interface Objective {
  parameters: Parameters;
  /** Scalar. */
  loss: Tensor;
  /** Further scalars worth logging. */
  metrics: Record<string, Tensor>;
}

/** Inputs of packed rows, int32 [batch, tokens] each; see `packedBias`. */
function packedInputs() {
  const row = (name: string) => input(name, 'int32', ['batch', 'tokens']);
  return { inputIds: row('input_ids'), positionIds: row('position_ids'), sampleIds: row('sample_ids'), branchIds: row('branch_ids') };
}

/**
 * Sum over labelled positions of their cross entropy, times `loss_scale` (1 / labels in the whole optimiser step, so that accumulation
 * equals a big batch). `label_rows` int32 [labels] are flat positions (row * tokens + column) whose hidden state predicts `labels`.
 */
function nextTokenLoss(p: Parameters, config: LanguageConfig, lastHidden: Tensor): Tensor {
  const rows = gather(flattenLeading(lastHidden), input('label_rows', 'int32', ['labels']));
  const losses = labelLosses(p, config, rows, input('labels', 'int32', ['labels']));
  return mul(reduceSum(losses, [0]), input('loss_scale', 'float32', []));
}

/** Causal language modelling on packed rows. */
export function languageModelObjective(config: LanguageConfig): Objective {
  const parameters = new Parameters();
  const { inputIds, positionIds, sampleIds, branchIds } = packedInputs();
  const inputsEmbeds = embedTokens(parameters, config, inputIds);
  const { lastHidden } = languageModel(parameters, config, {
    inputsEmbeds,
    positionIds,
    attentionBias: packedBias({ positionIds, sampleIds, branchIds }),
  });
  return { parameters, loss: nextTokenLoss(parameters, config, lastHidden), metrics: {} };
}

/**
 * LLaVA on packed rows. With a frozen encoder, its features are an input (`image_features` float32 [images, imageTokens, width]): it
 * ran once, before. With `trainsEncoder`, pixels are (`pixel_values` float32 [images, 3, size, size]).
 */
export function llavaObjective(config: LlavaConfig, { trainsEncoder = false } = {}): Objective {
  const parameters = new Parameters();
  const { inputIds, positionIds, sampleIds, branchIds } = packedInputs();
  const size = imageSize(config);
  const features = trainsEncoder
    ? visionFeatures(parameters, config, input('pixel_values', 'float32', ['images', 3, size, size]))
    : input('image_features', 'float32', ['images', imageTokenCount(config), visionFeatureSize(config)]);
  const imageRows = projectFeatures(parameters, config, features);
  const attentionBias = packedBias({ positionIds, sampleIds, branchIds });
  const { lastHidden } = llavaText(parameters, config, { inputIds, positionIds, attentionBias, imageRows });
  const loss = parameters.module('language_model', (p) => nextTokenLoss(p, config.text_config, lastHidden));
  return { parameters, loss, metrics: {} };
}

const normalise = (x: Tensor) => div(x, sqrt(add(reduceSum(mul(x, x), [-1], true), 1e-12)));

/** Normalised embeddings [texts, projection_dim] of the texts whose inputs carry `prefix`: see data/emoji/contrastive.ts textInputs. */
export function textEmbeds(p: Parameters, config: ClipConfig, prefix: string, texts: string): Tensor {
  const row = (name: string) => input(`${prefix}_${name}`, 'int32', [texts, `${prefix}_tokens`]);
  const positionIds = input(`${prefix}_positions`, 'int32', [1, `${prefix}_tokens`]);
  const endMask = input(`${prefix}_end`, 'bool', [texts, `${prefix}_tokens`]);
  return normalise(clipTextEmbeds(p, config, { inputIds: row('ids'), attentionMask: row('mask'), positionIds, endMask }));
}

/**
 * Normalised embeddings of image regions: the post-normed patch rows are averaged with `region_weights` float32
 * [images, slots, patches] (rows that sum to one; zero where a slot is empty), those at `region_rows` int32 [regions] (flat slot
 * indices) are kept and projected: [regions, projection_dim].
 */
export function regionEmbeds(p: Parameters, config: ClipConfig, lastHidden: Tensor, slots: number): Tensor {
  const { hidden_size: hidden } = config.vision_config;
  const rows = clipPostNorm(p, config.vision_config, patchRows(lastHidden));
  const pooled = matmul(input('region_weights', 'float32', ['images', slots, rows.dims[1]]), rows);
  const regions = gather(reshape(pooled, [dimProduct(['images', slots]), hidden]), input('region_rows', 'int32', ['regions']));
  return normalise(linear(p, 'visual_projection', regions, config.projection_dim, { std: hidden ** -0.5 }));
}

/** Vision tower on `pixel_values` [images, 3, size, size]: its last hidden state. */
export function visionHidden(p: Parameters, config: ClipConfig): Tensor {
  const { image_size: size } = config.vision_config;
  return clipVision(p, config.vision_config, input('pixel_values', 'float32', ['images', 3, size, size])).at(-1)!;
}

/**
 * CLIP's symmetric InfoNCE between scenes and captions (Radford et al. 2021), plus the same from image regions to the names of the
 * batch (RegionCLIP, Zhong et al. 2022). LLaVA reads patch rows, so they must carry what the class token is usually asked for.
 *
 * Inputs beside those of `visionHidden`, `regionEmbeds` and `textEmbeds` (prefixes name, caption): region_labels int32 [regions]
 * (index into names), caption_labels int32 [images] = 0, 1, 2, ...; region_scale and caption_scale: factor on each sum of losses.
 */
export function contrastiveObjective(config: ClipConfig, slots: number): Objective {
  const parameters = new Parameters();
  const lastHidden = visionHidden(parameters, config);
  const temperature = exp(clipLogitScale(parameters, config));
  const summedLoss = (rows: Tensor, classes: Tensor, labels: Tensor) =>
    reduceSum(linearCrossEntropy(mul(rows, temperature), classes, labels), [0]);

  const names = textEmbeds(parameters, config, 'name', 'names');
  const regions = regionEmbeds(parameters, config, lastHidden, slots);
  const regionLoss = mul(summedLoss(regions, names, input('region_labels', 'int32', ['regions'])), input('region_scale', 'float32', []));

  const images = normalise(clipImageEmbeds(parameters, config, lastHidden));
  const captions = textEmbeds(parameters, config, 'caption', 'images');
  const captionLabels = input('caption_labels', 'int32', ['images']);
  const bothWays = add(summedLoss(images, captions, captionLabels), summedLoss(captions, images, captionLabels));
  const captionLoss = mul(bothWays, input('caption_scale', 'float32', []));
  return { parameters, loss: add(regionLoss, captionLoss), metrics: { region_loss: regionLoss, caption_loss: captionLoss } };
}
