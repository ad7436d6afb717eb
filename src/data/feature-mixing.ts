// Mixing pictures in the encoder's feature space. A frozen encoder reads the pictures that it was trained on
// far better than others; a connector trained on those alone takes its word for certain. Features with a
// little of another picture in them are doubtful in the way that an unfamiliar picture's are. After mixup
// (Zhang et al. 2018, arXiv 1710.09412), with the target of the first picture kept whole.

import type { Random } from '../random.ts';

/**
 * Features of `images` pictures one after the other, each mixed with those of another entry, whose share is
 * uniform between 0 and `largestShare` (0 to 1). A single picture stays as it is; one that is there twice may
 * meet itself. The same `random` gives the same numbers.
 */
export function mixFeatures(features: Float32Array, images: number, largestShare: number, random: Random): Float32Array {
  if (images < 2 || largestShare === 0) return features;
  const size = features.length / images;
  const mixed = new Float32Array(features.length);
  for (let image = 0; image < images; image++) {
    const start = image * size;
    const other = ((image + 1 + random.integer(images - 1)) % images) * size;
    const share = random.uniform() * largestShare;
    for (let i = 0; i < size; i++) mixed[start + i] = (1 - share) * features[start + i] + share * features[other + i];
  }
  return mixed;
}
