// Reads LLaVA's data format: one JSON array of samples beside a folder of images, as LCS-558K and
// llava_v1_5_mix665k come (LLaVA docs/Finetune_Custom_Data.md; rules of llava/train/train.py
// `preprocess_v1`).

import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import type { Turn } from '../text/chat.ts';
import { imageToken } from '../text/tokenizer.ts';

const turnSchema = z.object({
  from: z.enum(['human', 'gpt'], {
    error: (issue) => `unknown role ${JSON.stringify(issue.input)}, expected "human" or "gpt"`,
  }),
  value: z.string(),
});

const sampleSchema = z.looseObject({
  id: z.union([z.string(), z.number()]).optional(),
  image: z.union([z.string(), z.array(z.string())]).optional(),
  conversations: z.array(turnSchema),
});

export interface Sample {
  /** As in the file; the position ("#0") where the file gives none. */
  id: string;
  /** Paths of the image files, in the order of their `<image>` tokens; empty for a text-only sample. */
  images: string[];
  /** Alternating, beginning with "human". */
  conversations: Turn[];
  /** Whatever else the file says about the sample, such as `task`. */
  fields: Record<string, unknown>;
}

/**
 * Reads and checks a whole file. A first turn that is not "human" is dropped, as LLaVA does. Throws a
 * `UserError` naming file, sample and fault: not JSON, a wrong field, an unknown role, turns that do not
 * alternate, an image file that is missing, an `<image>` token without an image, an image without a token, or
 * no samples at all.
 */
export async function readLlavaJson(path: string, imageFolder: string): Promise<Sample[]> {
  const entries = parseArray(path, await readText(path));
  if (entries.length === 0) throw new UserError(`${path}: there are no samples in it.`);
  const present = new Set<string>();
  return entries.map((entry, index) => {
    const sample = readSample(path, entry, index, imageFolder);
    for (const image of sample.images) {
      if (present.has(image)) continue;
      if (!existsSync(image)) throw new UserError(`${path}: sample ${sample.id}: image file ${image} does not exist.`);
      present.add(image);
    }
    return sample;
  });
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    throw new UserError(code === 'ENOENT' ? `${path}: there is no such file.` : `${path}: cannot be read (${code}).`);
  }
}

function parseArray(path: string, text: string): unknown[] {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${path}: is not JSON (${(error as Error).message}).`);
  }
  if (!Array.isArray(parsed)) throw new UserError(`${path}: must be a JSON array of samples, as in LLaVA's data files.`);
  return parsed;
}

function readSample(path: string, entry: unknown, index: number, imageFolder: string): Sample {
  const parsed = sampleSchema.safeParse(entry);
  const givenId = (entry as { id?: unknown } | null)?.id;
  const id = givenId === undefined ? `#${index}` : String(givenId);
  const fail = (fault: string) => new UserError(`${path}: sample ${id}: ${fault}.`);
  if (!parsed.success) {
    const { path: field, message } = parsed.error.issues[0];
    throw fail(field.length > 0 ? `${field.join('.')}: ${message}` : message);
  }
  const { id: _, image, conversations: written, ...fields } = parsed.data;
  const conversations = written[0]?.from === 'gpt' ? written.slice(1) : written;
  if (conversations.length === 0) throw fail('it has no conversation');
  for (const [turn, { from }] of conversations.entries()) {
    if (from !== (turn % 2 === 0 ? 'human' : 'gpt')) throw fail(`turn ${turn + 1} is from "${from}", but human and gpt must alternate`);
  }
  const images = image === undefined ? [] : [image].flat();
  const tokens = conversations.reduce((sum, { value }) => sum + value.split(imageToken).length - 1, 0);
  if (tokens > 0 && images.length === 0) throw fail(`its text has an ${imageToken} token, but it names no image`);
  if (tokens === 0 && images.length > 0) throw fail(`it names the image ${images[0]}, but its text has no ${imageToken} token`);
  if (tokens !== images.length) throw fail(`it names ${images.length} images, but its text has ${tokens} ${imageToken} tokens`);
  return { id, images: images.map((name) => join(imageFolder, name)), conversations, fields };
}
