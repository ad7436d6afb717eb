// Retrieval between pictures and captions of COCO and Flickr30k in Karpathy's test splits (Karpathy and
// Fei-Fei 2015, arXiv 1412.2306): the share of questions whose right answer is among the first 1, 5 and
// 10, both ways, and the median rank. Each picture counts with its first five captions, as is usual.

import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { z } from 'zod';
import { median } from '../arrays.ts';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { decodeUtf8 } from '../utf8.ts';
import type { Answered, Benchmark, BenchmarkQuestion, Harness, Judged, QuestionSources } from './benchmark.ts';
import { coco, flickr30k, type KarpathySet, karpathyDownloads, karpathyFile, readKarpathy } from './karpathy.ts';
import { percent } from './means.ts';
import { matrixOf, openNpy, ranksOf } from './score-matrix.ts';
import { faultOf } from './vqa-files.ts';

const CAPTIONS = 5;
/** Pictures of a fold where COCO is scored in five. */
const FOLD = 1000;
const CUTS = [1, 5, 10];
type Direction = 'image_to_text' | 'text_to_image';
const DIRECTIONS: readonly Direction[] = ['image_to_text', 'text_to_image'];

interface RetrievalQuestion extends BenchmarkQuestion {
  groups: { direction: Direction };
  /** Names of the picture or the caption that is looked for others with. */
  names: readonly string[];
  /** Captions of the picture that are not counted. */
  surplus: readonly string[];
}

interface RetrievalJudged extends Judged<RetrievalQuestion> {
  /** From 1; Infinity if the right one is not in the list. */
  rank: number;
}

const FORM =
  'a matrix of numpy.save (.npy), or JSON Lines: {"image", "caption_id", "score"} for every pair, or {"image", "captions": [...]} and {"caption_id", "images": [...]}, best first';

const idSchema = z.union([z.string().min(1), z.number()]).transform(String);
const lineSchema = z.union(
  [
    z.object({ image: idSchema, caption_id: idSchema, score: z.number() }),
    z.object({ image: idSchema, captions: z.array(idSchema).min(1) }),
    z.object({ caption_id: idSchema, images: z.array(idSchema).min(1) }),
  ],
  'is none of these',
);
type Line = z.output<typeof lineSchema>;

/** The lines of a file, one after the other: for every pair, there are millions. */
function* linesOf(path: string): Generator<{ line: Line; where: string }> {
  const bytes = onDisk(path, () => readFileSync(path));
  for (let at = 0, number = 1; at < bytes.length; number++) {
    const lineBreak = bytes.indexOf(10, at);
    const end = lineBreak < 0 ? bytes.length : lineBreak;
    const where = `${basename(path)}:${number}`;
    const text = decodeUtf8(bytes.subarray(at, end), `${path}:${number}`);
    at = end + 1;
    if (text.trim() !== '') yield { line: parsed(text, `${path}:${number}`), where };
  }
}

