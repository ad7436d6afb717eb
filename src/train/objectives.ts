// Training objectives as graphs: next-token cross entropy (language model, LLaVA stages) and contrastive alignment (CLIP pretraining).

import { linearCrossEntropy } from '../graph/composites.ts';
import { add, div, exp, flattenLeading, gather, matmul, mul, reduceSum, reshape, sqrt } from '../graph/primitives.ts';
import { dimProduct, input, type Tensor } from '../graph/tensor.ts';
import { type ClipConfig, clipImageEmbeds, clipLogitScale, clipPostNorm, clipTextEmbeds, clipVision, patchRows } from '../models/clip.ts';
import { embeddingWeight, embedTokens, type GemmaConfig, gemma } from '../models/gemma.ts';
import { imageTokenCount, type LlavaConfig, llavaText, packedBias, projectFeatures, visionFeatureSize } from '../models/llava.ts';
import { Parameters } from '../nn/parameters.ts';

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
function nextTokenLoss(lastHidden: Tensor, weight: Tensor): Tensor {
  const rows = gather(flattenLeading(lastHidden), input('label_rows', 'int32', ['labels']));
  const losses = linearCrossEntropy(rows, weight, input('labels', 'int32', ['labels']));
  return mul(reduceSum(losses, [0]), input('loss_scale', 'float32', []));
}

/** Causal language modelling on packed rows. */
export function languageModelObjective(config: GemmaConfig): Objective {
  const parameters = new Parameters();
  const { inputIds, positionIds, sampleIds, branchIds } = packedInputs();
  const inputsEmbeds = embedTokens(parameters, config, inputIds);
  const { lastHidden } = gemma(parameters, config, {
    inputsEmbeds,
    positionIds,
    attentionBias: packedBias({ positionIds, sampleIds, branchIds }),
  });
  return { parameters, loss: nextTokenLoss(lastHidden, embeddingWeight(parameters, config)), metrics: {} };
}

/**
 * LLaVA on packed rows with encoder features as input (`image_features` float32 [images, imageTokens, width]): the frozen encoder ran
 * once, before. Stage 1 differentiates this with respect to the connector alone, stage 2 connector and language model.
 */
export function llavaObjective(config: LlavaConfig): Objective {
  const parameters = new Parameters();
  const { inputIds, positionIds, sampleIds, branchIds } = packedInputs();
  const features = input('image_features', 'float32', ['images', imageTokenCount(config), visionFeatureSize(config)]);
  const imageRows = projectFeatures(parameters, config, features);
  const attentionBias = packedBias({ positionIds, sampleIds, branchIds });
  const { lastHidden } = llavaText(parameters, config, { inputIds, positionIds, attentionBias, imageRows });
  const weight = parameters.module('language_model', (p) => embeddingWeight(p, config.text_config));
  return { parameters, loss: nextTokenLoss(lastHidden, weight), metrics: {} };
}

const normalise = (x: Tensor) => div(x, sqrt(add(reduceSum(mul(x, x), [-1], true), 1e-12)));

/**
 * CLIP's symmetric InfoNCE between scenes and captions (Radford et al. 2021), plus the same between image regions and names
 * (RegionCLIP, Zhong et al. 2022): the post-normed patch rows of a region are averaged, projected and matched with the names of the
 * batch. LLaVA reads patch rows, so they must carry what the class token is usually asked for.
 *
 * Inputs: pixel_values [images, 3, size, size]; region_weights [images, slots, patches] (rows that sum to one; zero where a slot is
 * empty); region_rows int32 [regions] (flat slot indices in use) and region_labels int32 [regions] (index into names);
 * name_* and caption_* text inputs; caption_labels int32 [images] = 0, 1, 2, ...; region_scale, caption_scale: weights of the mean losses.
 */
export function contrastiveObjective(config: ClipConfig, slots: number): Objective {
  const parameters = new Parameters();
  const vision = config.vision_config;
  const size = vision.image_size;
  const hidden = vision.hidden_size;
  const patches = Math.floor(size / vision.patch_size) ** 2;
  const lastHidden = clipVision(parameters, vision, input('pixel_values', 'float32', ['images', 3, size, size])).at(-1)!;
  const temperature = exp(clipLogitScale(parameters, config));

  const rows = clipPostNorm(parameters, vision, patchRows(lastHidden));
  const pooled = matmul(input('region_weights', 'float32', ['images', slots, patches]), rows);
  const regions = gather(reshape(pooled, [dimProduct(['images', slots]), hidden]), input('region_rows', 'int32', ['regions']));
  const projection = parameters.get('visual_projection.weight', [config.projection_dim, hidden], { kind: 'normal', std: hidden ** -0.5 });
  const regionEmbeds = normalise(matmul(regions, projection, { transB: true }));
  const text = (prefix: string, texts: string) =>
    normalise(
      clipTextEmbeds(parameters, config, {
        inputIds: input(`${prefix}_ids`, 'int32', [texts, `${prefix}_tokens`]),
        attentionMask: input(`${prefix}_mask`, 'int32', [texts, `${prefix}_tokens`]),
        positionIds: input(`${prefix}_positions`, 'int32', [1, `${prefix}_tokens`]),
        endMask: input(`${prefix}_end`, 'bool', [texts, `${prefix}_tokens`]),
      }),
    );
  const meanLoss = (hiddenRows: Tensor, classes: Tensor, labels: Tensor, scale: Tensor) =>
    mul(reduceSum(linearCrossEntropy(mul(hiddenRows, temperature), classes, labels), [0]), scale);

  const names = text('name', 'names');
  const regionLoss = meanLoss(regionEmbeds, names, input('region_labels', 'int32', ['regions']), input('region_scale', 'float32', []));

  const imageEmbeds = normalise(clipImageEmbeds(parameters, config, lastHidden));
  const captions = text('caption', 'images');
  const captionLabels = input('caption_labels', 'int32', ['images']);
  const captionScale = mul(input('caption_scale', 'float32', []), 0.5);
  const captionLoss = add(
    meanLoss(imageEmbeds, captions, captionLabels, captionScale),
    meanLoss(captions, imageEmbeds, captionLabels, captionScale),
  );
  return { parameters, loss: add(regionLoss, captionLoss), metrics: { region_loss: regionLoss, caption_loss: captionLoss } };
}
