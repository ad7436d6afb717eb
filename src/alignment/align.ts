// All measures of alignment of one model: from a folder and pictures with captions to numbers. What each
// means and where it comes from: docs/alignment.md.

import { loadEmojiGlyphs } from '../data/emoji/glyphs.ts';
import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { imageSize, imageTokenCount } from '../models/llava.ts';
import { createRandom } from '../random.ts';
import type { Quantization } from '../weights/quantize.ts';
import { gridOf, type Hits, randomWarp, styleHits, stylePairs, warpHits, warpPixels } from './c-score.ts';
import { effectiveRank } from './effective-rank.ts';
import {
  type AScore,
  aScoreOf,
  type EncodedCaption,
  encodeCaption,
  type GroupScores,
  type LikelihoodRetrieval,
  likelihoodRetrieval,
  readGroup,
} from './likelihood.ts';
import { type Rows, rowNorms, stackRows } from './matrices.ts';
import type { Mir, MirOptions } from './mir.ts';
import { type AlignmentModel, gatherRows, openAlignmentModel } from './model.ts';
import { measureMir } from './model-mir.ts';
import { type CaptionedPicture, drawn } from './pictures.ts';
import { csls, type Retrieval, retrievalOf, type Scores } from './retrieval.ts';
import { cosineScores, lateScores, maxCosine, meanCosineAcross, neighborOverlap, pooledScores } from './similarity.ts';
import { towerEmbeddings } from './text-tower.ts';

export const MEASURES = ['mir', 'a-score', 'c-score', 'retrieval'] as const;
export type Measure = (typeof MEASURES)[number];

export interface AlignOptions extends MirOptions {
  pictures: readonly CaptionedPicture[];
  /** Texts that have nothing to do with the pictures, one for each: the text rows of MIR. */
  texts: readonly string[];
  measures: readonly Measure[];
  /** Of warps, groups and bootstraps. */
  seed: number;
  /** How captions are laid out: as stage 1 trained them. */
  template: 'gemma' | 'plain';
  /** Candidates of retrieval by likelihood. */
  ways: number;
  /** Folder of a LLaVA whose connector is the reference of A score version 1. */
  reference?: string;
  /** Folder of the CLIP that the encoder is of. */
  textTower?: string;
  engine?: Engine;
  quantize?: Quantization;
  signal?: AbortSignal;
  /** Told what is being done. */
  onProgress?: (text: string) => void;
}

/** The connector's rows by themselves. */
export interface ConnectorAlignment {
  /**
   * Mean norm of image rows over that of the embeddings of caption tokens, both as they enter the language
   * model.
   */
  inputNormRatio: number;
  /** From singular values; at most the rows' width. */
  effectiveRank: number;
  /** Between rows of different pictures. */
  meanCosine: number;
  /** Share of 10 nearest pictures kept by the connector. */
  neighborOverlap: { overlap: number; chance: number };
}

/** Share of patches that are found again, from the encoder's features and from the connector's rows. */
export interface Correspondence {
  encoder: number;
  connector: number;
  chance: number;
  queries: number;
}

export interface SyntheticCScore {
  /** The same picture under a known affine map, PCK@0.1 of the picture's side. */
  warp: Correspondence;
  /** The same concepts by two artists: the right one of four cells. */
  styles: Correspondence;
}

export interface CorrectedRetrieval {
  raw: Retrieval;
  /** By CSLS, which reads the whole set. */
  csls: Retrieval;
}

export interface ConnectorRetrieval {
  pooled: CorrectedRetrieval;
  late: CorrectedRetrieval;
  likelihood?: LikelihoodRetrieval;
  /** Of the encoder's own text tower. */
  textTower?: CorrectedRetrieval;
}

export interface Alignment {
  pictures: number;
  captions: number;
  connector: ConnectorAlignment;
  mir?: Mir;
  aScore?: AScore;
  /** Not comparable with `aScore`: the mean largest cosine with the rows of another connector. */
  aScoreV1?: { version: 'v1'; reference: string; value: number };
  syntheticCScore?: SyntheticCScore;
  retrieval?: ConnectorRetrieval;
}

/** What is read of the pictures and captions, for several measures. */
interface Prepared {
  model: AlignmentModel;
  pixels: Float32Array[];
  features: Rows[];
  rows: Rows[];
  captions: EncodedCaption[];
  /** The picture of each caption. */
  owners: number[];
  /** Losses of each caption, and the embeddings of its words. */
  losses: Float32Array[];
  words: Rows[];
}

/**
 * Measures the LLaVA in the folder `dir`. UserError for what is wrong with it, with the pictures or with
 * the options.
 */
