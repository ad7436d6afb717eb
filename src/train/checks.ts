// What can be known of the samples of a stage before its first step: whether something of each would be
// trained, and whether its pictures begin as pictures do. A run finds out before hours of training, not
// after.

import { cpus } from 'node:os';
import { type DataFile, type DataIndex, indexData, onePerGroup, openData } from '../data/data-set.ts';
import { type Sample, SampleError, type SampleFault } from '../data/llava-json.ts';
import { UserError } from '../errors.ts';
import { checkImageHeader } from '../images/header.ts';
import type { Status } from '../runs/status.ts';
import { renderSegments } from '../text/chat.ts';
import { encodeConversation } from '../text/labels.ts';
import { imageToken, type Tokenizer } from '../text/tokenizer.ts';
import { type HeldOutSize, heldOutRank, heldOutSamples } from './held-out.ts';

export interface SampleRules {
  tokenizer: Tokenizer;
  /** Tokens that one picture takes. */
  imageTokens: number;
  template: 'gemma' | 'plain';
  /** Longest sequence in tokens. */
  maxLength: number;
}

/**
 * A function that throws the UserError of `encodeConversation` for samples that it would refuse. Most samples
 * it need not encode, since no token is shorter than a byte: whatever the tokens are, those before the first
 * answer are fewer than `maxLength`.
 */
export function sampleCheck({ tokenizer, imageTokens, template, maxLength }: SampleRules): (sample: Sample) => void {
  let frame: number | undefined;
  /** Bytes that the template adds to a first question, at most: special tokens are counted by their names. */
  const frameBytes = () => {
    const turns = [
      { from: 'human' as const, value: 'x' },
      { from: 'gpt' as const, value: 'x' },
    ];
    frame ??= Buffer.byteLength(renderSegments(tokenizer, turns, 'the chat template')[0].text);
    return frame;
  };
  // the template may mind how many turns there are
  const counts = new Set<number>();
  const isSurelyGood = ({ conversations, images }: Sample): boolean => {
    const [question, answer] = conversations;
    if (answer === undefined || !counts.has(conversations.length)) return false;
    const rows = images.length * imageTokens;
    const shown = question.value.split(imageToken).length - 1;
    if (template === 'plain') return conversations.length === 2 && images.length === 1 && shown > 0 && rows + 2 < maxLength;
    return (images.length === 0 || shown === images.length) && frameBytes() + Buffer.byteLength(question.value) + rows < maxLength;
  };
  return (sample) => {
    if (isSurelyGood(sample)) return;
    const { id, images, conversations } = sample;
    const rows = images.length > 0 ? imageTokens : 0;
    encodeConversation(tokenizer, conversations, { imageTokens: rows, template, maxLength, sampleId: id });
    counts.add(conversations.length);
  };
}

export interface DataCheck extends SampleRules {
  /** Name of the stage. */
  stage: string;
  files: readonly DataFile[];
  /** Whether the files at which samples name pictures are looked into. */
  checksPictures: boolean;
  onBadSample: 'error' | 'skip';
  /** What is to be left out of training. */
  heldOut?: HeldOutSize & { seed: number };
  status: Pick<Status, 'progress' | 'note'>;
  signal: AbortSignal;
}

export interface CheckedData {
  index: DataIndex;
  /** Samples that are known to be bad, where they are skipped. */
  bad: SampleFault[];
  /** Whether each sample is held out, where some are. */
  isHeldOut?: boolean[];
}

/** Counts what is odd in a file but no fault, and keeps the first for an example. */
interface Oddity {
  count: number;
  first: string;
}

const hasUnshownImage = ({ images, conversations }: Sample) =>
  images.length === 0 && conversations.some(({ value }) => value.includes(imageToken));

const hasEmptyAnswer = ({ conversations }: Sample) => conversations.some(({ from, value }) => from === 'gpt' && value.trim() === '');

/** What is read otherwise than its author may have meant. */
const oddities: [is: (sample: Sample) => boolean, meaning: string][] = [
  [hasUnshownImage, `have ${imageToken} in their text and name no picture (in image or images): there it is trained as text`],
  [hasEmptyAnswer, 'have an empty answer: the model is trained to say nothing there'],
];

