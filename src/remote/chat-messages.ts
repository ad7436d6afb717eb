// Prompts as messages of OpenAI's chat API: turns become roles, pictures become data URIs in their places.

import { hash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { reasonOf, UserError } from '../errors.ts';
import type { Picture } from '../generate/session.ts';
import { decodeImage } from '../images/decode.ts';
import { imagePlaces, type Turn, withImages } from '../text/chat.ts';
import { imageToken } from '../text/tokenizer.ts';

/** What is wrong with a prompt, whoever is asked. */
export class PromptError extends UserError {}

/** A prompt as a session takes it (generate/session.ts). */
export interface ChatPrompt {
  turns: readonly Turn[];
  /** They stand where the turns say `<image>`; where none does, before the first question. */
  images?: readonly Picture[];
}

type Part = { type: 'text'; text: string } | { type: 'image_url'; image_url: { url: string } };

export interface ChatMessage {
  role: 'user' | 'assistant';
  content: string | Part[];
}

/** How the formats begin that every server reads, in hexadecimal digits. */
const FORMATS: readonly [string, RegExp][] = [
  ['png', /^89504e470d0a1a0a/],
  ['jpeg', /^ffd8ff/],
  ['gif', /^474946383[79]61/],
  ['webp', /^52494646.{8}57454250/],
];

/** Bytes of a picture, and their sha-256. PromptError for a file that is not there. */
async function bytesOf(picture: Picture): Promise<{ bytes: Uint8Array; key: string }> {
  if (typeof picture !== 'string') return { bytes: picture, key: hash('sha256', picture, 'hex') };
  try {
    const bytes = await readFile(picture);
    return { bytes, key: hash('sha256', bytes, 'hex') };
  } catch (error) {
    throw new PromptError(`${picture}: ${reasonOf(error)}`, { cause: error });
  }
}

/** As it is where servers read it, else as PNG. PromptError for what is no picture. */
async function dataUri(bytes: Uint8Array, name: string): Promise<string> {
  const start = Buffer.from(bytes.subarray(0, 16)).toString('hex');
  const format = FORMATS.find(([, pattern]) => pattern.test(start))?.[0];
  if (format !== undefined) return `data:image/${format};base64,${Buffer.from(bytes).toString('base64')}`;
  const { data, width, height, channels } = await decodeImage(bytes, { name }).catch((error) => {
    throw error instanceof UserError ? new PromptError(error.message, { cause: error }) : error;
  });
  const png = await sharp(data, { raw: { width, height, channels } }).png().toBuffer();
  return `data:image/png;base64,${png.toString('base64')}`;
}

/** A turn's text with pictures in their places; line breaks around a picture go with it. */
function contentOf(value: string, uris: string[]): string | Part[] {
  if (!value.includes(imageToken)) return value;
  return value.split(new RegExp(`\\n?(${imageToken})\\n?`)).flatMap((text): Part[] => {
    if (text === imageToken) return [{ type: 'image_url', image_url: { url: uris.shift()! } }];
    return text === '' ? [] : [{ type: 'text', text }];
  });
}

/** A prompt whose pictures were read: what names it in a cache, and what is sent. */
export interface ReadPrompt {
  /** The prompt with the sha-256 of each picture for the picture. */
  identity: { turns: readonly Turn[]; images: string[] };
  messages(): Promise<ChatMessage[]>;
}

/** PromptError for pictures that do not fit their places, and for one that cannot be read. */
export async function readPrompt({ turns, images = [] }: ChatPrompt): Promise<ReadPrompt> {
  const places = images.length === 0 ? 0 : imagePlaces(turns);
  if (places > 0 && places !== images.length)
    throw new PromptError(`the turns have ${places} <image> tokens, but the prompt has ${images.length} pictures`);
  const placed = places === 0 && images.length > 0 ? withImages(turns, images.length) : turns;
  const pictures = await Promise.all(images.map(bytesOf));
  const plain = placed.map(({ from, value }) => ({ from, value }));
  return {
    identity: { turns: plain, images: pictures.map(({ key }) => key) },
    async messages() {
      const uris = await Promise.all(
        pictures.map(({ bytes }, i) => dataUri(bytes, typeof images[i] === 'string' ? images[i] : `picture ${i + 1}`)),
      );
      return plain.map(({ from, value }) => ({
        role: from === 'human' ? 'user' : 'assistant',
        content: images.length === 0 ? value : contentOf(value, uris),
      }));
    },
  };
}
