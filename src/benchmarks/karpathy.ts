// Karpathy's splits of COCO and Flickr30k (Karpathy and Fei-Fei 2015, arXiv 1412.2306): dataset_coco.json and
// dataset_flickr30k.json, of which the test split is what papers report captions and retrieval on.

import { join, parse } from 'node:path';
import { z } from 'zod';
import type { BenchmarkFile, QuestionPicture } from './benchmark.ts';
import { firstOf, pictureIn } from './files.ts';
import { JsonFile } from './json-entries.ts';
import { checked } from './vqa-files.ts';

/** One of the two data sets. */
export interface KarpathySet {
  /** As benchmarks are called: `coco`. */
  name: string;
  title: string;
  file: string;
  /** Folders of pictures. COCO's entries name one in it. */
  pictures: [string, ...string[]];
  picturesFile: Pick<BenchmarkFile, 'holds' | 'url' | 'bytes' | 'license' | 'count'>;
}

export const coco: KarpathySet = {
  name: 'coco',
  title: "COCO, Karpathy's test split",
  file: 'dataset_coco.json',
  pictures: ['val2014', '../coco/val2014'],
  picturesFile: {
    holds: 'pictures of COCO 2014, validation, of which the test split has 5,000',
    url: 'http://images.cocodataset.org/zips/val2014.zip',
    bytes: 6_645_013_297,
    license: 'those of the pictures on Flickr; annotations CC BY 4.0',
    count: 40_504,
  },
};

export const flickr30k: KarpathySet = {
  name: 'flickr30k',
  title: "Flickr30k, Karpathy's test split",
  file: 'dataset_flickr30k.json',
  pictures: ['flickr30k-images', 'flickr30k_images', 'images'],
  picturesFile: {
    holds: 'the pictures, of which the test split has 1,000',
    url: 'https://shannon.cs.illinois.edu/DenotationGraph/',
    bytes: 4_400_000_000,
    license: 'for research; those of the pictures on Flickr',
    count: 31_783,
  },
};

/** A picture of the test split with its captions. */
export interface KarpathyEntry {
  /** As result files name it: COCO's number, or that of the file of Flickr30k. */
  id: string;
  /** Other names that result files use. */
  names: readonly string[];
  image: string;
  picture: QuestionPicture;
  captions: readonly { id: string; text: string }[];
}

const entrySchema = z.object({
  filename: z.string().min(1),
  filepath: z.string().optional(),
  cocoid: z.number().optional(),
  imgid: z.number().optional(),
  sentences: z.array(z.object({ raw: z.string(), sentid: z.number() })).min(1),
});

/** The test split of a file. UserError for an entry that is malformed. */
export function readKarpathy(set: KarpathySet, path: string, folder: string): KarpathyEntry[] {
  const file = new JsonFile(path, `Karpathy's ${set.file}: an object with 'images', each with its split and sentences`);
  const pictures = firstOf(folder, set.pictures) ?? join(folder, set.pictures[0]);
  const entries: KarpathyEntry[] = [];
  for (const { value, where } of file.entries('images')) {
    if ((value as { split?: unknown } | null)?.split !== 'test') continue;
    const { filename, cocoid, imgid, sentences } = checked(file, entrySchema, value, where);
    const stem = parse(filename).name;
    const number = /0*(\d+)$/.exec(stem)?.[1];
    entries.push({
      id: cocoid === undefined ? stem : String(cocoid),
      // Flickr30k's files are numbered from 36,979 on, its entries below
      names: [filename, stem, ...(number ? [number] : []), ...(cocoid === undefined && imgid !== undefined ? [String(imgid)] : [])],
      image: filename,
      picture: pictureIn(pictures, filename),
      captions: sentences.map(({ raw, sentid }) => ({ id: String(sentid), text: raw })),
    });
  }
  return entries;
}

/** The file of a set: what was given, or what is in the folder. */
export const karpathyFile = (set: KarpathySet, files: readonly string[] | undefined, folder: string): readonly string[] =>
  files ?? [firstOf(folder, placesOf(set))].filter((path) => path !== undefined);

const placesOf = (set: KarpathySet): [string, ...string[]] => [set.file, `../karpathy/${set.file}`, `../caption_datasets/${set.file}`];

/** What is to be downloaded. */
export const karpathyDownloads = (set: KarpathySet): BenchmarkFile[] => [
  {
    places: placesOf(set),
    holds: "captions and splits (in Karpathy's caption_datasets.zip)",
    url: 'https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip',
    bytes: 36_700_000,
    license: set === coco ? 'CC BY 4.0' : 'for research',
    needed: 'score',
  },
  { places: set.pictures, needed: 'ask', ...set.picturesFile },
];
