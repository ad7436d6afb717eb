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
import { answerOpenQuestions, answerQuestions } from './evaluate.ts';
import { readQuestionFile, readQuestions } from './questions.ts';
import type { Sample } from './samples.ts';

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
        imagePaths: [join(folder, '0.png')],
        images: ['0.png'],
        task: 'count',
        split: 'mine',
        prompt: long.conversations.slice(0, 3),
        expected: 'yes',
      },
      {
        id: 'text',
        images: [],
        imagePaths: [],
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

  it('may be about several pictures, and about some that are not there', async () => {
    const many = entry('q2', '<image> which?', '0.png', { image: ['0.png', 'nowhere.png'] });
    const [question] = await readQuestions(write('b.json', [many]), folder);
    expect(question).toMatchObject({ images: ['0.png', 'nowhere.png'], imagePaths: [join(folder, '0.png'), join(folder, 'nowhere.png')] });
  });

  it('of a question.jsonl expect no answer', async () => {
    const lines = [
      { question_id: 7, image: '0.png', text: 'what is it?', category: 'conv' },
      { question_id: 'b', text: 'what does <image> mean?' },
      { question_id: 'c', image: ['0.png', '1.png'], text: 'is <image> as blue as <image>?' },
      { question_id: 'd', image: ['0.png', '1.png'], text: 'which?' },
    ];
    const path = join(folder, 'question.jsonl');
    writeFileSync(path, lines.map((line) => JSON.stringify(line)).join('\n'));
    const read = await readQuestionFile(path, folder);
    const open = 'open' in read ? read.open : [];
    expect(open.map(({ prompt: [{ value }] }) => value)).toEqual([
      '<image>\nwhat is it?',
      'what does <image> mean?',
      'is <image> as blue as <image>?',
      '<image>\n<image>\nwhich?',
    ]);
    expect(open[0]).toMatchObject({ question_id: 7, text: 'what is it?', imagePaths: [join(folder, '0.png')] });
    await expect(readQuestions(path, folder)).rejects.toThrow('question.jsonl: its questions have no expected answers');
  });

  it.each<[unknown, string]>([
    [[{ question_id: 1, text: 'what?' }, entry('q', 'what?')], 'question #1: some questions have an expected answer and some have none'],
    [[{ question_id: 1, text: ' ' }], 'question #0: text: must be the question'],
    [[{ question_id: null, text: 'what?' }], 'question #0: question_id: must be text or a number'],
    [[{ question_id: 1, text: 'what?', image: 3 }], 'question #0: image: must be the path'],
    [[], 'there are no questions in it'],
  ])('%j is refused', async (entries, message) => {
    await expect(readQuestionFile(write('wrong.json', entries), folder)).rejects.toThrow(message);
  });

  it('that are not UTF-8 are refused, with the line', async () => {
    const path = join(folder, 'latin.jsonl');
    const lines = ['what?', 'où?'].map((text) => JSON.stringify({ question_id: 1, text }));
    writeFileSync(path, Buffer.from(lines.join('\n'), 'latin1'));
    await expect(readQuestionFile(path, folder)).rejects.toThrow('latin.jsonl: question #1: line 2 is not UTF-8 (it has the byte 0xF9)');
  });

  it('without an expected answer are refused by name', async () => {
    const unanswered = { id: 'q1', conversations: [{ from: 'human', value: 'what?' }] };
    await expect(readQuestions(write('a.json', [unanswered]), folder)).rejects.toThrow(
      'a.json: sample q1: does not end with an expected answer',
    );
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

  it('to what cannot be asked are wrong, with the reason, and change nothing for the others', async () => {
    writeFileSync(join(folder, 'broken.png'), 'x');
    const good = [entry('a', words[0], '0.png'), entry('b', words[1], '1.png'), entry('c', words[2])];
    const bad = [
      entry('long', 'what is it? '.repeat(40), '0.png'),
      entry('missing', words[0], 'nowhere.png', { task: 'existence' }),
      entry('broken', words[0], 'broken.png'),
    ];
    const asked = async (name: string, entries: unknown[]) => {
      const batches: string[][] = [];
      const samples = await answerQuestions(model, await readQuestions(write(name, entries), folder), {
        batchSize: 4,
        maxNewTokens: 3,
        blind: true,
        onSamples: (batch: readonly Sample[]) => batches.push(batch.map(({ id }) => id)),
      });
      return { samples, batches };
    };
    const alone = await asked('good.json', good);
    const mixed = await asked('mixed.json', [bad[0], good[0], bad[1], good[1], bad[2], good[2]]);
    expect(mixed.batches).toEqual([
      ['long', 'a', 'missing', 'b'],
      ['broken', 'c'],
    ]);
    expect(mixed.samples.filter(({ problem }) => problem === undefined)).toEqual(alone.samples.map((s) => ({ ...s, split: 'mixed' })));
    const of = (id: string) => mixed.samples.find((sample) => sample.id === id)!;
    expect(of('long')).toMatchObject({ answer: '', correct: false, blindAnswer: '', blindCorrect: false });
    expect(of('long').problem).toMatch(/the prompt has \d+ tokens/);
    expect(of('missing')).toMatchObject({ answer: '', correct: false, image: 'nowhere.png' });
    expect(of('missing').problem).toMatch(/nowhere\.png: there is no such image file/);
    expect(of('broken').problem).toMatch(/broken\.png: cannot be read as an image/);
  });

  it('about several pictures are about each of them', async () => {
    const given: Float32Array[] = [];
    const watched: Parameters<typeof answerQuestions>[0] = {
      ...model,
      generator: {
        ...model.generator,
        generate: (prompts, options) => {
          given.push(prompts[0].imageRows!);
          return model.generator.generate(prompts, options);
        },
      },
    };
    const ask = async (...image: string[]) => {
      const question = entry('q', words[0], '0.png', { image });
      question.conversations[0].value = `<image> <image> ${words[0]}`;
      const [sample] = await answerQuestions(watched, await readQuestions(write('two.json', [question]), folder), {
        batchSize: 1,
        maxNewTokens: 8,
        blind: true,
      });
      return sample;
    };
    const samples = [await ask('0.png', '1.png'), await ask('1.png', '0.png')];
    expect(samples[0]).toMatchObject({ image: '0.png', images: ['0.png', '1.png'] });
    const halves = given.map((rows) => [rows.slice(0, rows.length / 2), rows.slice(rows.length / 2)]);
    const [forward, blank, backward, blankAgain] = halves;
    expect(forward).not.toEqual([...forward].reverse());
    expect(backward).toEqual([...forward].reverse());
    expect(blank[0]).toEqual(blank[1]);
    expect(blankAgain).toEqual(blank);
  });

  it('to open questions come as lines of LLaVA', async () => {
    const path = join(folder, 'open.jsonl');
    const lines = [
      { question_id: 7, image: '0.png', text: words[0] },
      { question_id: 'b', image: 'nowhere.png', text: words[0] },
    ];
    writeFileSync(path, lines.map((line) => JSON.stringify(line)).join('\n'));
    const read = await readQuestionFile(path, folder);
    const questions = 'open' in read ? read.open : [];
    const options = { batchSize: 1, maxNewTokens: 5, modelId: 'toy' };
    const answers = await answerOpenQuestions(model, questions, options);
    const [scored] = await answerQuestions(model, await readQuestions(write('same.json', [entry('a', words[0], '0.png')]), folder), {
      ...options,
      blind: false,
    });
    expect(answers[0]).toEqual({
      question_id: 7,
      prompt: words[0],
      text: scored.answer,
      answer_id: expect.stringMatching(/^[\w-]{22}$/),
      model_id: 'toy',
      metadata: {},
    });
    expect(answers[1]).toMatchObject({ question_id: 'b', text: '', metadata: { problem: expect.stringContaining('nowhere.png') } });
    expect(answers[1].answer_id).not.toBe(answers[0].answer_id);
    expect(await answerOpenQuestions(model, questions, options)).toEqual(answers);
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
