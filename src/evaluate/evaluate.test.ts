import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { float32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { createGenerator } from '../generate/generator.ts';
import { imageProcessorConfig } from '../images/processor.ts';
import { llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { initialize } from '../nn/parameters.ts';
import { imageProcessorFor } from '../pretrained/processor.ts';
import { createRandom } from '../random.ts';
import { trainTokenizer } from '../text/bpe-trainer.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { answerQuestions, readQuestions } from './evaluate.ts';

const folder = mkdtempSync(join(tmpdir(), 'evaluate-'));
const colours = ['#f00', '#0f0', '#00f'];
const words = ['what is it?', 'how many things are in the picture there?', 'a cat or a dog?'];
let model: Parameters<typeof answerQuestions>[0];

const entry = (id: string, question: string, image?: string, more: object = {}) => ({
  id,
  ...(image ? { image } : {}),
  conversations: [
    { from: 'human', value: image ? `<image>\n${question}` : question },
    { from: 'gpt', value: 'a cat' },
  ],
  ...more,
});

function write(name: string, entries: unknown): string {
  const path = join(folder, name);
  writeFileSync(path, JSON.stringify(entries));
  return path;
}

/** Random weights, large enough that answers depend on everything before them. */
beforeAll(async () => {
  const vocab_size = 380;
  const config = llavaConfigSchema.parse({
    vision_config: { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2, image_size: 16, patch_size: 8 },
    text_config: {
      vocab_size,
      hidden_size: 16,
      intermediate_size: 32,
      num_hidden_layers: 1,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 8,
      max_position_embeddings: 96,
    },
    image_token_index: vocab_size,
  });
  const texts = [...words, 'how many things are in the picture there is a cat and a dog on the left of it'];
  const { tokenizerJson, tokenizerConfig } = trainTokenizer(
    texts.map((text) => ({ text, weight: 9 })),
    { vocabSize: vocab_size },
  );
  const values = new Map(
    llavaParameters(config).map((parameter) => [
      parameter.name,
      float32(initialize({ ...parameter, initializer: { kind: 'normal', std: 0.3 } }, createRandom(3, parameter.name)), parameter.dims),
    ]),
  );
  model = {
    generator: await createGenerator(createOrtEngine(), config, values),
    tokenizer: createTokenizer(tokenizerJson, tokenizerConfig),
    processor: imageProcessorConfig.parse(imageProcessorFor(16)),
  };
  for (const [i, background] of colours.entries())
    await sharp({ create: { width: 20, height: 16, channels: 3, background } })
      .png()
      .toFile(join(folder, `${i}.png`));
}, 60_000);

describe('questions', () => {
  it('are all but the last answer of each conversation', async () => {
    const long = entry('long', 'what is it?', '0.png', { task: 'count' });
    long.conversations.push({ from: 'human', value: 'sure?' }, { from: 'gpt', value: 'yes' });
    const questions = await readQuestions(write('mine.json', [long, entry('text', 'what?')]), folder);
    expect(questions).toEqual([
      {
        id: 'long',
        imagePath: join(folder, '0.png'),
        image: '0.png',
        task: 'count',
        split: 'mine',
        prompt: long.conversations.slice(0, 3),
        expected: 'yes',
      },
      {
        id: 'text',
        image: '',
        imagePath: undefined,
        task: 'question',
        split: 'mine',
        prompt: [{ from: 'human', value: 'what?' }],
        expected: 'a cat',
      },
    ]);
    const [odd] = await readQuestions(write('odd.json', [entry('odd', 'what?', undefined, { task: 7 })]), folder);
    expect(odd.task).toBe('question');
    const [named] = await readQuestions(join(folder, 'mine.json'), folder, 'held out');
    expect(named.split).toBe('held out');
  });

  it('without an expected answer, or about several pictures, are refused by name', async () => {
    const unanswered = { id: 'q1', conversations: [{ from: 'human', value: 'what?' }] };
    await expect(readQuestions(write('a.json', [unanswered]), folder)).rejects.toThrow(
      'a.json: sample q1: does not end with an expected answer',
    );
    const many = entry('q2', '<image> which?', '0.png', { image: ['0.png', '1.png'] });
    await expect(readQuestions(write('b.json', [many]), folder)).rejects.toThrow('b.json: sample q2: has 2 images');
  });
});

describe('answers', () => {
  const entries = [...words, words[0]].flatMap((question, q) => colours.map((_, i) => entry(`${q}-${i}`, question, `${i}.png`)));
  const answer = async (batchSize: number, blind = true) => {
    const questions = await readQuestions(write('all.json', [...entries, entry('text', words[1])]), folder);
    return answerQuestions(model, questions, { batchSize, maxNewTokens: 5, blind });
  };

  it('come in the order of the questions and do not depend on the batch', async () => {
    const one = await answer(1);
    expect(one.map(({ id }) => id)).toEqual([...entries.map(({ id }) => id), 'text']);
    expect(await answer(4)).toEqual(one);
    expect(await answer(64)).toEqual(one);
    // the same question about the same picture, and about others
    const answers = new Map(one.map((sample) => [sample.id, sample.answer]));
    for (const i of [0, 1, 2]) expect(answers.get(`3-${i}`)).toBe(answers.get(`0-${i}`));
    expect(new Set(answers.values()).size).toBeGreaterThan(3);
  });

  it('before a blank picture are the same whatever the picture, and come without a picture from the words alone', async () => {
    const samples = await answer(8);
    for (const question of ['0', '1', '2']) {
      const blind = samples.filter(({ id }) => id.startsWith(`${question}-`)).map(({ blindAnswer }) => blindAnswer);
      expect(blind).toHaveLength(3);
      expect(new Set(blind).size).toBe(1);
    }
    const [text] = samples.slice(-1);
    expect(text.blindAnswer).toBe(text.answer);
    expect(text.image).toBe('');
    for (const sample of await answer(8, false)) {
      expect(sample.blindAnswer).toBeUndefined();
      expect(sample.blindCorrect).toBeUndefined();
    }
  });

  it('encode each picture once, 32 at a time, and give each question the rows of its own', async () => {
    const shades = await Promise.all(
      Array.from({ length: 34 }, async (_, i) => {
        const image = `shade-${i}.png`;
        const background = { r: 7 * i, g: 255 - 7 * i, b: (50 * i) % 256 };
        await sharp({ create: { width: 16, height: 16, channels: 3, background } })
          .png()
          .toFile(join(folder, image));
        return image;
      }),
    );
    const ask = [...shades, shades[33], shades[0]].map((image, i) => entry(`${i}`, words[0], image));
    const questions = await readQuestions(write('shades.json', ask), folder);
    const encoded: number[] = [];
    const watched: Parameters<typeof answerQuestions>[0] = {
      ...model,
      generator: {
        ...model.generator,
        imageFeatures: (pixels) => {
          encoded.push(pixels.length / (3 * 16 * 16));
          return model.generator.imageFeatures(pixels);
        },
      },
    };
    const options = { batchSize: 64, maxNewTokens: 3, blind: false };
    const together = await answerQuestions(watched, questions, options);
    expect(encoded).toEqual([32, 2]);
    for (const i of [0, 5, 31, 32, 33, 34, 35]) expect(await answerQuestions(model, [questions[i]], options)).toEqual([together[i]]);
  });

  it('end where the model ends its turn, without special tokens and surrounding space', async () => {
    const { tokenizer } = model;
    const said = [...tokenizer.encode(' a cat '), tokenizer.endOfTurnTokenId];
    const stops: (readonly number[] | undefined)[] = [];
    const parrot: Parameters<typeof answerQuestions>[0] = {
      ...model,
      generator: {
        ...model.generator,
        generate: async (prompts, { stopTokenIds }) => {
          stops.push(stopTokenIds);
          return prompts.map(() => said);
        },
      },
    };
    const questions = await readQuestions(write('one.json', [entry('a', words[0], '0.png', { task: 'name' })]), folder);
    const [sample] = await answerQuestions(parrot, questions, { batchSize: 2, maxNewTokens: 9, blind: true });
    expect(sample).toMatchObject({
      answer: 'a cat',
      blindAnswer: 'a cat',
      correct: true,
      blindCorrect: true,
      prompt: `<image>\n${words[0]}`,
    });
    const long = entry('long', 'what is it?', '0.png');
    long.conversations.push({ from: 'human', value: 'sure?' }, { from: 'gpt', value: 'yes' });
    const [second] = await answerQuestions(parrot, await readQuestions(write('long.json', [long]), folder), {
      batchSize: 1,
      maxNewTokens: 1,
      blind: false,
    });
    expect(second.prompt).toBe('<image>\nwhat is it?\na cat\nsure?');
    expect(stops.slice(0, 2)).toEqual([
      [tokenizer.endOfTurnTokenId, tokenizer.eosTokenId],
      [tokenizer.endOfTurnTokenId, tokenizer.eosTokenId],
    ]);
  });

  it('stop when they are told to', async () => {
    const controller = new AbortController();
    const questions = await readQuestions(write('all.json', entries), folder);
    const progress: number[] = [];
    const work = answerQuestions(model, questions, {
      batchSize: 5,
      maxNewTokens: 2,
      blind: true,
      signal: controller.signal,
      onProgress: (done) => {
        progress.push(done);
        if (done === 10) controller.abort(new Error('enough'));
      },
    });
    await expect(work).rejects.toThrow('enough');
    expect(progress).toEqual([5, 10]);
  });
});
