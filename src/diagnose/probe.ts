// What a model does with pictures, from single passes: its loss with the picture, a blank one and another
// one, the rows that the connector makes, and what becomes of them in the layers.

import { effectiveRank } from '../alignment/effective-rank.ts';
import { type Rows, stackRows } from '../alignment/matrices.ts';
import type { Mir } from '../alignment/mir.ts';
import { type AlignmentModel, type Inspection, openAlignmentModel } from '../alignment/model.ts';
import { measureMir } from '../alignment/model-mir.ts';
import { meanCosineAcross, modalityGap, neighborOverlap } from '../alignment/similarity.ts';
import { bundledTexts } from '../alignment/texts.ts';
import type { Sample } from '../data/llava-json.ts';
import type { Engine } from '../engine/engine.ts';
import { partnerOf } from '../evaluate/exchanged.ts';
import { readPixelValues } from '../images/processor.ts';
import { imageTokenCount, llavaConfigSchema } from '../models/llava.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { createRandom } from '../random.ts';
import { meanOf } from '../statistics/proportion.ts';
import { type EncodedConversation, encodeConversation, ignoreIndex } from '../text/labels.ts';
import type { DiagnosisData } from './data.ts';
import { divergence, logSoftmax } from './measures.ts';
import { type LayerLook, layerLook, meanLook, meanNorm, movementOf, someOf, spreadRows } from './row-measures.ts';

/** Pictures whose hidden states and attention are looked at. */
const LAYERED = 8;
/** Rows of which the effective rank is taken. */
const RANKED = 256;
/** Pictures that are nearest to one, of which it is asked which stay so. */
const NEIGHBORS = 5;
/** Of the texts of MIR. */
const SEED = 0;

export interface ModelMeasures {
  pictures: number;
  /** Nats a label with its own picture; how much more with a blank one, and with that of another sample. */
  loss: number;
  blankGain: number;
  exchangedGain: number;
  /** Nats for the token before the one that should come, and for the one after it. */
  shiftedLoss: { before: number; after: number };
  /** Mean norm of image rows over that of text rows: at the input, and after each layer. */
  normRatio: number;
  layerNormRatios: number[];
  imageNorm: number;
  /**
   * How far the layers but the last one move image rows, as a share of their norm; undefined for a single
   * layer.
   */
  movement: number | undefined;
  /** Where each layer looks. */
  looks: LayerLook[];
  /** Share of the tokens that answers could look at which are image rows. */
  imageShare: number;
  /** Distance of the means of image rows and of caption tokens at the input, rows of unit length. */
  modalityGap: number;
  /** Share of the nearest pictures that the connector keeps, and what chance would keep. */
  neighbors: { overlap: number; chance: number };
  mir: Pick<Mir, 'mir' | 'equalNormMir'>;
  /** Of the connector's rows; width is the most that it can be. */
  effectiveRank: number;
  rowsRanked: number;
  cosineBetweenPictures: number;
  /** Whether the connector's biases are all 0, as they are before training; undefined where it has none. */
  untouchedBiases: boolean | undefined;
  /** Mean divergence of the first token of an answer when the picture is drowned in noise, in nats. */
  noiseEffect: number;
  /** Trained tokens of each caption. */
  labels: { least: number; mean: number; first: string; last: string };
}

/**
 * The share of a picture that is left at step 500 of the noise of VCD (Leng et al. 2023, arXiv 2311.16922).
 */
function pictureLeft(): number {
  let left = 1;
  for (let step = 0; step <= 500; step++) left *= 1 - (5e-3 - 1e-5) / (1 + Math.exp(6 - (12 * step) / 999)) - 1e-5;
  return left;
}

function noised(pixels: Float32Array, index: number): Float32Array {
  const random = createRandom(0, 'noise', index);
  const left = pictureLeft();
  return pixels.map((value) => Math.sqrt(left) * value + Math.sqrt(1 - left) * random.normal());
}

interface Work {
  model: AlignmentModel;
  encode(sample: Sample): EncodedConversation;
  /** Throws where the work is to end. */
  tell(text: string): void;
}

