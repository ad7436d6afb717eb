// What an encoder's patch rows know, measured without training anything on them: drawings are named by the
// most similar ones of the artists that were trained on.

import { pixelInputs, regionWeights, singlePatchWeights } from '../../data/emoji/contrastive.ts';
import { loadEmojiConcepts, loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { type PlacedGlyph, renderScene, sampleScene } from '../../data/emoji/scene.ts';
import { splitConcepts, trainingArtists } from '../../data/emoji/split.ts';
import type { Constant, Engine, Value } from '../../engine/engine.ts';
import type { Scores, TaskScore } from '../../evaluate/samples.ts';
import { slice } from '../../graph/primitives.ts';
import { compileGraph, visionStatesGraph } from '../../models/programs.ts';
import { prefixTokens, type VisionConfig } from '../../models/vision.ts';
import { storageOfValues } from '../../nn/parameters.ts';
import { createRandom } from '../../random.ts';
import { wilsonInterval } from '../../statistics/proportion.ts';

/** An encoder of pictures of `image_size`, and what it is asked about. */
export interface NeighborOptions {
  config: VisionConfig;
  /** Its parameters, without a prefix. */
  weights: ReadonlyMap<string, Constant>;
  /** Normalization of pixels in [0, 1], a channel each. */
  mean: readonly number[];
  std: readonly number[];
  heldOutArtist: string;
  seed: number;
}

const BANK_SCENES = 1000;
const ASKED_SCENES = 400;
const SCENES_AT_A_TIME = 50;

/** As in DINO's evaluation (Caron et al. 2021): the nearest ones vote, each by its cosine. */
const NEIGHBORS = 20;
const TEMPERATURE = 0.07;

/** How the rows of a drawing's patches are read: all as one, or one of them, as a connector does. */
const READINGS = ['drawing', 'patch'] as const;
type Reading = (typeof READINGS)[number];

interface Drawing {
  concept: number;
  rows: Record<Reading, Float32Array>;
}

/** A weighted sum of the patch rows of one picture. */
function pooled(rows: Float32Array, weights: Float32Array): Float32Array {
  const width = rows.length / weights.length;
  const sum = new Float32Array(width);
  weights.forEach((weight, patch) => {
    if (weight > 0) for (let k = 0; k < width; k++) sum[k] += weight * rows[patch * width + k];
  });
  return sum;
}

/** Pixel values [images, 3, size, size] -> rows of the last hidden state, [images, patches, width]. */
type Encode = (pixels: Value) => Promise<Value>;

/** Runs `body` with the encoder's patch rows as LLaVA reads them: not normalized. */
async function withEncoder<T>(engine: Engine, { config, weights }: NeighborOptions, body: (encode: Encode) => Promise<T>): Promise<T> {
  const size = config.image_size;
  const { outputs, ...graph } = visionStatesGraph(config, [size, size], { storage: storageOfValues(weights) });
  const last = outputs[`hidden_states.${config.num_hidden_layers}`];
  const patches = slice(last, 1, prefixTokens(config), last.dims[1] as number);
  const program = await compileGraph(engine, { ...graph, outputs: { patches } }, weights);
  try {
    return await body(async (pixel_values) => (await program.run({ pixel_values })).patches);
  } finally {
    await program.dispose();
  }
}

/** Which drawings: of scenes named by `key`. */
interface Drawn {
  key: string;
  scenes: number;
  concepts: readonly number[];
  artists: readonly string[];
}

/** Drawings of plain scenes, with what the encoder makes of them. */
async function drawingsOf(
  encode: Encode,
  { config, mean, std, seed }: NeighborOptions,
  { key, scenes, concepts, artists }: Drawn,
): Promise<Drawing[]> {
  const { image_size: imageSize, patch_size: patchSize } = config;
  const glyphs = await loadEmojiGlyphs();
  const drawings: Drawing[] = [];
  for (let start = 0; start < scenes; start += SCENES_AT_A_TIME) {
    const some = Array.from({ length: SCENES_AT_A_TIME }, (_, i) => {
      const random = createRandom(seed, 'neighbors', key, start + i);
      return { random, scene: sampleScene(random, glyphs, { concepts, artists, size: imageSize }) };
    });
    const rendered = some.map(({ scene }) => renderScene(scene, glyphs));
    const { data, dims } = await encode(pixelInputs(rendered, imageSize, mean, std));
    const size = dims[1] * dims[2];
    some.forEach(({ random, scene }, i) => {
      const rows = (data as Float32Array).subarray(i * size, (i + 1) * size);
      const read = (glyph: PlacedGlyph) => ({
        drawing: pooled(rows, regionWeights(glyph, imageSize, patchSize)),
        patch: pooled(rows, singlePatchWeights(random, glyph, imageSize, patchSize)),
      });
      for (const glyph of scene.glyphs) drawings.push({ concept: glyph.concept, rows: read(glyph) });
    });
  }
  return drawings;
}

/** Moves vectors by `center`, and makes them of unit length. */
function directions(vectors: readonly Float32Array[], center: Float32Array): Float32Array[] {
  return vectors.map((vector) => {
    const moved = vector.map((value, k) => value - center[k]);
    const length = Math.hypot(...moved) || 1;
    return moved.map((value) => value / length);
  });
}

function meanOf(vectors: readonly Float32Array[]): Float32Array {
  const sum = new Float64Array(vectors[0].length);
  for (const vector of vectors) for (let k = 0; k < sum.length; k++) sum[k] += vector[k];
  return Float32Array.from(sum, (value) => value / vectors.length);
}

/** The concept that the nearest vectors of the bank vote for. */
function nearestConcept(vector: Float32Array, bank: readonly Float32Array[], concepts: readonly number[]): number {
  const cosines = Float32Array.from(bank, (other) => {
    let cosine = 0;
    for (let k = 0; k < vector.length; k++) cosine += vector[k] * other[k];
    return cosine;
  });
  const least = cosines.toSorted()[Math.max(0, cosines.length - NEIGHBORS)];
  const votes = new Map<number, number>();
  cosines.forEach((cosine, i) => {
    if (cosine >= least) votes.set(concepts[i], (votes.get(concepts[i]) ?? 0) + Math.exp(cosine / TEMPERATURE));
  });
  return [...votes].reduce((best, vote) => (vote[1] > best[1] ? vote : best))[0];
}

function scoreOf(reading: Reading, asked: readonly Drawing[], known: readonly Drawing[], names: number): TaskScore {
  const rowsOf = (drawings: readonly Drawing[]) => drawings.map(({ rows }) => rows[reading]);
  const center = meanOf(rowsOf(known));
  const bank = directions(rowsOf(known), center);
  const concepts = known.map(({ concept }) => concept);
  const vectors = directions(rowsOf(asked), center);
  const correct = asked.filter(({ concept }, i) => nearestConcept(vectors[i], bank, concepts) === concept).length;
  const { low, high } = wilsonInterval(correct, asked.length);
  const chance = 1 / names;
  return {
    accuracy: correct / asked.length,
    ciLow: low,
    ciHigh: high,
    n: asked.length,
    correct,
    majority: chance,
    majorityFrom: 'training',
    random: chance,
  };
}

/**
 * Accuracy of naming drawings by their neighbors among drawings of the artists that are trained on, for
 * unseen scenes by these artists and by the one held out: from the mean of a drawing's patch rows
 * (`drawing`), and from a single row (`patch`).
 */
export async function neighborScores(engine: Engine, options: NeighborOptions): Promise<Scores> {
  const emoji = await loadEmojiConcepts();
  const concepts = splitConcepts(emoji).seen;
  const artists = trainingArtists(emoji, options.heldOutArtist);
  return withEncoder(engine, options, async (encode) => {
    const known = await drawingsOf(encode, options, { key: 'bank', scenes: BANK_SCENES, concepts, artists });
    const scores: Scores = {};
    for (const [split, by] of Object.entries({ 'unseen-scenes': artists, 'unseen-artist': [options.heldOutArtist] })) {
      const asked = await drawingsOf(encode, options, { key: split, scenes: ASKED_SCENES, concepts, artists: by });
      scores[split] = Object.fromEntries(READINGS.map((reading) => [reading, scoreOf(reading, asked, known, concepts.length)]));
    }
    return scores;
  });
}
