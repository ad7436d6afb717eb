// Reads LLaVA's data format: samples beside a folder of images, as LCS-558K and llava_v1_5_mix665k come
// (LLaVA docs/Finetune_Custom_Data.md; rules of llava/train/train.py `preprocess_multimodal` and
// `preprocess_v1`). Samples in the chat form (`messages` with roles, as of OpenAI, LLaMA-Factory and Qwen-VL)
// become the same.

import { statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { reasonOf, UserError } from '../errors.ts';
import type { Turn } from '../text/chat.ts';
import { imageToken } from '../text/tokenizer.ts';
import { decodeUtf8 } from '../utf8.ts';
import { forEachElement, lineInFile } from './json-elements.ts';

export interface Sample {
  /** As in the file; the position ("#0") where the file gives none. */
  id: string;
  /** Paths of the image files, in the order of their `<image>` tokens; empty for a text-only sample. */
  images: string[];
  /**
   * Alternating, beginning with "human". `<image>` stands as often as there are images, that of a turn with
   * one image before its text; in a text-only sample it is text like any other.
   */
  conversations: Turn[];
  /** Whatever else the file says about the sample, such as `task`. */
  fields: Record<string, unknown>;
}

/** A sample that cannot be trained on, and why. */
export interface SampleFault {
  file: string;
  /** Its id, and its place in the file, from 0. */
  sample: string;
  position: number;
  /** The image that is to blame, if one is. */
  image?: string;
  reason: string;
}

/** Says what is wrong with one sample, while its file can be read on. */
export class SampleError extends UserError {
  readonly fault: SampleFault;

  constructor(fault: SampleFault) {
    super(`${fault.file}: sample ${fault.sample}: ${fault.reason}.`);
    this.fault = fault;
  }
}

/** What is wrong with a sample; file and sample are named by whoever reads them. */
class Fault extends Error {}

type Fields = Record<string, unknown>;

/** Exported tables have null where a field is left out. */
const isGiven = (value: unknown) => value !== undefined && value !== null;

const isMap = (value: unknown): value is Fields => typeof value === 'object' && value !== null && !Array.isArray(value);

// === Turns ===

interface WrittenTurn {
  from: Turn['from'] | 'system';
  value: string;
}

/** Who speaks, in LLaVA's words and in those of the chat form; files mix the two. */
const speakers: Record<string, WrittenTurn['from']> = { human: 'human', user: 'human', gpt: 'gpt', assistant: 'gpt', system: 'system' };

/** Reads a turn of either form. Of each picture in its content, `pictures` gets the name, if it has one. */
function readTurn(turn: unknown, where: string, pictures: (string | undefined)[]): WrittenTurn {
  if (!isMap(turn)) throw new Fault(`${where}: must be a map with from and value, or with role and content`);
  const [speaker, usual, expected] = isGiven(turn.role)
    ? (['role', 'content', '"user" or "assistant"'] as const)
    : (['from', 'value', '"human" or "gpt"'] as const);
  const name = turn[speaker];
  if (typeof name !== 'string' || !Object.hasOwn(speakers, name))
    throw new Fault(`${where}.${speaker}: unknown role ${JSON.stringify(name)}, expected ${expected}`);
  const text = (['value', 'content'] as const).find((field) => isGiven(turn[field])) ?? usual;
  return { from: speakers[name], value: readContent(turn[text], `${where}.${text}`, pictures) };
}

/** Text, or the list of texts and pictures that the chat form has in its place. */
function readContent(content: unknown, where: string, pictures: (string | undefined)[]): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) throw new Fault(`${where}: must be text`);
  const parts = content.map((part: unknown, i) => {
    const { type, text, image, path, url, image_url: address } = isMap(part) ? part : {};
    if (type === 'text' && typeof text === 'string') return text;
    if (type !== 'image' && type !== 'image_url') throw new Fault(`${where}.${i}: must be a part of type text or image`);
    const picture = [image, path, url, isMap(address) ? address.url : address].find(isGiven);
    pictures.push(picture === undefined ? undefined : pictureName(picture, `${where}.${i}`));
    return imageToken;
  });
  return parts.join('');
}

/**
 * The turns of a conversation, and what the system says before it. A first turn of the model is dropped, as
 * LLaVA does.
 */