export async function align(dir: string, options: AlignOptions): Promise<Alignment> {
  checkOptions(options);
  const model = await openAlignmentModel(dir, options);
  try {
    const prepared = await prepare(model, options);
    const { measures, reference } = options;
    const has = (measure: Measure) => measures.includes(measure);
    const blank = has('a-score') || has('retrieval') ? await blankLosses(prepared, options) : [];
    return {
      pictures: options.pictures.length,
      captions: prepared.captions.length,
      connector: connectorAlignment(prepared),
      ...(has('mir') ? { mir: await measureMir(model, prepared.rows, options) } : {}),
      ...(has('a-score') ? { aScore: aScoreOf({ own: prepared.losses, blank, owners: prepared.owners }, options.seed) } : {}),
      ...(reference === undefined ? {} : { aScoreV1: await scoreAgainst(prepared, reference, options) }),
      ...(has('c-score') ? { syntheticCScore: await measureCorrespondence(prepared, options) } : {}),
      ...(has('retrieval') ? { retrieval: await measureRetrieval(prepared, blank, options) } : {}),
    };
  } finally {
    await model.dispose();
  }
}

/** Groups of likelihood would have no sense with one candidate, distances none with one picture. */
function checkOptions({ pictures, texts, measures, ways }: AlignOptions): void {
  if (pictures.length < 2)
    throw new UserError(`alignment is measured over pictures, and ${pictures.length} are too few: give two at least`);
  if (measures.includes('mir') && texts.length < pictures.length)
    throw new UserError(`MIR takes a text beside each of ${pictures.length} pictures, and there are ${texts.length}`);
  if (measures.includes('retrieval') && (ways < 2 || ways > pictures.length))
    throw new UserError(`--ways ${ways}: a picture chooses among 2 to ${pictures.length} captions, as many as there are pictures`);
}

async function prepare(model: AlignmentModel, { pictures, template, signal, onProgress }: AlignOptions): Promise<Prepared> {
  const pixels: Float32Array[] = [];
  for (const picture of pictures) {
    signal?.throwIfAborted();
    pixels.push(await picture.pixels(model.processor));
  }
  onProgress?.(`encoding ${pictures.length} pictures`);
  const features = await model.features(pixels);
  const rows = await model.imageRows(features);
  const imageTokens = imageTokenCount(model.config);
  const prepared: Prepared = { model, pixels, features, rows, captions: [], owners: [], losses: [], words: [] };
  for (const [i, { id, captions }] of pictures.entries()) {
    signal?.throwIfAborted();
    onProgress?.(`reading captions of picture ${i + 1} of ${pictures.length}`);
    const encoded = captions.map((caption) => encodeCaption(model, caption, { imageTokens, template, id }));
    const readings = await model.read(rows[i], encoded, [0]);
    for (const [j, { losses, states }] of readings.entries()) {
      const { data, width } = states.get(0)!;
      prepared.captions.push(encoded[j]);
      prepared.owners.push(i);
      prepared.losses.push(losses);
      prepared.words.push(gatherRows(data, width, encoded[j].words));
    }
  }
  return prepared;
}

/** Losses of each caption before a blank picture: pixel values of zero, the mean color everywhere. */
async function blankLosses({ model, captions, pixels }: Prepared, { signal, onProgress }: AlignOptions): Promise<Float32Array[]> {
  const [rows] = await model.imageRows(await model.features([new Float32Array(pixels[0].length)]));
  const losses: Float32Array[] = [];
  for (const [i, caption] of captions.entries()) {
    signal?.throwIfAborted();
    onProgress?.(`reading captions before a blank picture: ${i + 1} of ${captions.length}`);
    losses.push((await model.read(rows, [caption]))[0].losses);
  }
  return losses;
}

// === Rows ===

const meanNorm = (rows: Rows) => rowNorms(rows).reduce((sum, norm) => sum + norm, 0) / rows.count;

function connectorAlignment({ features, rows, words }: Prepared): ConnectorAlignment {
  const all = stackRows(rows);
  return {
    inputNormRatio: meanNorm(all) / meanNorm(stackRows(words)),
    effectiveRank: effectiveRank(all),
    meanCosine: meanCosineAcross(rows),
    neighborOverlap: neighborOverlap(features, rows, 10),
  };
}

// === A score, version 1 ===

async function scoreAgainst({ pixels, rows }: Prepared, dir: string, options: AlignOptions): Promise<Alignment['aScoreV1']> {
  options.onProgress?.(`rows of the reference ${dir}`);
  const reference = await openAlignmentModel(dir, options);
  try {
    const size = 3 * imageSize(reference.config) ** 2;
    const widths = [rows[0].width, reference.config.text_config.hidden_size];
    if (widths[0] !== widths[1])
      throw new UserError(`--reference ${dir}: its image rows have ${widths[1]} numbers, those of the model ${widths[0]}`);
    if (size !== pixels[0].length) throw new UserError(`--reference ${dir}: it takes pictures of another size than the model`);
    const others = await reference.imageRows(await reference.features(pixels));
    const value = rows.reduce((sum, own, i) => sum + maxCosine(own, others[i]), 0) / rows.length;
    return { version: 'v1', reference: dir, value };
  } finally {
    await reference.dispose();
  }
}

