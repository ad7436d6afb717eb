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
  status: Pick<Status, 'progress'>;
  signal: AbortSignal;
}

export interface CheckedData {
  index: DataIndex;
  /** Samples that are known to be bad, where they are skipped. */
  bad: SampleFault[];
}

/**
 * Indexes and checks the data of a stage. UserError with the first sample that is bad, if they are not to be
 * skipped, and where it is the same with others, how many they are.
 */
export async function checkData(options: DataCheck): Promise<CheckedData> {
  const { stage, files, checksPictures, onBadSample, status, signal } = options;
  const bad: SampleFault[] = [];
  const check = sampleCheck(options);
  let read = 0;
  const index = await indexData(files, {
    visit(sample, place) {
      if (++read % 1000 === 0) {
        signal.throwIfAborted();
        status.progress(`reading ${place.file} for stage ${stage}: ${read.toLocaleString('en')} samples`);
      }
      try {
        check(sample);
      } catch (error) {
        if (!(error instanceof UserError)) throw error;
        const reason = error.message.replace(`sample ${JSON.stringify(sample.id)}: `, '');
        bad.push({ ...place, sample: sample.id, reason });
      }
    },
    onBad: onBadSample === 'skip' ? ({ fault }) => bad.push(fault) : undefined,
  });
  if (checksPictures) bad.push(...(await badPictures(index, options)));
  if (bad.length > 0 && onBadSample === 'error') {
    const others = bad.length > 1 ? ` (and ${bad.length - 1} more)` : '';
    throw new UserError(`${new SampleError(bad[0]).message}${others} on_bad_sample: skip in stage ${stage} would leave such samples out.`);
  }
  return { index, bad };
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
  return bad.sort((a, b) => a.position - b.position);
}
