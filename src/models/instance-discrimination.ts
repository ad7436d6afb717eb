// The graph of instance discrimination for a DINOv2: which drawing is this, among all that there are? Nothing
// says what they show, or that two show the same (Dosovitskiy et al. 2014, arXiv 1406.6909; Wu et al. 2018,
// arXiv 1805.01978).

import { linearCrossEntropy } from '../graph/composites.ts';
import { mul, reduceSum, slice } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';
import { linear } from '../nn/layers.ts';
import { normal } from '../nn/parameters.ts';
import { type Dinov2Config, dinov2, dinov2Norm } from './dinov2.ts';
import { type GraphOptions, graphOf, type LossGraph } from './programs.ts';
import { readRegions, regionPorts, unitLength } from './regions.ts';

export interface InstanceOptions {
  /** Places for drawings in a scene. */
  slots: number;
  /** Drawings to tell apart. */
  instances: number;
  /** Width of the space in which they are told apart. */
  projection: number;
  /** What cosines are divided by. */
  temperature: number;
}

const HEAD = 'head';

/** Whether a parameter is the head's, which is no part of the encoder. */
export const isOfHead = (name: string): boolean => name.startsWith(`${HEAD}.`);

/**
 * Cross entropy of the cosines between what an encoder makes of a drawing and a learned direction of each
 * instance. LLaVA reads patch rows, so these are read, as by the tiny CLIP: after the final norm, averaged by
 * weights. Inputs: those of `regionPorts`, region_labels int32 [regions], the number of each instance, and
 * region_scale, a factor on the sum of losses. A whole batch has weight 1.
 */
export function instanceLoss(config: Dinov2Config, options: InstanceOptions, graphOptions?: GraphOptions): LossGraph {
  const { slots, instances, projection, temperature } = options;
  return graphOf((p) => {
    const regions = regionPorts(config, slots);
    const labels = {
      region_labels: input('region_labels', 'int32', ['regions']),
      region_scale: input('region_scale', 'float32', []),
    };
    const rows = dinov2Norm(p, config, dinov2(p, config, regions.pixel_values).at(-1)!);
    const drawings = readRegions(slice(rows, 1, 1, rows.dims[1] as number), regions);
    const [embeds, known] = p.module(HEAD, (p) => [
      unitLength(linear(p, 'projection', drawings, projection, { std: config.hidden_size ** -0.5 })),
      unitLength(p.module('instances', (p) => p.get('weight', [instances, projection], normal(projection ** -0.5)))),
    ]);
    const losses = linearCrossEntropy(mul(embeds, 1 / temperature), known, labels.region_labels);
    return { inputs: { ...regions, ...labels }, outputs: { loss: mul(reduceSum(losses, [0]), labels.region_scale) } };
  }, graphOptions);
}