function splitSystem(turns: readonly WrittenTurn[], system: unknown): { system: string; turns: Turn[] } {
  if (isGiven(system) && typeof system !== 'string') throw new Fault('system: must be text');
  const isTold = turns[0]?.from === 'system';
  const told = [system, isTold && turns[0].value].flatMap((text) => (typeof text === 'string' && text.trim() ? [text.trim()] : []));
  const spoken = isTold ? turns.slice(1) : turns;
  const conversation = spoken[0]?.from === 'gpt' ? spoken.slice(1) : spoken;
  if (conversation.length === 0) throw new Fault('it has no conversation');
  for (const [turn, { from }] of conversation.entries()) {
    if (from !== (turn % 2 === 0 ? 'human' : 'gpt'))
      throw new Fault(`turn ${turn + 1} is from "${from}", but human and gpt must alternate`);
  }
  return { system: told.join('\n\n'), turns: conversation as Turn[] };
}

// === Pictures ===

function pictureName(value: unknown, where: string): string {
  if (typeof value !== 'string' || value === '' || value.includes('\0')) throw new Fault(`${where}: must be the path of an image file`);
  if (/^(data|https?):/.test(value)) throw new Fault(`${where}: must be the path of an image file, and is ${value.slice(0, 40)}`);
  return value;
}

/** The pictures that a sample names beside its conversation: `image` or `images`, one or a list. */
function listedPictures(image: unknown, images: unknown): string[] {
  const hasImage = isGiven(image);
  if (hasImage && isGiven(images)) throw new Fault('it has both image and images');
  const [field, value] = hasImage ? ['image', image] : ['images', images];
  if (!isGiven(value)) return [];
  return Array.isArray(value) ? value.map((name, i) => pictureName(name, `${field}.${i}`)) : [pictureName(value, field as string)];
}

/** The pictures of a sample: those that its turns name, or those that are named beside them. */
function picturesOf(inTurns: readonly (string | undefined)[], beside: readonly string[]): string[] {
  const named = inTurns.filter((name) => name !== undefined);
  if (named.length === 0 && beside.length > 0) return [...beside];
  if (named.length < inTurns.length)
    throw new Fault(`its turns show ${inTurns.length} images, and ${inTurns.length - named.length} have no path there`);
  if (beside.length > 0 && named.join('\n') !== beside.join('\n')) throw new Fault('it names other images in its turns than beside them');
  return named;
}

/** The path of a picture: in the image folder, if it is not absolute. */
function picturePath(name: string, imageFolder: string): string {
  if (name.startsWith('file://')) {
    try {
      return fileURLToPath(name);
    } catch {
      throw new Fault(`${JSON.stringify(name)} is not the address of a file on this machine`);
    }
  }
  return isAbsolute(name) ? name : join(imageFolder, name);
}

const tokensIn = (value: string) => value.split(imageToken).length - 1;

/** `<image>`, a line break and the rest, as `preprocess_multimodal` of LLaVA has it. */
function imageFirst(value: string): string {
  return `${imageToken}\n${value.replaceAll(imageToken, '').trim()}`.trim();
}

/**
 * Puts `<image>` where LLaVA puts it. One picture stands once, before the text of the turn that shows it.
 * Several pictures that share a turn stay where they are, since the words may be about their places
 * (LLaVA-NeXT does so; LLaVA 1.5 has one picture in a sample).
 */
function placeImages(turns: readonly Turn[], images: readonly string[]): Turn[] {
  const counts = turns.map(({ value }) => tokensIn(value));
  const tokens = counts.reduce((sum, count) => sum + count, 0);
  if (tokens === 0) throw new Fault(`it names the image ${images[0]}, but its text has no ${imageToken} token`);
  if (images.length > 1 && tokens !== images.length)
    throw new Fault(`it names ${images.length} images, but its text has ${tokens} ${imageToken} tokens`);
  const shown = counts.findIndex((count) => count > 0);
  return turns.map(({ from, value }, i) => {
    if (counts[i] === 0 || (images.length > 1 && counts[i] > 1)) return { from, value };
    if (images.length === 1 && i > shown) return { from, value: value.replaceAll(imageToken, '').trim() };
    return { from, value: imageFirst(value) };
  });
}

/**
 * What a system message says begins the first question, a blank line before the rest, as Gemma's chat
 * templates have it since Gemma 3; pictures at the beginning stay there.
 */
function foldSystem(system: string, [first, ...rest]: readonly Turn[], hasImages: boolean): Turn[] {
  const pictures = hasImages ? /^\s*(<image>\s*)*/.exec(first.value)![0] : '';
  return [{ from: first.from, value: `${pictures}${system}\n\n${first.value.slice(pictures.length)}` }, ...rest];
}

// === Samples ===

/** What there is instead of a conversation: the names of a form that is not read, or of what is around it. */
const besides = (names: readonly string[]) => (names.length === 0 ? '' : ` (there are ${names.slice(0, 8).join(', ')})`);

