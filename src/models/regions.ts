// Drawings in a picture, read from the patch rows that they cover.

import { dimProduct } from '../graph/dims.ts';
import { add, div, gather, matmul, mul, reduceSum, reshape, sqrt } from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';

/**
 * Input ports for images and for where the drawings in them are, as `regionInputs` in
 * data/emoji/contrastive.ts fills them: `slots` places per image, some of them empty.
 */
export function regionPorts({ image_size: size, patch_size: patch }: { image_size: number; patch_size: number }, slots: number) {
  const patches = Math.floor(size / patch) ** 2;
  return {
    pixel_values: input('pixel_values', 'float32', ['images', 3, size, size]),
    /** Rows that sum to one; all zero where a place is empty. */
    region_weights: input('region_weights', 'float32', ['images', slots, patches]),
    /** Flat indices of the places that are not empty. */
    region_rows: input('region_rows', 'int32', ['regions']),
  };
}
export type RegionPorts = ReturnType<typeof regionPorts>;

/** Patch rows [images, patches, hidden], averaged by their weights for each drawing: [regions, hidden]. */
export function readRegions(rows: Tensor, { region_weights, region_rows }: RegionPorts): Tensor {
  const pooled = matmul(region_weights, rows); // [images, slots, hidden]
  return gather(reshape(pooled, [dimProduct(region_weights.dims.slice(0, 2)), rows.dims[2]]), region_rows);
}

/** The same directions, of length one: [.., size] -> the same. */
export const unitLength = (x: Tensor): Tensor => div(x, sqrt(add(reduceSum(mul(x, x), [-1], true), 1e-12)));
