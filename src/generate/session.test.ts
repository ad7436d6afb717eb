import { copyFileSync, mkdtempSync, readFileSync, utimesSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import sharp from 'sharp';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { bundledModel, resolvePath } from '../paths.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import { startConversation } from './conversation.ts';
import type { Generator } from './generator.ts';
import { type AnsweringModel, createSession, type SessionPrompt } from './session.ts';

const folder = mkdtempSync(join(tmpdir(), 'session-'));
const red = join(folder, 'red.png');
const green = join(folder, 'green.png');
let loaded: LoadedModel;

beforeAll(async () => {
  loaded = await loadModel(resolvePath(bundledModel, 'the model'));
  const square = (background: string) => sharp({ create: { width: 48, height: 48, channels: 3, background } }).png();
  await square('#f00').toFile(red);
  await square('#0f0').toFile(green);
}, 60_000);

/** What the model was asked to do. */
let log: { encoded: number; running: number; most: number; tokens: number; calls: number };
beforeEach(() => {
  log = { encoded: 0, running: 0, most: 0, tokens: 0, calls: 0 };
});

/** The model, watched, with another way to generate if given. */
function watched(generate: Generator['generate'] = loaded.generator.generate): AnsweringModel {
  return {
    ...loaded,
    imageRows: (pictures) => {
      log.encoded += pictures.length;
      return loaded.imageRows(pictures);
    },
    generator: {
      ...loaded.generator,
      async generate(prompts, options) {
        log.calls++;
        log.most = Math.max(log.most, ++log.running);
        try {
          return await generate(prompts, {
            ...options,
            onToken: (row, token) => {
              log.tokens++;
              return options.onToken?.(row, token);
            },
          });
        } finally {
          log.running--;
        }
      },
    },
  };
}

/** Says `a` until it is stopped, and never lets go of the event loop by itself. */
const endless: Generator['generate'] = async (_prompts, { maxNewTokens, onToken }) => {
  const [a] = loaded.tokenizer.encode('a');
  for (let i = 0; i < maxNewTokens; i++) {
    for (const until = performance.now() + 1; performance.now() < until; );
    await onToken?.(0, a);
  }
  return [[]];
};

const about = (question: string, ...images: SessionPrompt['images'] & {}): SessionPrompt => ({
  turns: [{ from: 'human', value: question }],
  images,
});

async function textOf(pieces: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const piece of pieces) text += piece;
  return text;
}

const what = 'What is in the picture?';

