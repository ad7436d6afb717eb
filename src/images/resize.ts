// Antialiased resizing with the same bytes as Pillow's: two passes of fixed-point convolution, as in Pillow's
// Resample.c (horizontal first, each pass rounded and clipped to 8 bits). Encoders were trained on Pillow's
// pixels; a resize that is slightly off costs accuracy.

import type { PixelImage } from './pixels.ts';
import { filterBothWays, type Kernel, PRECISION_BITS } from './resize-kernel.ts';

export type ResizeFilter = 'nearest' | 'lanczos' | 'bilinear' | 'bicubic' | 'box' | 'hamming';

const sinc = (x: number) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

/** Nearest has no weights: it takes one pixel. */
const filters: Record<Exclude<ResizeFilter, 'nearest'>, { support: number; weight(x: number): number }> = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  hamming: { support: 1, weight: (x) => (Math.abs(x) < 1 ? sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)) : 0) },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  // Keys' cubic kernel with a = -0.5.
  bicubic: {
    support: 2,
    weight(x) {
      const t = Math.abs(x);
      if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
      if (t < 2) return (((t - 5) * t + 8) * t - 4) * -0.5;
      return 0;
    },
  },
};

/** The kernel of `count` output pixels, from `first` on, of `to` in all. */
function kernelFor(from: number, to: number, filter: Exclude<ResizeFilter, 'nearest'>, first: number, count: number): Kernel {
  const { support: radius, weight } = filters[filter];
  const scale = from / to;
  // Downscaling widens the filter to cover all source pixels; upscaling interpolates with the filter as it
  // is.
  const widening = Math.max(scale, 1);
  const support = radius * widening;
  const stride = Math.ceil(support) * 2 + 1;
  const [starts, lengths, outside] = Array.from({ length: 3 }, () => new Int32Array(count));
  const weights = new Int32Array(count * stride);
  const exact = new Float64Array(stride);
  for (let out = 0; out < count; out++) {
    const center = (first + out + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const length = Math.min(from, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let i = 0; i < length; i++) {
      exact[i] = weight((i + start - center + 0.5) * (1 / widening));
      sum += exact[i];
    }
    for (let i = 0; i < length; i++) {
      const share = (sum === 0 ? exact[i] : exact[i] / sum) * 2 ** PRECISION_BITS;
      weights[out * stride + i] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    }
    starts[out] = start;
    lengths[out] = length;
  }
  return { starts, lengths, weights, stride, outside };
}

/**
 * Changes a kernel over a canvas to one over the `size` pixels that lie on it from `offset` on: all others
 * have one color, so that the sum of their weights is all that counts.
 */
function restrict(kernel: Kernel, offset: number, size: number): Kernel {
  const { starts, lengths, weights, stride, outside } = kernel;
  for (let out = 0; out < starts.length; out++) {
    const own = weights.subarray(out * stride, out * stride + lengths[out]);
    const first = Math.min(own.length, Math.max(0, offset - starts[out]));
    const last = Math.max(first, Math.min(own.length, offset + size - starts[out]));
    for (let i = 0; i < own.length; i++) if (i < first || i >= last) outside[out] += own[i];
    own.copyWithin(0, first, last);
    starts[out] += first - offset;
    lengths[out] = last - first;
  }
  return kernel;
}

/** A part of a picture, in pixels. */
export interface Rectangle {
  left: number;
  top: number;
  width: number;
  height: number;
}

/**
 * A larger plane on which a picture lies at (left, top); the rest of it has one color, 0 to 255 by channel.
 */
export interface Canvas extends Rectangle {
  color: readonly number[];
}

export interface ResizeOptions {
  /** Resize this, with the picture on it. Default: the picture alone. */
  canvas?: Canvas;
  /** The part of the result to compute. Default: all. */
  window?: Rectangle;
}

/**
 * Resizes to `width` x `height` pixels. RGBA is filtered with premultiplied alpha, as in Pillow. Neither the
 * canvas nor what lies outside the window is ever in memory; the bytes are those that they would give.
 * RangeError for a size below 1 x 1.
 */
export function resizeImage(
  image: PixelImage,
  width: number,
  height: number,
  filter: ResizeFilter = 'bicubic',
  { canvas, window = { left: 0, top: 0, width, height } }: ResizeOptions = {},
): PixelImage {
  if (width < 1 || height < 1) throw new RangeError(`cannot resize to ${width}x${height} pixels`);
  if (!canvas && width === image.width && height === image.height) return cut(image, window);
  const { channels } = image;
  const plane = canvas ?? { left: 0, top: 0, width: image.width, height: image.height, color: [0, 0, 0, 0] };
  if (filter === 'nearest') return nearest(image, plane, { width, height, window });
  const { left, top, color } = plane;
  const rows = restrict(kernelFor(plane.height, height, filter, window.top, window.height), top, image.height);
  const columns = restrict(kernelFor(plane.width, width, filter, window.left, window.width), left, image.width);
  const source = channels === 4 ? premultiply(image.data) : image.data;
  const data = filterBothWays(source, image.width * channels, channels, rows, columns, color);
  return { width: window.width, height: window.height, channels, data: channels === 4 ? unpremultiply(data) : data };
}

/** A copy of a part of the picture. */
function cut({ width, channels, data }: PixelImage, window: Rectangle): PixelImage {
  const line = window.width * channels;
  const part = new Uint8Array(window.height * line);
  for (let y = 0; y < window.height; y++) {
    const start = ((window.top + y) * width + window.left) * channels;
    part.set(data.subarray(start, start + line), y * line);
  }
  return { width: window.width, height: window.height, channels, data: part };
}

/** The pixel of the canvas under the center of each output pixel. */
function nearest(image: PixelImage, canvas: Canvas, size: { width: number; height: number; window: Rectangle }): PixelImage {
  const { channels, data } = image;
  const { width, height, left, top } = size.window;
  const result = new Uint8Array(width * height * channels);
  const columns = centers(canvas.width, size.width, left, width).map((x) => x - canvas.left);
  const rows = centers(canvas.height, size.height, top, height).map((y) => y - canvas.top);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (rows[y] * image.width + columns[x]) * channels;
      const isInside = rows[y] >= 0 && rows[y] < image.height && columns[x] >= 0 && columns[x] < image.width;
      result.set(isInside ? data.subarray(from, from + channels) : canvas.color, (y * width + x) * channels);
    }
  }
  return { width, height, channels, data: result };
}