const rowsOf = async ({ model }: Work, pixels: readonly Float32Array[]) => model.imageRows(await model.features(pixels));

/** Looks at a model with the samples. `onProgress` is told how far it is. Throws the signal's reason. */
export async function probeModel(
  engine: Engine,
  dir: string,
  { captions, questions }: Pick<DiagnosisData, 'captions' | 'questions'>,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (text: string) => void },
): Promise<ModelMeasures> {
  const model = await openAlignmentModel(dir, { engine, inspect: true });
  const imageTokens = imageTokenCount(model.config);
  const work: Work = {
    model,
    encode: ({ conversations, id }) => encodeConversation(model.tokenizer, conversations, { imageTokens, sampleId: id }),
    tell(text) {
      signal.throwIfAborted();
      onProgress(text);
    },
  };
  try {
    return {
      ...(await probeCaptions(work, captions)),
      untouchedBiases: await untouchedBiases(dir),
      noiseEffect: await noiseEffect(work, questions),
    };
  } finally {
    await model.dispose();
  }
}

/** A caption with what was seen of it. */
interface Seen {
  sample: EncodedConversation;
  inspection: Inspection;
}

async function probeCaptions(work: Work, captions: readonly Sample[]): Promise<Omit<ModelMeasures, 'untouchedBiases' | 'noiseEffect'>> {
  const { model, encode, tell } = work;
  const pixels: Float32Array[] = [];
  for (const { images } of captions) {
    tell(`reading pictures: ${pixels.length} of ${captions.length}`);
    pixels.push(await readPixelValues(images, model.processor));
  }
  const features = await model.features(pixels);
  const rows = await model.imageRows(features);
  const [blank] = await rowsOf(work, [new Float32Array(pixels[0].length)]);
  const sums = { own: 0, blank: 0, exchanged: 0, labels: 0, before: 0, after: 0, shifted: 0 };
  const seen: Seen[] = [];
  for (const [i, caption] of captions.entries()) {
    tell(`reading captions: ${i} of ${captions.length}`);
    const sample = encode(caption);
    const lossWith = async (picture: Rows) => sumOf((await model.read(picture, [sample]))[0].losses);
    const inspection = await model.inspect(rows[i], sample);
    sums.own += sumOf(inspection.losses);
    sums.labels += inspection.losses.length;
    sums.blank += await lossWith(blank);
    sums.exchanged += await lossWith(rows[partnerOf(i, rows.length)]);
    const shifted = shiftedLosses(sample, inspection.logits);
    sums.before += shifted.before;
    sums.after += shifted.after;
    sums.shifted += shifted.count;
    if (i < LAYERED) seen.push({ sample, inspection });
  }
  const loss = sums.own / sums.labels;
  const layered = rows.slice(0, LAYERED);
  const { mir, equalNormMir } = await measureMir(model, layered, { texts: await bundledTexts(layered.length, SEED), onProgress: tell });
  const ranked = spreadRows(stackRows(rows), RANKED);
  return {
    pictures: captions.length,
    loss,
    blankGain: sums.blank / sums.labels - loss,
    exchangedGain: sums.exchanged / sums.labels - loss,
    shiftedLoss: { before: sums.before / sums.shifted, after: sums.after / sums.shifted },
    ...layerMeasures(work, seen),
    imageNorm: meanNorm(rows[0]),
    neighbors: neighborOverlap(features, rows, NEIGHBORS),
    mir: { mir, equalNormMir },
    effectiveRank: effectiveRank(ranked),
    rowsRanked: ranked.count,
    cosineBetweenPictures: meanCosineAcross(rows),
    labels: labelsOf(work, captions.map(encode)),
  };
}

const sumOf = (values: ArrayLike<number>) => Array.from(values).reduce((sum, value) => sum + value, 0);

