// Many at a time: answers are those of one at a time, whoever else is answered beside them.
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { bundledModel, resolvePath } from '../paths.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import { createRandom } from '../random.ts';
import type { Turn } from '../text/chat.ts';
import { type AnswerPiece, type BatchAnswerOptions, type BatchPrompt, type BatchSession, createBatchSession } from './batch-session.ts';
import type { DecodeBatch } from './decode-batch.ts';
import { createSession } from './session.ts';

const folder = mkdtempSync(join(tmpdir(), 'batch-session-'));
let model: LoadedModel;
let pictures: Uint8Array[];

beforeAll(async () => {
  model = await loadModel(resolvePath(bundledModel, 'the model'));
  const random = createRandom(5);
  pictures = await Promise.all(
    Array.from({ length: 6 }, async (_, i) => {
      const [r, g, b] = [random.integer(256), random.integer(256), random.integer(256)];
      const file = join(folder, `${i}.png`);
      await sharp({ create: { width: 64, height: 64, channels: 3, background: { r, g, b } } })
        .png()
        .toFile(file);
      return readFileSync(file);
    }),
  );
}, 60_000);

const asks = (value: string): Turn[] => [{ from: 'human', value }];
const questions = ['What is this?', 'Which colors do you see?', 'How many things are in the picture?', 'Describe it.', 'hello world'];

async function whole(session: BatchSession, prompt: BatchPrompt, options: BatchAnswerOptions = {}) {
  const pieces: AnswerPiece[] = [];
  const answer = await session.answer(prompt, options, (piece) => pieces.push(piece));
  return { ...answer, text: pieces.map(({ text }) => text).join(''), pieces };
}

async function alone(prompt: BatchPrompt, options: BatchAnswerOptions = {}): Promise<string> {
  let text = '';
  for await (const piece of createSession(model).generate(prompt, options)) text += piece;
  return text;
}

/** Prompts of many kinds: without, with one and with two pictures, first questions and later ones. */
function prompts(count: number): BatchPrompt[] {
  const random = createRandom(7);
  return Array.from({ length: count }, (_, i) => {
    const images = Array.from({ length: i % 3 }, () => random.pick(pictures));
    const turns = asks(`${random.pick(questions)} ${i % 5 === 0 ? 'really '.repeat(i) : ''}`);
    if (i % 4 === 3) turns.push({ from: 'gpt', value: 'a cat' }, { from: 'human', value: random.pick(questions) });
    return { turns, images };
  });
}

/** The batch of the model, with what its steps were. */
function watched() {
  const steps: { rows: number; tokens: number }[] = [];
  const openBatch = (slots: number): DecodeBatch => {
    const batch = model.generator.openBatch(slots);
    const step: DecodeBatch['step'] = (first, rows) => {
      steps.push({
        rows: rows.filter(({ tokens }) => tokens.length > 0).length,
        tokens: Math.max(...rows.map(({ tokens }) => tokens.length)),
      });
      return batch.step(first, rows);
    };
    return { ...batch, step };
  };
  return { steps, model: { ...model, generator: { ...model.generator, openBatch } } };
}

describe('a batch session', () => {
  it('answers as a session does, alone and in a full batch', async () => {
    const asked = prompts(40);
    const options = { maxNewTokens: 24 };
    const expected: string[] = [];
    for (const prompt of asked) expected.push(await alone(prompt, options));
    for (const slots of [1, 8, 32]) {
      const { steps, model } = watched();
      const session = createBatchSession(model, { slots });
      const answers = await Promise.all(asked.map((prompt) => whole(session, prompt, options)));
      expect(answers.map(({ text }) => text)).toEqual(expected);
      expect(Math.max(...steps.map(({ rows }) => rows))).toBe(Math.min(slots, 17));
      expect(session.load).toMatchObject({ running: 0, waiting: 0 });
    }
    expect(new Set(expected).size).toBeGreaterThan(8);
  }, 60_000);
});