describe('an answer', () => {
  it('comes in pieces, and whole, and is the same', async () => {
    const session = createSession(watched());
    const prompts = [about(what, red), about(what, green), about('Describe the picture.', red, green), about('What is a cat?')];
    const streamed: string[] = [];
    for (const prompt of prompts) streamed.push(await textOf(session.generate(prompt, { maxNewTokens: 12 })));
    expect(new Set(streamed).size).toBeGreaterThan(1);
    expect(await session.answerAll(prompts, { maxNewTokens: 12, batchSize: 3 })).toEqual(streamed.map((text) => text.trim()));
  });

  it('is about the pictures where the turns place them, or else about those before the first question', async () => {
    const session = createSession(watched());
    const [placed, before] = await session.answerAll([about(`<image>\n${what}`, red), about(what, red)]);
    expect(placed).toBe(before);
    expect(session.promptTokens(about(`<image>\n${what}`, red))).toBe(session.promptTokens(about(what, red)));
    const refused = session.generate(about(`<image><image> ${what}`, red)).next();
    await expect(refused).rejects.toThrow(UserError);
    await expect(refused).rejects.toThrow('the turns have 2 <image> tokens, but the prompt has 1 pictures');
  });

  it('takes <image> for text where there is no picture', async () => {
    const session = createSession(watched());
    const rows = session.promptTokens(about(what, red)) - session.promptTokens(about(what));
    expect(session.promptTokens(about(`<image>${what}`))).toBeLessThan(session.promptTokens(about(what)) + rows);
    expect(await session.answerAll([about('What does <image> mean?')])).toHaveLength(1);
  });

  it('says how it ended, and in how many tokens', async () => {
    const [a] = loaded.tokenizer.encode('a');
    const says =
      (length: number): Generator['generate'] =>
      async () => [new Array(length).fill(a)];
    const ends: unknown[] = [];
    const promptTokens = createSession(watched()).promptTokens(about(what));
    for (const length of [0, 3, 4])
      await textOf(createSession(watched(says(length))).generate(about(what), { maxNewTokens: 4, onEnd: (end) => void ends.push(end) }));
    expect(ends).toEqual([
      { finish: 'stop', promptTokens, tokens: 0 },
      { finish: 'stop', promptTokens, tokens: 3 },
      { finish: 'length', promptTokens, tokens: 4 },
    ]);
  });

  it('ends with the reason of the signal, even where the engine blocks the event loop', async () => {
    const session = createSession(watched(endless));
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), 30);
    await expect(textOf(session.generate(about(what), { maxNewTokens: 5000, signal: controller.signal }))).rejects.toThrow('enough');
    expect(log.tokens).toBeLessThan(1000);
    expect(log.running).toBe(0);
    const reader = new AbortController();
    const pieces = createSession(watched()).generate(about(what, red), { signal: reader.signal });
    await pieces.next();
    reader.abort(new Error('no more'));
    await expect(pieces.next()).rejects.toThrow('no more');
    expect(log.running).toBe(0);
    log.calls--;
    const late = session.generate(about(what), { signal: controller.signal }).next();
    await expect(late).rejects.toThrow('enough');
    await expect(session.answerAll([about(what)], { signal: controller.signal })).rejects.toThrow('enough');
    expect(log.calls).toBe(1);
  });

  it('is no longer generated when nobody reads on', async () => {
    const session = createSession(watched(endless));
    for await (const piece of session.generate(about(what), { maxNewTokens: 5000 })) if (piece !== '') break;
    expect(log.running).toBe(0);
    expect(log.tokens).toBeLessThan(1000);
    await wait(5);
    expect(log.running).toBe(0);
  });

  it('waits for the one before it, and may leave the queue', async () => {
    const session = createSession(watched());
    const alone = await textOf(session.generate(about(what, red)));
    const controller = new AbortController();
    const asked = [
      textOf(session.generate(about(what, red))),
      textOf(session.generate(about(what, green), { signal: controller.signal })),
      textOf(session.generate(about(what, red))),
      session.answerAll([about(what, red)]).then(([answer]) => answer),
    ];
    controller.abort(new Error('gone'));
    const [first, left, third, all] = await Promise.allSettled(asked);
    expect(left).toMatchObject({ status: 'rejected', reason: new Error('gone') });
    for (const answer of [first, third]) expect(answer).toEqual({ status: 'fulfilled', value: alone });
    expect(all).toEqual({ status: 'fulfilled', value: alone.trim() });
    expect(log.most).toBe(1);
    expect(log.calls).toBe(4);
  });

  it('that fails does not hold up the next', async () => {
    const session = createSession(watched());
    const missing = textOf(session.generate(about(what, join(folder, 'nowhere.png'))));
    const fine = textOf(session.generate(about(what, red)));
    await expect(missing).rejects.toThrow('nowhere.png: there is no such image file');
    expect(await fine).not.toBe('');
  });
});