function sampleOf(entry: unknown, id: string, imageFolder: string): Sample {
  if (!isMap(entry)) throw new Fault('must be a map with a conversation');
  const { id: given, image, images: several, conversations: llava, messages, system: told, ...fields } = entry;
  if (isGiven(given) && typeof given !== 'string' && typeof given !== 'number') throw new Fault('id: must be text or a number');
  const [field, written] = isGiven(llava) ? ['conversations', llava] : ['messages', messages];
  if (!isGiven(written)) throw new Fault(`conversations: missing, and there are no messages either${besides(Object.keys(entry))}`);
  if (!Array.isArray(written)) throw new Fault(`${field}: must be a list of turns`);
  const unseen = ['video', 'videos', 'audio', 'audios'].find((name) => isGiven(fields[name]) && [fields[name]].flat().length > 0);
  if (unseen !== undefined) throw new Fault(`it has ${unseen}, and a model of this kind is shown pictures alone`);
  const inContent: (string | undefined)[] = [];
  const read = written.map((turn, i) => readTurn(turn, `${field}.${i}`, inContent));
  const { system, turns } = splitSystem(read, told);
  const images = picturesOf(inContent, listedPictures(image, several));
  const folded = system === '' ? turns : foldSystem(system, turns, images.length > 0);
  const conversations = images.length > 0 ? placeImages(folded, images) : folded;
  return { id, images: images.map((name) => picturePath(name, imageFolder)), conversations, fields };
}

/**
 * The sample at position `index` of a file, from the bytes of its JSON. UserError with file, sample and
 * fault: not UTF-8, not JSON, a wrong field, an unknown role, turns that do not alternate, an image without
 * an `<image>` token, or tokens that are not as many as the images.
 */
export function parseSample(json: Uint8Array, file: { path: string; imageFolder: string }, index: number, offset: number): Sample {
  const { path, imageFolder } = file;
  const text = decodeUtf8(json, `${path}: sample #${index}`, (at) => lineInFile(path, offset + at));
  let entry: unknown;
  try {
    entry = JSON.parse(text);
  } catch (error) {
    const why = (error as Error).message.replaceAll(/\s+/g, ' ');
    throw new UserError(`${path}: is not JSON: sample #${index}, which begins at line ${lineInFile(path, offset)}: ${why}.`);
  }
  const given = isMap(entry) ? entry.id : undefined;
  const id = isGiven(given) ? String(given) : `#${index}`;
  try {
    return sampleOf(entry, id, imageFolder);
  } catch (error) {
    if (error instanceof Fault) throw new SampleError({ file: path, sample: id, position: index, reason: error.message });
    throw error;
  }
}

/**
 * Reads and checks a file, a JSON array or JSON Lines in UTF-8, and calls `visit` with each sample and the
 * place of its JSON in bytes. Throws the errors of `parseSample`, a `SampleError` for an image file that is
 * not there, and a `UserError` for a file that has no samples. With `onBad`, faults of samples go there
 * instead, and image files are not looked for.
 */
export async function forEachSample(
  path: string,
  imageFolder: string,
  visit: (sample: Sample, offset: number, length: number) => void,
  onBad?: (error: SampleError, offset: number, length: number) => void,
): Promise<void> {
  const present = new Set<string>();
  let samples = 0;
  const checkImages = ({ id, images }: Sample, position: number) => {
    for (const image of images) {
      if (present.has(image)) continue;
      const fault = (reason: string) =>
        new SampleError({ file: path, sample: id, position, image, reason: `image file ${image} ${reason}` });
      let isFile: boolean | undefined;
      try {
        isFile = statSync(image, { throwIfNoEntry: false })?.isFile();
      } catch (error) {
        throw fault(`cannot be read: ${reasonOf(error)}`);
      }
      if (!isFile) throw fault('does not exist');
      present.add(image);
    }
  };
  await forEachElement(path, (json, offset) => {
    const position = samples++;
    try {
      const sample = parseSample(json, { path, imageFolder }, position, offset);
      if (!onBad) checkImages(sample, position);
      visit(sample, offset, json.length);
    } catch (error) {
      if (!onBad || !(error instanceof SampleError)) throw error;
      onBad(error, offset, json.length);
    }
  });
  if (samples === 0) throw new UserError(`${path}: there are no samples in it.`);
}

/** All samples of a file at once; errors as of `forEachSample`. */
export async function readLlavaJson(path: string, imageFolder: string): Promise<Sample[]> {
  const samples: Sample[] = [];
  await forEachSample(path, imageFolder, (sample) => samples.push(sample));
  return samples;
}
