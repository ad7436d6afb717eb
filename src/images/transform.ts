// The steps between a decoded image and an encoder's input, each as in Hugging Face's image processors
// (transformers/image_transforms.py) or, for padding, in LLaVA's expand2square (llava/mm_utils.py).

import type { PixelImage } from './pixels.ts';

/** Centers the image on a square of its longer side, filled with `color` (0 to 255). RGB only. */
export function padToSquare(image: PixelImage, color: readonly [number, number, number]): PixelImage {
  const side = Math.max(image.width, image.height);
  if (image.width === image.height) return image;
  const data = new Uint8Array(side * side * 3);
  for (let i = 0; i < data.length; i++) data[i] = color[i % 3];
  const left = Math.floor((side - image.width) / 2);
  const top = Math.floor((side - image.height) / 2);
  copyRows(image, data, side, left, top);
  return { width: side, height: side, channels: 3, data };
}

/** Cuts `width` x `height` pixels out of the middle; what lies outside the image is black. */
export function centerCrop(image: PixelImage, width: number, height: number): PixelImage {
  const data = new Uint8Array(width * height * image.channels);
  const left = -Math.floor((image.width - width) / 2);
  const top = -Math.floor((image.height - height) / 2);
  copyRows(image, data, width, left, top);
  return { width, height, channels: image.channels, data };
}

/** Copies the image's rows to (left, top) of a canvas; what would fall outside is dropped. */
function copyRows(image: PixelImage, canvas: Uint8Array, canvasWidth: number, left: number, top: number): void {
  const { channels } = image;
  const canvasHeight = canvas.length / (canvasWidth * channels);
  const first = Math.max(0, -left);
  const last = Math.min(image.width, canvasWidth - left);
  for (let y = Math.max(0, -top); y < Math.min(image.height, canvasHeight - top); y++) {
    const start = (y * image.width + first) * channels;
    const row = image.data.subarray(start, start + (last - first) * channels);
    canvas.set(row, ((y + top) * canvasWidth + left + first) * channels);
  }
}

/**
 * Converts pixels `[height, width, 3]` to float planes `[3, height, width]`:
 * `(value * rescale - mean) / std`, by channel.
 */
export function normalizeToPlanes(
  image: PixelImage,
  rescale: number,
  mean: readonly number[],
  std: readonly number[],
): Float32Array<ArrayBuffer> {
  const { width, height, channels, data } = image;
  const area = width * height;
  const planes = new Float32Array(3 * area);
  for (let channel = 0; channel < 3; channel++) {
    const table = Float32Array.from({ length: 256 }, (_, value) => (value * rescale - mean[channel]) / std[channel]);
    for (let i = 0; i < area; i++) planes[channel * area + i] = table[data[i * channels + channel]];
  }
  return planes;
}
