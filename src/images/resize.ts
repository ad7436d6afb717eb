// Antialiased resizing with the same bytes as Pillow's: two passes of fixed-point convolution, as in Pillow's
// Resample.c (horizontal first, each pass rounded and clipped to 8 bits). Encoders were trained on Pillow's
// pixels; a resize that is slightly off costs accuracy.

import type { PixelImage } from './pixels.ts';

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

/** Fraction bits: 32, minus 8 for the pixel, minus 2 so that the sums over the lobes cannot overflow. */
const precisionBits = 22;

interface Kernel {
  /** First source pixel and number of source pixels under each output pixel. */
  starts: Int32Array;
  lengths: Int32Array;
  /** `stride` fixed-point weights for each output pixel. */
  weights: Int32Array;
  stride: number;
}

function kernelFor(from: number, to: number, filter: Exclude<ResizeFilter, 'nearest'>): Kernel {
  const { support: radius, weight } = filters[filter];
  const scale = from / to;
  // Downscaling widens the filter to cover all source pixels; upscaling interpolates with the filter as it
  // is.
  const widening = Math.max(scale, 1);
  const support = radius * widening;
  const stride = Math.ceil(support) * 2 + 1;
  const kernel: Kernel = { starts: new Int32Array(to), lengths: new Int32Array(to), weights: new Int32Array(to * stride), stride };
  const exact = new Float64Array(stride);
  for (let out = 0; out < to; out++) {
    const center = (out + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const length = Math.min(from, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let i = 0; i < length; i++) {
      exact[i] = weight((i + start - center + 0.5) * (1 / widening));
      sum += exact[i];
    }
    for (let i = 0; i < length; i++) {
      const share = (sum === 0 ? exact[i] : exact[i] / sum) * 2 ** precisionBits;
      kernel.weights[out * stride + i] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    }
    kernel.starts[out] = start;
    kernel.lengths[out] = length;
  }
  return kernel;
}

/**
 * One pass along one axis: `lines` independent lines. `layout` has the bytes from line to line and from pixel
 * to pixel, in source and target.
 */
function convolve(
  source: Uint8Array,
  target: Uint8Array,
  kernel: Kernel,
  lines: number,
  channels: number,
  layout: { sourceLine: number; sourceStep: number; targetLine: number; targetStep: number },
): void {
  const { starts, lengths, weights, stride } = kernel;
  const { sourceLine, sourceStep, targetLine, targetStep } = layout;
  for (let line = 0; line < lines; line++) {
    for (let out = 0; out < starts.length; out++) {
      const from = line * sourceLine + starts[out] * sourceStep;
      const to = line * targetLine + out * targetStep;
      for (let channel = 0; channel < channels; channel++) {
        let sum = 1 << (precisionBits - 1);
        for (let i = 0; i < lengths[out]; i++) sum += source[from + i * sourceStep + channel] * weights[out * stride + i];
        target[to + channel] = Math.max(0, Math.min(255, sum >> precisionBits));
      }
    }
  }
}

/**
 * Resizes to `width` x `height` pixels. RGBA is filtered with premultiplied alpha, as in Pillow. RangeError
 * for a size below 1 x 1.
 */
export function resizeImage(image: PixelImage, width: number, height: number, filter: ResizeFilter = 'bicubic'): PixelImage {
  if (width < 1 || height < 1) throw new RangeError(`cannot resize to ${width}x${height} pixels`);
  const { channels } = image;
  if (width === image.width && height === image.height) return { ...image, data: image.data.slice() };
  if (filter === 'nearest') return nearest(image, width, height);
  let data = channels === 4 ? premultiply(image.data) : image.data;
  if (width !== image.width) {
    const wider = new Uint8Array(width * image.height * channels);
    const layout = { sourceLine: image.width * channels, sourceStep: channels, targetLine: width * channels, targetStep: channels };
    convolve(data, wider, kernelFor(image.width, width, filter), image.height, channels, layout);
    data = wider;
  }
  if (height !== image.height) {
    const taller = new Uint8Array(width * height * channels);
    const layout = { sourceLine: channels, sourceStep: width * channels, targetLine: channels, targetStep: width * channels };
    convolve(data, taller, kernelFor(image.height, height, filter), width, channels, layout);
    data = taller;
  }
  return { width, height, channels, data: channels === 4 ? unpremultiply(data) : data };
}

/** The source pixel under the center of each output pixel. */
function nearest(image: PixelImage, width: number, height: number): PixelImage {
  const { channels, data } = image;
  const result = new Uint8Array(width * height * channels);
  const columns = centers(image.width, width);
  const rows = centers(image.height, height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const from = (rows[y] * image.width + columns[x]) * channels;
      result.set(data.subarray(from, from + channels), (y * width + x) * channels);
    }
  }
  return { width, height, channels, data: result };
}

/** Added up step by step, as in Pillow's Geometry.c: a center between two pixels falls to the same side. */
function centers(from: number, to: number): number[] {
  const step = from / to;
  let center = step * 0.5;
  return Array.from({ length: to }, () => {
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