// === Correspondence ===

type Pair = [source: Rows, target: Rows];

/** Adds up hits over pairs of pictures, by features and by rows. */
function correspondence(features: readonly Pair[], rows: readonly Pair[], hitsOf: (pair: Pair, i: number) => Hits): Correspondence {
  const total = (pairs: readonly Pair[]) =>
    pairs.map(hitsOf).reduce((sum, each) => ({
      hits: sum.hits + each.hits,
      chance: sum.chance + each.chance,
      queries: sum.queries + each.queries,
    }));
  const [encoder, connector] = [total(features), total(rows)];
  const { queries } = encoder;
  return { encoder: encoder.hits / queries, connector: connector.hits / queries, chance: encoder.chance / queries, queries };
}

async function measureCorrespondence(prepared: Prepared, { pictures, seed, onProgress }: AlignOptions): Promise<SyntheticCScore> {
  const { model, pixels, features, rows } = prepared;
  const size = imageSize(model.config);
  const grid = gridOf(model.config, size);
  onProgress?.('pictures under known maps');
  const warps = pixels.map((_, i) => randomWarp(createRandom(seed, 'warp', i)));
  const warpedFeatures = await model.features(pixels.map((each, i) => warpPixels(each, size, warps[i])));
  const warpedRows = await model.imageRows(warpedFeatures);
  const paired = (from: readonly Rows[], to: readonly Rows[]) => from.map((source, i): Pair => [source, to[i]]);
  const warp = correspondence(paired(features, warpedFeatures), paired(rows, warpedRows), ([source, target], i) =>
    warpHits(source, target, grid, warps[i], pictures[i].scene),
  );
  onProgress?.('scenes in two styles');
  const glyphs = await loadEmojiGlyphs();
  const pairs = await stylePairs(pixels.length, seed);
  const sides = [0, 1].map((side) => pairs.map((pair) => drawn(pair[side], glyphs, model.processor)));
  const [first, second] = [await model.features(sides[0]), await model.features(sides[1])];
  const [firstRows, secondRows] = [await model.imageRows(first), await model.imageRows(second)];
  const styles = correspondence(paired(first, second), paired(firstRows, secondRows), ([source, target], i) =>
    styleHits(pairs[i], source, target, grid),
  );
  return { warp, styles };
}

// === Retrieval ===

const corrected = (scores: Scores): CorrectedRetrieval => ({ raw: retrievalOf(scores), csls: retrievalOf(csls(scores)) });

async function measureRetrieval(prepared: Prepared, blank: readonly Float32Array[], options: AlignOptions): Promise<ConnectorRetrieval> {
  const { pixels, rows, words, owners } = prepared;
  const { pictures, textTower, onProgress } = options;
  onProgress?.('retrieval by cosine');
  const sets = { pictures: rows, texts: words, owners };
  const found: ConnectorRetrieval = { pooled: corrected(pooledScores(sets)), late: corrected(lateScores(sets)) };
  if (textTower !== undefined) {
    onProgress?.('retrieval by the text tower');
    const texts = pictures.flatMap(({ captions }) => captions.map(({ text }) => text));
    found.textTower = corrected(cosineScores({ ...(await towerEmbeddings(textTower, pixels, texts, options.engine)), owners }));
  }
  found.likelihood = likelihoodRetrieval(await readGroups(prepared, blank, options));
  return found;
}

/** Groups of K pictures, each with its first caption; what is left over makes none. */
async function readGroups(
  { model, rows, captions, owners }: Prepared,
  blank: readonly Float32Array[],
  { seed, ways, signal, onProgress }: AlignOptions,
): Promise<GroupScores[]> {
  const firstOf = rows.map((_, picture) => owners.indexOf(picture));
  const order = createRandom(seed, 'groups').shuffle([...rows.keys()]);
  const groups: GroupScores[] = [];
  for (let at = 0; at + ways <= order.length; at += ways) {
    signal?.throwIfAborted();
    onProgress?.(`likelihood among ${ways}: group ${groups.length + 1} of ${Math.floor(order.length / ways)}`);
    const group = order.slice(at, at + ways);
    const given = await readGroup(
      model,
      group.map((picture) => rows[picture]),
      group.map((picture) => captions[firstOf[picture]]),
    );
    const prior = group.map((picture) => {
      const losses = blank[firstOf[picture]];
      return -losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    });
    groups.push({ given, blank: prior });
  }
  return groups;
}