/**
 * Of `count` output pixels from `first` on. Added up step by step, as in Pillow's Geometry.c: a center
 * between two pixels falls to the same side.
 */
function centers(from: number, to: number, first: number, count: number): number[] {
  const step = from / to;
  let center = step * 0.5;
  for (let skipped = 0; skipped < first; skipped++) center += step;
  return Array.from({ length: count }, () => {
    const pixel = Math.min(Math.floor(center), from - 1);
    center += step;
    return pixel;
  });
}

function premultiply(data: Uint8Array): Uint8Array {
  const result = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i += 4) {
    const alpha = data[i + 3];
    for (let channel = 0; channel < 3; channel++) {
      const product = data[i + channel] * alpha + 128;
      result[i + channel] = (product + (product >> 8)) >> 8;
    }
    result[i + 3] = alpha;
  }
  return result;
}

function unpremultiply(data: Uint8Array): Uint8Array {
  const result = new Uint8Array(data.length);
  for (let i = 0; i < data.length; i += 4) {
    const alpha = data[i + 3];
    const opaqueOrNothing = alpha === 255 || alpha === 0;
    for (let channel = 0; channel < 3; channel++) {
      const value = data[i + channel];
      result[i + channel] = opaqueOrNothing ? value : Math.min(255, Math.trunc((255 * value) / alpha));
    }
    result[i + 3] = alpha;
  }
  return result;
}