function parsed(text: string, place: string): Line {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${place}: is not JSON (${(error as Error).message}); the file should be ${FORM}`);
  }
  const { success, data, error } = lineSchema.safeParse(value);
  if (!success) throw new UserError(`${place}: ${faultOf(error)}; the file should be ${FORM}`);
  return data;
}

/** Pictures and captions by name and place. */
class Gallery {
  readonly images: readonly RetrievalQuestion[];
  readonly captions: readonly RetrievalQuestion[];
  readonly imageOf: Uint32Array;
  readonly surplus: ReadonlySet<string>;
  readonly foldOf: (image: number) => number;
  readonly #image: ReadonlyMap<string, number>;
  readonly #caption: ReadonlyMap<string, number>;

  constructor(questions: readonly RetrievalQuestion[], harness: string) {
    this.images = questions.filter(({ groups }) => groups.direction === 'image_to_text');
    this.captions = questions.filter(({ groups }) => groups.direction === 'text_to_image');
    this.#image = placesOf(this.images);
    this.#caption = placesOf(this.captions);
    this.imageOf = Uint32Array.from(this.captions, ({ cluster }) => this.#image.get(cluster)!);
    this.surplus = new Set(this.images.flatMap(({ surplus }) => surplus));
    this.foldOf = harness === 'folds' ? (image) => Math.floor(image / FOLD) : () => 0;
  }

  image(name: string, place: string): number {
    return known(this.#image, name, 'picture', place);
  }

  caption(name: string, place: string): number {
    return known(this.#caption, name, 'caption', place);
  }

  /** Questions with the ranks of their right answers. */
  answered(images: ArrayLike<number>, captions: ArrayLike<number>): Answered<RetrievalQuestion>[] {
    return [
      ...this.images.map((question, i) => ({ question, answer: String(images[i]) })),
      ...this.captions.map((question, i) => ({ question, answer: String(captions[i]) })),
    ];
  }
}

const placesOf = (questions: readonly RetrievalQuestion[]) =>
  new Map(questions.flatMap(({ names }, place) => names.map((name) => [name, place] as const)));

function known(places: ReadonlyMap<string, number>, name: string, what: string, place: string): number {
  const found = places.get(name);
  if (found === undefined) throw new UserError(`${place}: there is no ${what} ${name} in the test split`);
  return found;
}

function fromMatrix(path: string, gallery: Gallery): Answered<RetrievalQuestion>[] {
  const { images, captions, imageOf, foldOf } = gallery;
  const matrix = path.endsWith('.npy')
    ? openNpy(path, images.length, captions.length)
    : matrixOf(readPairs(path, gallery), captions.length);
  try {
    const ranks = ranksOf(path, matrix, imageOf, images.length, foldOf);
    return gallery.answered(ranks.images, ranks.captions);
  } finally {
    matrix.close();
  }
}

/** Every pair's score. UserError for a pair that is missing or there twice. */
function readPairs(path: string, gallery: Gallery): Float64Array {
  const { images, captions, surplus } = gallery;
  const scores = new Float64Array(images.length * captions.length).fill(Number.NaN);
  for (const { line, where } of linesOf(path)) {
    if (!('score' in line)) throw new UserError(`${path}: ${where}: is a list among pairs; the file should be ${FORM}`);
    if (surplus.has(line.caption_id)) continue;
    const at = gallery.image(line.image, `${path}: ${where}`) * captions.length + gallery.caption(line.caption_id, `${path}: ${where}`);
    if (!Number.isNaN(scores[at]))
      throw new UserError(`${path}: ${where}: picture ${line.image} and caption ${line.caption_id} come twice`);
    scores[at] = line.score;
  }
  const missing = scores.findIndex(Number.isNaN);
  if (missing < 0) return scores;
  const [image, caption] = [images[Math.floor(missing / captions.length)], captions[missing % captions.length]];
  const count = scores.reduce((sum, score) => sum + (Number.isNaN(score) ? 1 : 0), 0);
  throw new UserError(
    `${path}: ${count} of ${scores.length} pairs have no score, the first of picture ${image.cluster} and caption ${caption.names[0]}; nothing was scored`,
  );
}

/** Ranks in lists, one for each picture and each caption. */
function fromLists(path: string, gallery: Gallery): Answered<RetrievalQuestion>[] {
  const { images, captions, imageOf, foldOf, surplus } = gallery;
  const ranks = { images: new Float64Array(images.length), captions: new Float64Array(captions.length) };
  const put = (of: Float64Array, at: number, rank: number, what: string, place: string) => {
    if (of[at] !== 0) throw new UserError(`${place}: ${what} comes twice; each must have one list`);
    of[at] = rank;
  };
  for (const { line, where } of linesOf(path)) {
    const place = `${path}: ${where}`;
    if ('score' in line) throw new UserError(`${place}: is a pair among lists; the file should be ${FORM}`);
    if ('captions' in line) {
      const image = gallery.image(line.image, place);
      const listed = line.captions.filter((name) => !surplus.has(name)).map((name) => gallery.caption(name, place));
      const inFold = listed.filter((caption) => foldOf(imageOf[caption]) === foldOf(image));
      checkList(listed, inFold, captions.length, place);
      put(
        ranks.images,
        image,
        rankIn(inFold, (caption) => imageOf[caption] === image),
        `picture ${line.image}`,
        place,
      );
    } else {
      if (surplus.has(line.caption_id)) continue;
      const caption = gallery.caption(line.caption_id, place);
      const listed = line.images.map((name) => gallery.image(name, place));
      const inFold = listed.filter((image) => foldOf(image) === foldOf(imageOf[caption]));
      checkList(listed, inFold, images.length, place);
      put(
        ranks.captions,
        caption,
        rankIn(inFold, (image) => image === imageOf[caption]),
        `caption ${line.caption_id}`,
        place,
      );
    }
  }
  for (const [of, questions] of [[ranks.images, images] as const, [ranks.captions, captions] as const]) {
    const missing = of.indexOf(0);
    if (missing >= 0) throw new UserError(`${path}: there is no list for ${questions[missing].names[0]}; nothing was scored`);
  }
  return gallery.answered(ranks.images, ranks.captions);
}

/** A list must be long enough to tell recall at ten, and name each once. */
function checkList(listed: readonly number[], inFold: readonly number[], all: number, place: string): void {
  if (new Set(listed).size < listed.length) throw new UserError(`${place}: the list has an entry twice`);
  const least = Math.min(CUTS[CUTS.length - 1], all);
  if (inFold.length < least) throw new UserError(`${place}: the list has ${inFold.length} entries; at least ${least} are needed`);
}

const rankIn = (list: readonly number[], isRight: (one: number) => boolean): number => {
  const at = list.findIndex(isRight);
  return at < 0 ? Number.POSITIVE_INFINITY : at + 1;
};

const recallOf = (judged: readonly RetrievalJudged[], cut: number) => percent(judged.map(({ rank }) => (rank <= cut ? 1 : 0)));

/** Recall and median rank one way; no median where it is beyond the lists. */
function scoresOf(judged: readonly RetrievalJudged[]): Record<string, number> {
  const middle = median(judged.map(({ rank }) => rank));
  return {
    ...Object.fromEntries(CUTS.map((cut) => [`recall@${cut}`, recallOf(judged, cut)])),
    ...(Number.isFinite(middle) ? { median_rank: middle } : {}),
  };
}

function questionsOf(set: KarpathySet, path: string, folder: string): RetrievalQuestion[] {
  const entries = readKarpathy(set, path, folder);
  const common = { prompt: '', pictures: [] };
  const images = entries.map(({ id, names, image, captions }) => ({
    ...common,
    id: `image:${id}`,
    references: captions.slice(0, CAPTIONS).map((caption) => caption.id),
    cluster: image,
    groups: { direction: 'image_to_text' as const },
    names: [id, ...names],
    surplus: captions.slice(CAPTIONS).map((caption) => caption.id),
  }));
  const captions = entries.flatMap(({ id, image, captions }) =>
    captions.slice(0, CAPTIONS).map((caption) => ({
      ...common,
      id: `caption:${caption.id}`,
      references: [id],
      cluster: image,
      groups: { direction: 'text_to_image' as const },
      names: [caption.id],
      surplus: [],
    })),
  );
  return [...images, ...captions];
}

const WHOLE: Harness = { name: 'all', about: 'every picture and caption of the test split is in question' };
const FOLDS: Harness = { name: 'folds', about: 'in five folds of 1,000 pictures: COCO 1K' };

const retrievalOf = (set: KarpathySet): Benchmark<RetrievalQuestion, RetrievalJudged> => ({
  name: `${set.name}-retrieval`,
  title: `Retrieval on ${set.title}`,
  source: 'Karpathy and Fei-Fei 2015, Deep Visual-Semantic Alignments for Generating Image Descriptions, arXiv 1412.2306',
  headline: { name: 'mean_recall', best: 100 },
  maxNewTokens: 0,
  scoreOnly: true,
  harnesses: set === coco ? [WHOLE, FOLDS] : [WHOLE],
  files: karpathyDownloads(set).filter(({ needed }) => needed === 'score'),

  async questions({ files, folder = '.' }: QuestionSources) {
    return karpathyFile(set, files, folder).flatMap((path) => questionsOf(set, path, folder));
  },

  async answers(path, questions, harness) {
    if (questions === undefined)
      throw new UserError(`${path}: whose captions are whose is in ${set.file}; give it with --questions or --data`);
    const gallery = new Gallery(questions, harness);
    if (path.endsWith('.npy')) return fromMatrix(path, gallery);
    const first = linesOf(path).next().value;
    if (!first) throw new UserError(`${path}: is empty; it should be ${FORM}`);
    return 'score' in first.line ? fromMatrix(path, gallery) : fromLists(path, gallery);
  },

  judge: (answered) =>
    answered.map((one) => {
      const rank = Number(one.answer);
      const hits = CUTS.filter((cut) => rank <= cut).length;
      return { ...one, rank, parsed: Number.isFinite(rank) ? one.answer : undefined, credit: hits / CUTS.length };
    }),

  summarize(judged) {
    const byDirection = DIRECTIONS.map(
      (direction) => [direction, judged.filter(({ question }) => question.groups.direction === direction)] as const,
    );
    const scores: Record<string, number> = {};
    for (const [direction, of] of byDirection)
      for (const [name, value] of Object.entries(scoresOf(of))) scores[`${direction}_${name}`] = value;
    const recalls = byDirection.flatMap(([, of]) => CUTS.map((cut) => recallOf(of, cut)));
    scores.mean_recall = recalls.reduce((sum, recall) => sum + recall, 0) / recalls.length;
    return {
      scores,
      groups: { direction: Object.fromEntries(byDirection.map(([direction, of]) => [direction, { ...scoresOf(of), n: of.length }])) },
    };
  },
});

export const cocoRetrieval = retrievalOf(coco);
export const flickr30kRetrieval = retrievalOf(flickr30k);