/**
 * Indexes and checks the data of a stage. UserError with the first sample that is bad, if they are not to be
 * skipped, and with how many others are; also where all are bad. What is odd is noted.
 */
export async function checkData(options: DataCheck): Promise<CheckedData> {
  const { stage, files, checksPictures, onBadSample, heldOut, status, signal } = options;
  const bad: SampleFault[] = [];
  const check = sampleCheck(options);
  const found = new Map<string, Oddity>();
  let read = 0;
  const ranks: number[] = [];
  const folders = new Map(files.map(({ path, imageFolder }) => [path, imageFolder]));
  const index = await indexData(files, {
    visit(sample, place) {
      if (heldOut) ranks.push(heldOutRank(sample, folders.get(place.file)!, String(ranks.length), heldOut.seed));
      if (++read % 1000 === 0) {
        signal.throwIfAborted();
        status.progress(`reading ${place.file} for stage ${stage}: ${read.toLocaleString('en')} samples`);
      }
      for (const [is, meaning] of oddities) {
        if (!is(sample)) continue;
        const key = `${place.file}: samples ${meaning}`;
        const odd = found.get(key) ?? { count: 0, first: sample.id };
        found.set(key, { ...odd, count: odd.count + 1 });
      }
      try {
        check(sample);
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        const reason = error.message.replace(`sample ${JSON.stringify(sample.id)}: `, '');
        bad.push({ ...place, sample: sample.id, reason });
      }
    },
    onBad({ fault }) {
      bad.push(fault);
      if (heldOut) ranks.push(Number.POSITIVE_INFINITY);
    },
  });
  if (checksPictures) for (const fault of await badPictures(index, options)) bad.push(fault);
  inOrder(bad, files);
  const others = bad.length > 1 ? ` (and ${(bad.length - 1).toLocaleString('en')} more)` : '';
  if (bad.length > 0 && onBadSample === 'error')
    throw new UserError(`${new SampleError(bad[0]).message}${others} on_bad_sample: skip in stage ${stage} would leave such samples out.`);
  if (bad.length > 0 && isNothingLeft(index, bad))
    throw new UserError(`stage ${stage}: not one of its samples can be trained on; the first: ${new SampleError(bad[0]).message}`);
  for (const [what, { count, first }] of found) status.note(`${what} (${count.toLocaleString('en')}; the first is ${first})`);
  return { index, bad, ...(heldOut ? { isHeldOut: heldOutSamples(ranks, heldOut, index, `stage ${stage}: held_out`) } : {}) };
}

/** Sorts faults by the order of the files, and by place. */
function inOrder(bad: SampleFault[], files: readonly DataFile[]): void {
  const numbers = new Map(files.map(({ path }, number) => [path, number]));
  bad.sort((a, b) => numbers.get(a.file)! - numbers.get(b.file)! || a.position - b.position);
}

/** Whether every sample is bad, or shows the same pictures as one whose pictures are. */
function isNothingLeft({ files, groups }: DataIndex, bad: readonly SampleFault[]): boolean {
  const [samples, shown] = [new Set<number>(), new Set<number>()];
  let first = 0;
  for (const { path, samples: count } of files) {
    for (const { file, position, image } of bad) {
      if (file !== path) continue;
      samples.add(first + position);
      if (image !== undefined) shown.add(groups[first + position]);
    }
    first += count;
  }
  return groups.every((group, number) => samples.has(number) || shown.has(group));
}

/** The first sample of each picture that is none. */
async function badPictures(index: DataIndex, { stage, status, signal }: DataCheck): Promise<SampleFault[]> {
  const data = openData(index);
  const bad: SampleFault[] = [];
  const samples = onePerGroup(data);
  const checkNext = async () => {
    // all take from one generator
    for (const { number, id, images } of samples) {
      signal.throwIfAborted();
      for (const image of images) {
        try {
          await checkImageHeader(image);
        } catch (error) {
          if (!(error instanceof UserError)) throw error;
          bad.push({ ...data.place(number), sample: id, image, reason: error.message });
          break;
        }
      }
      status.progress(`looking at the pictures of stage ${stage}: ${Math.floor((100 * number) / data.length)} %`);
    }
  };
  try {
    await Promise.all(Array.from({ length: 4 * cpus().length }, checkNext));
  } finally {
    data.close();
  }
  return bad;
}
