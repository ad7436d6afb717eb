// Modality Integration Rate (Huang et al. 2024, arXiv 2410.07167): how far the image rows and the text rows
// of a language model lie apart, summed over its layers. Beside it what most of it is: the ratio of their
// norms.

import { covarianceFactor, meanRow, nuclearNorm, type Rows, rowNorms, timesTransposed } from './matrices.ts';
import { fastRootTrace } from './mir-fast.ts';

/** The middle of the sorted values; of an even number the lower of the two, as torch.median has it. */
export function lowerMedian(values: Float64Array | Float32Array): number {
  return values.slice().sort()[(values.length - 1) >> 1];
}

const sum = (values: Float64Array) => values.reduce((total, value) => total + value, 0);
const mean = (values: Float64Array) => sum(values) / values.length;

function standardDeviation(values: Float64Array): number {
  const center = mean(values);
  return Math.sqrt(sum(values.map((value) => (value - center) ** 2)) / (values.length - 1));
}

/** The median of each column. */
function medianRow({ data, count, width }: Rows): Float64Array {
  const column = new Float64Array(count);
  return Float64Array.from({ length: width }, (_, i) => {
    for (let row = 0; row < count; row++) column[row] = data[row * width + i];
    return lowerMedian(column);
  });
}

/**
 * The rows with those whose norm is more than three standard deviations from the median norm replaced by the
 * median of each column, and how many they are.
 */
export function replaceOutliers(rows: Rows, norms = rowNorms(rows)): { rows: Rows; outliers: number } {
  const [middle, limit] = [lowerMedian(norms), 3 * standardDeviation(norms)];
  const outliers = [...norms.keys()].filter((row) => Math.abs(norms[row] - middle) > limit);
  if (outliers.length === 0) return { rows, outliers: 0 };
  const median = medianRow(rows);
  const data = rows.data.slice();
  for (const row of outliers) data.set(median, row * rows.width);
  return { rows: { ...rows, data }, outliers: outliers.length };
}

/** What the Frechet distance between two sets needs, whatever either is multiplied by. */
interface Moments {
  means: [Float64Array, Float64Array];
  /** Traces of the covariances, and of the square root of their product. */
  traces: [number, number];
  rootTrace: number;
}

function momentsOf(a: Rows, b: Rows): Moments {
  if (a.width !== b.width) throw new RangeError(`rows of ${a.width} and of ${b.width} numbers cannot be compared`);
  const means: Moments['means'] = [meanRow(a), meanRow(b)];
  const [first, second] = [covarianceFactor(a, means[0]), covarianceFactor(b, means[1])];
  return { means, traces: [first.trace, second.trace], rootTrace: nuclearNorm(timesTransposed(first.factor, second.factor)) };
}

/** What of the traces may be rounding: two equal sets are at distance 0. */
const ROUNDING = 1e-12;

/** |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) of the two sets multiplied by `scales`. */
function distanceOf({ means: [a, b], traces, rootTrace }: Moments, [s, t]: readonly [number, number]): number {
  const between = sum(a.map((value, i) => (s * value - t * b[i]) ** 2));
  const spread = s * s * traces[0] + t * t * traces[1];
  const distance = between + spread - 2 * s * t * rootTrace;
  return distance > ROUNDING * spread ? distance : 0;
}

/** The distance as the published code has it by default: it may be below 0, and is left so. */
function fastDistance({ means, traces }: Moments, image: Rows, text: Rows, scale: number): number {
  const squares = means[0].map((value, i) => (scale * (value - means[1][i])) ** 2);
  return sum(squares) + scale * scale * (traces[0] + traces[1]) - 2 * fastRootTrace(image, text, scale);
}

/**
 * Squared Frechet distance between the normal distributions of two sets of at least two rows (Dowson &
 * Landau 1982).
 */
export const frechetDistance = (a: Rows, b: Rows): number => distanceOf(momentsOf(a, b), [1, 1]);

export interface LayerRows {
  /** 1 is the output of the first layer; the last one is after the final norm. */
  layer: number;
  image: Rows;
  text: Rows;
}

export interface LayerMir {
  layer: number;
  /** Squared Frechet distance, both sets divided by the mean norm of the text rows. */
  distance: number;
  /** The same, each set divided by its own mean norm. */
  equalNormDistance: number;
  /** As the published code computes it by default; with `compat: 'fast'`. */
  fastDistance?: number;
  /**
   * Mean norm of image rows and of text rows, before outliers are replaced, and the first over the second.
   */
  imageNorm: number;
  textNorm: number;
  normRatio: number;
  /** Rows, and those of them that are replaced. */
  imageRows: number;
  textRows: number;
  imageOutliers: number;
  textOutliers: number;
}

export interface MirOptions {
  /** `fast` adds what the published code prints by default, whose iteration finds no square root. */
  compat?: 'fast';
}

/** One layer's share of MIR. RangeError for fewer than two rows of either kind. */
export function layerMir({ layer, image, text }: LayerRows, { compat }: MirOptions = {}): LayerMir {
  const [imageNorms, textNorms] = [rowNorms(image), rowNorms(text)];
  const [imageNorm, textNorm] = [mean(imageNorms), mean(textNorms)];
  const [cleanImage, cleanText] = [replaceOutliers(image, imageNorms), replaceOutliers(text, textNorms)];
  const moments = momentsOf(cleanImage.rows, cleanText.rows);
  const scale = 1 / textNorm;
  return {
    layer,
    distance: distanceOf(moments, [scale, scale]),
    equalNormDistance: distanceOf(moments, [1 / imageNorm, scale]),
    ...(compat === 'fast' ? { fastDistance: fastDistance(moments, cleanImage.rows, cleanText.rows, scale) } : {}),
    imageNorm,
    textNorm,
    normRatio: imageNorm / textNorm,
    imageRows: image.count,
    textRows: text.count,
    imageOutliers: cleanImage.outliers,
    textOutliers: cleanText.outliers,
  };
}

export interface Mir {
  /** log10 of the distances summed over the layers: lower is closer. -Infinity for equal sets. */
  mir: number;
  equalNormMir: number;
  /** NaN where the sum is below 0. */
  fastMir?: number;
  layers: LayerMir[];
}

/** MIR of all layers. */
export function mirOf(layers: readonly LayerMir[]): Mir {
  const total = (of: (layer: LayerMir) => number) => Math.log10(layers.reduce((all, layer) => all + of(layer), 0));
  const isFast = layers.some(({ fastDistance }) => fastDistance !== undefined);
  return {
    mir: total(({ distance }) => distance),
    equalNormMir: total(({ equalNormDistance }) => equalNormDistance),
    ...(isFast ? { fastMir: total(({ fastDistance }) => fastDistance!) } : {}),
    layers: [...layers],
  };
}
