// Graphs of contrastive training for a CLIP, on whole scenes and on the drawings in them, and of naming
// drawings with it.

import { linearCrossEntropy } from '../graph/composites.ts';
import { add, exp, matmul, mul, reduceSum } from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { linear } from '../nn/layers.ts';
import type { Parameters } from '../nn/parameters.ts';
import { type ClipConfig, clipImageEmbeds, clipLogitScale, clipPostNorm, clipTextEmbeds, clipVision, patchRows } from './clip.ts';
import { type GraphOptions, graphOf, type LossGraph } from './programs.ts';
import { type RegionPorts, readRegions, regionPorts, unitLength } from './regions.ts';

// === Ports ===

/**
 * Input ports for texts, named with a prefix (`name`, `caption`), as `textInputs` in
 * data/emoji/contrastive.ts fills them; `texts` is the dim that counts them.
 */
function textPorts(prefix: string, texts: string) {
  const tokens = `${prefix}_tokens`;
  return {
    ids: input(`${prefix}_ids`, 'int32', [texts, tokens]),
    mask: input(`${prefix}_mask`, 'int32', [texts, tokens]),
    positions: input(`${prefix}_positions`, 'int32', [1, tokens]),
    end: input(`${prefix}_end`, 'bool', [texts, tokens]),
  };
}
type TextPorts = ReturnType<typeof textPorts>;

const underPrefix = (ports: TextPorts): Record<string, Tensor> =>
  Object.fromEntries(Object.values(ports).map((port) => [port.attributes.name, port]));

// === Embeddings, all of unit length ===

/** [texts, projection_dim]. */
function textEmbeds(p: Parameters, config: ClipConfig, { ids, mask, positions, end }: TextPorts): Tensor {
  return unitLength(clipTextEmbeds(p, config, { inputIds: ids, attentionMask: mask, positionIds: positions, endMask: end }));
}

/**
 * Embeddings of the drawings: patch rows after post_layernorm, averaged by their weights and projected,
 * [regions, projection_dim].
 */
function regionEmbeds(p: Parameters, config: ClipConfig, lastHidden: Tensor, regions: RegionPorts): Tensor {
  const { hidden_size: hidden } = config.vision_config;
  const rows = clipPostNorm(p, config.vision_config, patchRows(lastHidden)); // [images, patches, hidden]
  return unitLength(linear(p, 'visual_projection', readRegions(rows, regions), config.projection_dim, { std: hidden ** -0.5 }));
}

/** Last hidden state of the vision tower, [images, 1 + patches, hidden]. */
const visionHidden = (p: Parameters, config: ClipConfig, { pixel_values }: RegionPorts) =>
  clipVision(p, config.vision_config, pixel_values).at(-1)!;

// === Graphs ===

/**
 * CLIP's symmetric InfoNCE between scenes and captions (Radford et al. 2021), plus the same from image
 * regions to the names of the batch (RegionCLIP, Zhong et al. 2022). LLaVA reads patch rows, so they must
 * carry what is usually read from the class token.
 *
 * Inputs besides texts and regions: region_labels int32 [regions] (index into names), caption_labels int32
 * [images] = 0, 1, ...; region_scale and caption_scale: factor on each sum of losses. A whole batch has
 * weight 1.
 */
export function contrastiveLoss(config: ClipConfig, slots: number, options?: GraphOptions): LossGraph {
  return graphOf((p) => {
    const regionInputs = regionPorts(config.vision_config, slots);
    const [nameInputs, captionInputs] = [textPorts('name', 'names'), textPorts('caption', 'images')];
    const labels = {
      region_labels: input('region_labels', 'int32', ['regions']),
      region_scale: input('region_scale', 'float32', []),
      caption_labels: input('caption_labels', 'int32', ['images']),
      caption_scale: input('caption_scale', 'float32', []),
    };
    const lastHidden = visionHidden(p, config, regionInputs);
    const temperature = exp(clipLogitScale(p, config));
    const summedLoss = (rows: Tensor, classes: Tensor, wanted: Tensor) =>
      reduceSum(linearCrossEntropy(mul(rows, temperature), classes, wanted), [0]);

    const names = textEmbeds(p, config, nameInputs);
    const regions = regionEmbeds(p, config, lastHidden, regionInputs);
    const regionLoss = mul(summedLoss(regions, names, labels.region_labels), labels.region_scale);

    const images = unitLength(clipImageEmbeds(p, config, lastHidden));
    const captions = textEmbeds(p, config, captionInputs);
    const bothWays = add(summedLoss(images, captions, labels.caption_labels), summedLoss(captions, images, labels.caption_labels));
    const captionLoss = mul(bothWays, labels.caption_scale);
    return {
      inputs: { ...regionInputs, ...underPrefix(nameInputs), ...underPrefix(captionInputs), ...labels },
      outputs: { loss: add(regionLoss, captionLoss), region_loss: regionLoss, caption_loss: captionLoss },
    };
  }, options);
}

/** Cosine similarities of drawings and names: `similarity` [regions, names]. */
export function namingGraph(config: ClipConfig, slots: number, options?: GraphOptions) {
  return graphOf((p) => {
    const regionInputs = regionPorts(config.vision_config, slots);
    const nameInputs = textPorts('name', 'names');
    const regions = regionEmbeds(p, config, visionHidden(p, config, regionInputs), regionInputs);
    const similarity = matmul(regions, textEmbeds(p, config, nameInputs), { transB: true });
    return { inputs: { ...regionInputs, ...underPrefix(nameInputs) } as Record<string, Tensor>, outputs: { similarity } };
  }, options);
}

/** pixel_values [images, 3, size, size] -> `embeds` [images, projection_dim], of unit length. */
export function clipImageGraph(config: ClipConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const { image_size: size } = config.vision_config;
    const pixel_values = input('pixel_values', 'float32', ['images', 3, size, size]);
    const lastHidden = clipVision(p, config.vision_config, pixel_values).at(-1)!;
    return { inputs: { pixel_values }, outputs: { embeds: unitLength(clipImageEmbeds(p, config, lastHidden)) } };
  }, options);
}

/**
 * Inputs of texts, prefixed `caption` (data/emoji/contrastive.ts) -> `embeds` [texts, projection_dim], of
 * unit length.
 */
export function clipTextGraph(config: ClipConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const captions = textPorts('caption', 'texts');
    return { inputs: underPrefix(captions), outputs: { embeds: textEmbeds(p, config, captions) } };
  }, options);
}