describe('what a generator is asked', () => {
  type Asked = Parameters<Generator['generate']>;

  /** A session whose generator says `tokens` to each prompt, and what it was asked. */
  function asking(tokens: readonly number[], generation?: AnsweringModel['generation']) {
    const asked: Asked[] = [];
    const generate: Generator['generate'] = async (prompts, options) => {
      asked.push([prompts, options]);
      for (const token of tokens) await options.onToken?.(0, token);
      return prompts.map(() => [...tokens]);
    };
    return { session: createSession({ ...watched(generate), generation }), asked };
  }

  it('ends where the tokenizer and the folder say, and is not longer than 64 tokens', async () => {
    const { endOfTurnTokenId, eosTokenId } = loaded.tokenizer;
    const plain = asking([]);
    await textOf(plain.session.generate(about(what)));
    await plain.session.answerAll([about(what)]);
    for (const [, options] of plain.asked)
      expect(options).toMatchObject({ maxNewTokens: 64, stopTokenIds: [endOfTurnTokenId, eosTokenId], sampling: undefined });
    const told = asking([], { stopTokenIds: [7, 8], temperature: 0, repetitionPenalty: 1.5 });
    await textOf(told.session.generate(about(what), { maxNewTokens: 3 }));
    expect(told.asked[0][1]).toMatchObject({
      maxNewTokens: 3,
      stopTokenIds: [endOfTurnTokenId, eosTokenId, 7, 8],
      sampling: { topK: 1, repetitionPenalty: 1.5 },
    });
  });

  it('comes in batches of prompts that are alike in length, and tells how far it is', async () => {
    const { session, asked } = asking(loaded.tokenizer.encode('yes'));
    const questions = ['b b b b b b', 'a', 'c c c', 'd', 'e e e e e e e e e'];
    const progress: string[] = [];
    const options = { batchSize: 2, onProgress: (done: number, total: number) => progress.push(`${done}/${total}`) };
    expect(
      await session.answerAll(
        questions.map((question) => about(question)),
        options,
      ),
    ).toEqual(Array(5).fill('yes'));
    const lengths = asked.map(([prompts]) => prompts.map(({ inputIds }) => inputIds.length));
    expect(lengths.map(({ length }) => length)).toEqual([2, 2, 1]);
    expect(lengths.flat()).toEqual(lengths.flat().sort((a, b) => a - b));
    expect(progress).toEqual(['2/5', '4/5', '5/5']);
    expect(asked[0][0][0].imageRows).toBeUndefined();
  });

  it('gives text without special tokens, and what an unfinished character has at the end', async () => {
    const { tokenizer } = loaded;
    const hello = tokenizer.encode('hello');
    const special = asking([tokenizer.eosTokenId, ...hello]);
    expect(await special.session.answerAll([about(what)])).toEqual(['hello']);
    expect(await textOf(special.session.generate(about(what)))).toBe(tokenizer.decode(hello));
    const parts = tokenizer.encode('\u{1F9FF}');
    expect(parts.length).toBeGreaterThan(1);
    const cut = asking(parts.slice(0, -1));
    expect(await textOf(cut.session.generate(about(what)))).toMatch(/\uFFFD$/);
  });

  it('leaves the queue when its signal says so, not when its turn comes', async () => {
    let finish = () => {};
    const held: Generator['generate'] = () =>
      new Promise((resolve) => {
        finish = () => resolve([[]]);
      });
    const session = createSession(watched(held));
    const first = textOf(session.generate(about(what)));
    const controller = new AbortController();
    const second = textOf(session.generate(about(what), { signal: controller.signal }));
    await wait(5);
    controller.abort(new Error('gone'));
    await expect(second).rejects.toThrow('gone');
    expect(log.calls).toBe(1);
    finish();
    expect(await first).toBe('');
  });
});

describe('pictures', () => {
  it('are encoded once while they are the same, by path or by content', async () => {
    const copy = join(folder, 'copy.png');
    copyFileSync(red, copy);
    const session = createSession(watched());
    await session.answerAll([about(what, copy), about('Is there a cat?', copy)]);
    await textOf(session.generate(about(what, copy, copy)));
    expect(log.encoded).toBe(1);
    const bytes = readFileSync(green);
    const [ofBytes] = await session.answerAll([about(what, new Uint8Array(bytes))]);
    await session.look([new Uint8Array(bytes)]);
    expect(log.encoded).toBe(2);
    copyFileSync(green, copy);
    utimesSync(copy, 1, 1);
    expect(await session.answerAll([about(what, copy)])).toEqual([ofBytes]);
    expect(log.encoded).toBe(3);
  });

  it('shown long ago are forgotten', async () => {
    const session = createSession(watched(), { picturesKept: 1 });
    for (const picture of [red, green, green, red]) await session.look([picture]);
    expect(log.encoded).toBe(3);
  });

  it('that were looked at stay as they were', async () => {
    const session = createSession(watched());
    const [seen] = await session.look([red]);
    const blank = await session.blankPicture();
    const [a, b] = await session.answerAll([about(what, seen), about(what, red)]);
    expect(a).toBe(b);
    expect(blank.rows.length).toBe(seen.rows.length);
    expect(blank.rows).not.toEqual(seen.rows);
  });
});

it('a conversation forgets a question that is not answered to its end', async () => {
  const session = createSession(watched());
  const conversation = startConversation(session, { maxNewTokens: 8 });
  await conversation.show(red);
  const answer = await textOf(conversation.ask(what));
  await conversation.show(red);
  for await (const _ of conversation.ask('Describe the picture.')) break;
  expect(await textOf(conversation.ask(what))).toBe(answer);
});
