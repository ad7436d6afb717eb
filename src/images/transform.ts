// The steps between a decoded image and an encoder's input, each as in Hugging Face's image processors
// (transformers/image_transforms.py) or, for padding, in LLaVA's expand2square (llava/mm_utils.py).

import type { PixelImage } from './pixels.ts';
import type { Canvas, Rectangle } from './resize.ts';

export interface Size {
  width: number;
  height: number;
}

/** A square of the longer side with the picture in its middle. */
export function squareAround({ width, height }: Size, color: readonly [number, number, number]): Canvas {
  const side = Math.max(width, height);
  return { width: side, height: side, left: Math.floor((side - width) / 2), top: Math.floor((side - height) / 2), color };
}

/** The size in the same proportions whose shorter side has `edge` pixels; the longer one is rounded down. */
export function shortestEdge({ width, height }: Size, edge: number): Size {
  const long = Math.trunc((edge * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? { width: edge, height: long } : { width: long, height: edge };
}

/** What a crop of `size` out of the middle leaves of a picture: less where the picture is smaller. */
export function centerOf({ width, height }: Size, size: Size): Rectangle {
  return {
    left: Math.max(0, Math.floor((width - size.width) / 2)),
    top: Math.max(0, Math.floor((height - size.height) / 2)),
    width: Math.min(width, size.width),
    height: Math.min(height, size.height),
  };
}

/** Cuts `width` x `height` pixels out of the middle; what lies outside the image is black. */
export function centerCrop(image: PixelImage, width: number, height: number): PixelImage {
  if (width === image.width && height === image.height) return image;
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
  const [red, green, blue] = mean.map((_, channel) =>
    Float32Array.from({ length: 256 }, (_, value) => (value * rescale - mean[channel]) / std[channel]),
  );
  for (let i = 0, at = 0; i < area; i++, at += channels) {
    planes[i] = red[data[at]];
    planes[area + i] = green[data[at + 1]];
    planes[2 * area + i] = blue[data[at + 2]];
  }
  return planes;
}