/** Sums over the labels that have one before and one after them. */
function shiftedLosses({ inputIds, labels }: EncodedConversation, logits: readonly Float32Array[]) {
  const sums = { before: 0, after: 0, count: 0 };
  const targets = labels.flatMap((label, t) => (label !== ignoreIndex && t > 0 ? [t] : []));
  for (const [k, t] of targets.entries()) {
    if (k === 0 || k + 1 >= targets.length) continue;
    const scores = logSoftmax(logits[k]);
    sums.before -= scores[inputIds[t - 1]];
    sums.after -= scores[inputIds[t + 1]];
    sums.count++;
  }
  return sums;
}

/** What becomes of image rows beside those of the text behind them. */
function layerMeasures({ model }: Work, seen: readonly Seen[]) {
  const imageToken = model.config.image_token_index;
  const parts = seen.map(({ sample: { inputIds, labels }, inspection }) => {
    const image = [inputIds.indexOf(imageToken), inputIds.lastIndexOf(imageToken) + 1] as const;
    const states = [...inspection.states.values()];
    const imageRows = states.map((state) => someOf(state, ...image));
    const textRows = states.map((state) => someOf(state, image[1], inputIds.length));
    const places = labels.flatMap((label, t) => (label !== ignoreIndex && t > 0 ? [t - 1] : []));
    return {
      imageRows,
      textRows,
      ratios: states.map((_, layer) => meanNorm(imageRows[layer]) / meanNorm(textRows[layer])),
      looks: inspection.attention.map((each, layer) => layerLook(each, states[layer], image)),
      imageShare: meanOf(places.map((place) => (image[1] - image[0]) / (place + 1))),
    };
  });
  // the last state is normed, and rows of nothing are moved by whatever is added to them
  const isMoving = parts[0].imageRows.length > 2 && meanNorm(parts[0].imageRows[0]) > 0;
  const layerNormRatios = parts[0].ratios.map((_, layer) => meanOf(parts.map(({ ratios }) => ratios[layer])));
  return {
    normRatio: layerNormRatios[0],
    layerNormRatios,
    movement: isMoving ? meanOf(parts.map(({ imageRows }) => movementOf(imageRows[0], imageRows.at(-2)!))) : undefined,
    looks: parts[0].looks.map((_, layer) => meanLook(parts.map(({ looks }) => looks[layer]))),
    imageShare: meanOf(parts.map(({ imageShare }) => imageShare)),
    modalityGap: modalityGap(stackRows(parts.map(({ imageRows }) => imageRows[0])), stackRows(parts.map(({ textRows }) => textRows[0]))),
  };
}

function labelsOf({ model: { tokenizer } }: Work, encoded: readonly EncodedConversation[]): ModelMeasures['labels'] {
  const trained = encoded.map(({ labels }) => labels.filter((label) => label !== ignoreIndex));
  return {
    least: trained.reduce((least, { length }) => Math.min(least, length), Number.POSITIVE_INFINITY),
    mean: meanOf(trained.map(({ length }) => length)),
    first: tokenizer.decode([trained[0][0]]),
    last: tokenizer.decode([trained[0].at(-1)!]),
  };
}

const untouchedBiases = (dir: string): Promise<boolean | undefined> =>
  withCheckpoint(dir, llavaConfigSchema, async (_config, checkpoint) => {
    const biases = checkpoint.names.filter((name) => name.startsWith('multi_modal_projector.') && name.endsWith('.bias'));
    const areZero = await Promise.all(biases.map(async (name) => (await checkpoint.float32(name)).every((bias) => bias === 0)));
    return biases.length > 0 ? areZero.every(Boolean) : undefined;
  });

async function noiseEffect(work: Work, questions: readonly Sample[]): Promise<number> {
  const { model, encode, tell } = work;
  let sum = 0;
  for (const [i, question] of questions.entries()) {
    tell(`reading questions: ${i} of ${questions.length}`);
    const sample = encode(question);
    const pixels = await readPixelValues(question.images, model.processor);
    const [clear, drowned] = await rowsOf(work, [pixels, noised(pixels, i)]);
    const [first, second] = [await model.inspect(clear, sample), await model.inspect(drowned, sample)];
    sum += divergence(first.logits[0], second.logits[0]);
  }
  return sum / questions.length;
}
