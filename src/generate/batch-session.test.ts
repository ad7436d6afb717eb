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
import { PictureError } from './picture-reader.ts';
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
      expect(Math.max(...steps.map(({ rows }) => rows))).toBeGreaterThanOrEqual(Math.min(slots, 16));
      expect(session.load).toMatchObject({ running: 0, waiting: 0 });
    }
    expect(new Set(expected).size).toBeGreaterThan(8);
  }, 60_000);

  it('goes on from what others have read, those that are still being answered among them', async () => {
    const { steps, model } = watched();
    const session = createBatchSession(model, { slots: 4 });
    const [picture] = pictures;
    const first = await whole(session, { turns: asks('What is this?'), images: [picture] });
    expect(first.cachedTokens).toBe(0);
    steps.length = 0;
    const second = await whole(session, { turns: asks('Describe it.'), images: [picture] });
    expect(second.cachedTokens).toBeGreaterThan(36);
    expect(steps[0].tokens).toBe(second.promptTokens - second.cachedTokens);
    expect(second.text).toBe(await alone({ turns: asks('Describe it.'), images: [picture] }));
    // of several that come at once, one reads the picture
    const fresh = pictures[3];
    const together = await Promise.all(questions.slice(0, 4).map((value) => whole(session, { turns: asks(value), images: [fresh] })));
    expect(together.filter(({ cachedTokens }) => cachedTokens > 36)).toHaveLength(3);
    for (const [i, { text }] of together.entries()) expect(text).toBe(await alone({ turns: asks(questions[i]), images: [fresh] }));
    expect(session.load.prefixBytes).toBeGreaterThan(0);
  });

  it('samples by its own seed, whoever is beside it', async () => {
    const session = createBatchSession(model, { slots: 8, prefixBytes: 0 });
    const prompt = { turns: asks('Describe it.'), images: [pictures[1]] };
    const sampling = { seed: 4, temperature: 1.5, topK: 50 };
    const options = { maxNewTokens: 16, sampling };
    const expected = await alone(prompt, options);
    const others = prompts(7).map((prompt, i) =>
      whole(session, prompt, { ...options, ...(i % 2 ? {} : { sampling: { ...sampling, seed: i } }) }),
    );
    const [mine] = await Promise.all([whole(session, prompt, options), ...others]);
    expect(mine.text).toBe(expected);
  });

  it('begins in the order in which it was asked', async () => {
    const session = createBatchSession(model, { slots: 2 });
    const began: number[] = [];
    await Promise.all(
      Array.from({ length: 12 }, (_, i) => {
        let isFirst = true;
        return session.answer({ turns: asks(`${i} things`) }, { maxNewTokens: 4 }, () => {
          if (isFirst) began.push(i);
          isFirst = false;
        });
      }),
    );
    // prompts that join together are read together
    expect(began.every((i, at) => Math.abs(i - at) <= 1)).toBe(true);
  });

  it('gives log-probabilities that belong to the text', async () => {
    const session = createBatchSession(model);
    const { pieces, text, tokens } = await whole(session, { turns: asks('hello') }, { logprobs: 4160, maxNewTokens: 6 });
    const all = pieces.flatMap(({ logprobs = [] }) => logprobs);
    expect(all).toHaveLength(tokens);
    expect(all.map((one) => one.text).join('')).toBe(text);
    for (const { logprob, text, top } of all) {
      expect(top.reduce((sum, one) => sum + Math.exp(one.logprob), 0)).toBeCloseTo(1, 4);
      expect(top[0]).toMatchObject({ text, logprob });
    }
  });

  it('lets go of those who leave, wherever they are', async () => {
    const session = createBatchSession(model, { slots: 1 });
    const leaving = Array.from({ length: 3 }, () => new AbortController());
    const sampling = { seed: 1, temperature: 2 };
    const ends = leaving.map(({ signal }, i) =>
      session.answer({ turns: asks('hello') }, { maxNewTokens: 400, sampling, signal }, () => {
        if (i === 0) for (const one of leaving) one.abort(new Error('gone'));
      }),
    );
    for (const end of ends) await expect(end).rejects.toThrow('gone');
    expect(session.load).toMatchObject({ running: 0, waiting: 0 });
    expect((await whole(session, { turns: asks('hello') })).text).toBe(await alone({ turns: asks('hello') }));
  });

  it('answers all the same where there is no memory to copy what was read', async () => {
    const own = watched().model;
    let [calls, failures] = [0, 0];
    const openBatch = (slots: number): DecodeBatch => {
      const batch = own.generator.openBatch(slots);
      const [begin, save] = [batch.cache.begin.bind(batch.cache), batch.cache.save.bind(batch.cache)];
      const failing = async <T>(work: () => Promise<T>) => {
        if (calls++ % 3 === 2) return work();
        failures++;
        throw new Error('no memory');
      };
      batch.cache.begin = (...how) => failing(() => begin(...how));
      batch.cache.save = (...how) => failing(() => save(...how));
      return batch;
    };
    const asked = prompts(20);
    const session = createBatchSession({ ...own, generator: { ...own.generator, openBatch } }, { slots: 3 });
    const answers = await Promise.all(asked.map((prompt) => whole(session, prompt)));
    for (const [i, { text }] of answers.entries()) expect(text).toBe(await alone(asked[i]));
    expect(failures).toBeGreaterThan(10);
  });

  it('fails only those whose picture, length or step it is', async () => {
    const { model: own } = watched();
    let isBroken = false;
    const openBatch = (slots: number): DecodeBatch => {
      const batch = own.generator.openBatch(slots);
      return { ...batch, step: (first, rows) => (isBroken ? Promise.reject(new Error('no memory')) : batch.step(first, rows)) };
    };
    const session = createBatchSession({ ...own, generator: { ...own.generator, openBatch } }, { slots: 4 });
    const good = { turns: asks('Describe it.'), images: [pictures[2]] };
    const results = await Promise.allSettled([
      whole(session, good),
      whole(session, { turns: asks('x'), images: [new Uint8Array(9)] }),
      whole(session, { turns: asks('word '.repeat(600)) }),
      whole(session, { turns: asks('<image> and <image>'), images: [pictures[0]] }),
    ]);
    expect(results.map((result) => (result.status === 'fulfilled' ? result.value.text : result.reason.name))).toEqual([
      await alone(good),
      'UserError',
      'UserError',
      'UserError',
    ]);
    expect((results[1] as PromiseRejectedResult).reason).toBeInstanceOf(PictureError);
    isBroken = true;
    await expect(whole(session, good)).rejects.toThrow('no memory');
    isBroken = false;
    expect((await whole(session, good)).text).toBe(await alone(good));
  });
});
