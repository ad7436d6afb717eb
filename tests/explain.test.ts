// The bundled model explained: what maps must hold to whatever they show, and the command that writes them.

import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openCheckpoint } from '../src/checkpoint/checkpoint.ts';
import { pointingQuestions } from '../src/data/emoji/pointing.ts';
import { type Engine, float32 } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { UserError } from '../src/errors.ts';
import { createExplainer, type Explainer, loadExplainer } from '../src/explain/explainer.ts';
import type { AnsweredQuestion } from '../src/explain/explanation.ts';
import { meanMap, rankCorrelation } from '../src/explain/maps.ts';
import { llavaParameters } from '../src/models/llava.ts';
import { type LoadedModel, loadModel } from '../src/pretrained/load.ts';
import { readRunWeights } from '../src/pretrained/run-weights.ts';
import { createRandom } from '../src/random.ts';
import { cli } from './toy.ts';

const folder = 'assets/models/tiny-llava';
const engine = createOrtEngine({ threads: 1 });
const out = mkdtempSync(join(tmpdir(), 'explain-'));
let model: LoadedModel;
let explainer: Explainer;
let questions: Awaited<ReturnType<typeof pointingQuestions>>;

beforeAll(async () => {
  model = await loadModel(folder, { engine });
  explainer = await loadExplainer(folder, { engine, model });
  questions = await pointingQuestions(12, 5);
  writeFileSync(join(out, 'scene.png'), questions[0].picture);
});

afterAll(async () => {
  await explainer.dispose();
  rmSync(out, { recursive: true, force: true });
});

const ask = (i: number, answer?: string) => explainer.answer({ picture: questions[i].picture, prompt: questions[i].question, answer });
const sum = (values: ArrayLike<number>) => Array.from(values).reduce((total, value) => total + value, 0);
const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

/** The weights of the bundled model, each matrix of the language model shuffled within itself. */
async function shuffledWeights(seed: number) {
  const checkpoint = await openCheckpoint(folder);
  const { values } = await readRunWeights(checkpoint, llavaParameters(model.config));
  await checkpoint.close();
  for (const [name, value] of values) {
    if (!name.startsWith('language_model.') || !('data' in value)) continue;
    const data = (value.data as Float32Array).slice();
    createRandom(seed, name).shuffleInPlace(data);
    values.set(name, float32(data, value.dims));
  }
  return { values, release: async () => {} };
}

describe('an explanation', () => {
  test('a token is explained alike alone and in a longer answer', async () => {
    const long = await explainer.maps(await ask(0, 'red apple at the top left'));
    expect(long.tokens.length).toBeGreaterThan(4);
    const short = await explainer.maps(await ask(0, 'red apple'));
    const count = short.tokens.length;
    expect(long.tokens.slice(0, count).map(({ id }) => id)).toEqual(short.tokens.map(({ id }) => id));
    for (let t = 0; t < count; t++) {
      for (const kind of ['relevancy', 'encoder', 'rollout', 'attention', 'gradientInput'] as const) {
        const most = Math.max(...short.maps[kind]![t]);
        expect(largestDifference(long.maps[kind]![t], short.maps[kind]![t]), kind).toBeLessThan(1e-4 * Math.max(1, most));
      }
      expect(long.tokens[t].probability).toBeCloseTo(short.tokens[t].probability, 5);
    }
  });

  test('relevancy is a share; attention of a head sums to 1 with the text', async () => {
    const { tokens, onImage, onPrompt, onAnswer, maps, heads, promptTokens, promptWords } = await explainer.maps(
      await ask(1, 'a blue fish'),
    );
    tokens.forEach((_, t) => {
      expect(onImage[t] + sum(onPrompt[t]) + sum(onAnswer[t])).toBeCloseTo(1, 4);
      expect(sum(maps.relevancy[t])).toBeCloseTo(onImage[t], 4);
      expect(onAnswer[t]).toHaveLength(t);
      expect(Math.min(...maps.relevancy[t])).toBeGreaterThanOrEqual(0);
      for (let head = 0; head < heads.layers * heads.heads; head++)
        expect(sum(heads.toPatches[t].subarray(head * 36, (head + 1) * 36))).toBeLessThan(1 + 1e-5);
    });
    expect(promptTokens.map(({ text }) => text).join('')).toContain(questions[1].question.split('\n')[0]);
    expect(sum(promptWords.map(({ count }) => count))).toBe(promptTokens.length);
  });

  test('log P: with all rows it is that of the tokens, without them it is the same for every way in', async () => {
    const question = await ask(0);
    const { tokens } = await explainer.maps(question, { throughEncoder: false });
    const [whole, again, some] = await explainer.logProbabilities(question, [
      new Uint8Array(36).fill(1),
      new Uint8Array(36).fill(1),
      new Uint8Array(36).fill(1, 0, 18),
    ]);
    tokens.forEach(({ probability }, t) => {
      expect(Math.exp(whole[t])).toBeCloseTo(probability, 4);
    });
    expect(again).toEqual(whole);
    expect(largestDifference(some, whole)).toBeGreaterThan(0.01);
    // rows that nobody sees may hold anything
    const other: AnsweredQuestion = { ...question, imageRows: question.imageRows.map((value) => 3 - value) };
    const [[left], [same]] = await Promise.all(
      [question, other].map((each) => explainer.logProbabilities(each, [new Uint8Array(36)], { removal: 'drop' })),
    );
    expect(largestDifference(left, same)).toBeLessThan(1e-5);
    const [mean] = await explainer.logProbabilities(question, [new Uint8Array(36)]);
    const [otherMean] = await explainer.logProbabilities(other, [new Uint8Array(36)]);
    expect(largestDifference(mean, otherMean)).toBeGreaterThan(1e-3);
  });

  test('shuffling the weights of the language model destroys the map', async () => {
    const shuffled = await createExplainer(engine, model, await shuffledWeights(1));
    const correlations: number[] = [];
    for (let i = 0; i < questions.length; i++) {
      const question = await ask(i);
      const map = async (of: Explainer) => meanMap((await of.maps(question, { throughEncoder: false })).maps.relevancy);
      correlations.push(rankCorrelation(await map(explainer), await map(shuffled)));
    }
    const mean = sum(correlations) / correlations.length;
    console.log(`rank correlation with shuffled weights: ${mean.toFixed(3)}`);
    expect(Math.abs(mean)).toBeLessThan(0.4);
  });

  test('asks about as many tokens of the answer together as memory allows', async () => {
    const asked: number[] = [];
    const watched: Engine = {
      ...engine,
      async compile(outputs, options) {
        const program = await engine.compile(outputs, options);
        return {
          ...program,
          run(inputs, runOptions) {
            if (inputs.query) asked.push(inputs.query.dims[0]);
            return program.run(inputs, runOptions);
          },
        };
      },
    };
    const question = await ask(0, 'a dog at the left, a cat at the right, a house above a tree and a car below');
    const tokens = question.promptIds.length + question.answerIds.length - 1;
    const all = question.answerIds.length;
    expect(all).toBeGreaterThan(15);
    const memoryLimit = explainer.passBytes(tokens, all) * 0.9;
    const careful = await createExplainer(watched, model, await shuffledWeights(3), { memoryLimit });
    await careful.maps(question, { throughEncoder: false });
    expect(asked.reduce((total, count) => total + count, 0)).toBe(all);
    expect(asked.length).toBe(2);
    for (const count of asked) expect(explainer.passBytes(tokens, count)).toBeLessThanOrEqual(memoryLimit);
  });

  test('what cannot be explained is said in a sentence', async () => {
    const small = await createExplainer(engine, model, await shuffledWeights(2), { memoryLimit: 1e6 });
    const question = await ask(0);
    await expect(small.maps(question)).rejects.toThrow(/takes 3 MB beside the weights .*, and 1 MB are allowed.*--memory-limit/);
    expect(small.passBytes(600)).toBeGreaterThan(12 * small.passBytes(64));
    const prompt = [{ from: 'human' as const, value: '<image>\n<image>\nWhich is larger?' }];
    await expect(explainer.answer({ picture: questions[0].picture, prompt })).rejects.toThrow(UserError);
    await expect(ask(0, '')).rejects.toThrow(/empty/);
  });
});

describe('llava-gemma explain', () => {
  const page = (name: string) => readFileSync(join(out, name, 'index.html'), 'utf8');
  const offline = (html: string) => expect(/<script|https?:\/\/|<link/.test(html)).toBe(false);

  test('one answer: a page, a file, pictures', async () => {
    // the bundled model is sure of what it says of a drawing of its own artists
    const asked = ['--image', join(out, 'scene.png'), '--prompt', questions[0].question, '--answer', `${questions[0].answer} there`];
    mkdirSync(join(out, 'one'));
    writeFileSync(join(out, 'one', '00-of-an-older-answer-relevancy.png'), '');
    const { code, stdout, stderr } = await cli('explain', ...asked, '--lens', '--steps', '4', '--out', join(out, 'one'));
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('Its map of relevancy is ');
    const file = JSON.parse(readFileSync(join(out, 'one', 'explanation.json'), 'utf8'));
    const parts = [`${questions[0].answer} there`, ...questions[0].answer.split(' '), 'there'];
    expect(file.parts.map(({ text }: { text: string }) => text)).toEqual(parts);
    expect(file.grid).toEqual({ rows: 6, columns: 6, patch: 16, size: 96 });
    for (const { maps, faithfulness } of file.parts) {
      for (const map of Object.values(maps)) expect(map).toHaveLength(36);
      expect(faithfulness.full).toBeTypeOf('number');
    }
    expect(file.tokens[0].attention[3][3]).toHaveLength(36);
    expect(file.lens).toHaveLength(5);
    const pictures = readdirSync(join(out, 'one')).filter((name) => name.endsWith('.png'));
    expect(pictures).toHaveLength(parts.length * 6 + file.tokens.length);
    // four layers of four heads, maps of 48 pixels and 2 between them
    const heads = await sharp(
      join(out, 'one', pictures.find((name) => name === `01-${parts[1].replace(/\W+/g, '-')}-heads.png`)!),
    ).metadata();
    expect([heads.width, heads.height]).toEqual([198, 198]);
    expect((await sharp(join(out, 'one', pictures[0])).metadata()).width).toBe(384);
    const html = page('one');
    offline(html);
    expect(html.match(/type="radio"/g)).toHaveLength(parts.length);
    expect(html.includes('deletion (low is good)')).toBe(true);
    // the picture is there once, and each head of each part has its place in the part's sheet
    expect(html.match(/--picture:url\(data:image\/png/g)).toHaveLength(1);
    expect(html.match(/background-position:/g)).toHaveLength(parts.length * 16);
  });

  test('without a measurement, the page says that there is none', async () => {
    const words = ['--image', join(out, 'scene.png'), '--prompt', 'What is <here>?', '--no-faithfulness', '--no-encoder'];
    expect((await cli('explain', ...words, '--out', join(out, 'bare'))).code).toBe(0);
    const html = page('bare');
    expect(html.includes('Nobody has measured')).toBe(true);
    expect(html.includes('What is &#60;here&#62;?')).toBe(true);
  });

  test('many questions of a file, with one that cannot be asked', async () => {
    const entry = (id: string, image: string) => ({
      id,
      image,
      conversations: [
        { from: 'human', value: '<image>\nHow many things are in the picture?' },
        { from: 'gpt', value: '2' },
      ],
    });
    writeFileSync(join(out, 'q.json'), JSON.stringify([entry('a', 'scene.png'), entry('b', 'missing.png')]));
    const words = ['--batch', join(out, 'q.json'), '--image-folder', out, '--steps', '3', '--out', join(out, 'many')];
    const { code, stderr } = await cli('explain', ...words);
    expect(code).toBe(0);
    expect(stderr).toContain('1 questions could not be explained');
    const lines = readFileSync(join(out, 'many', 'questions.jsonl'), 'utf8')
      .trim()
      .split('\n');
    expect(lines.map((line) => JSON.parse(line)).map(({ id, problem }) => [id, problem === undefined])).toEqual([
      ['a', true],
      ['b', false],
    ]);
    expect(JSON.parse(lines[0]).maps.relevancy).toHaveLength(36);
    offline(page('many'));
    expect(page('many').match(/class="map"/g)).toHaveLength(1);
    writeFileSync(join(out, 'open.jsonl'), `${JSON.stringify({ question_id: 7, image: 'scene.png', text: 'What is at the top left?' })}\n`);
    const open = ['--batch', join(out, 'open.jsonl'), '--image-folder', out, '--no-faithfulness', '--out', join(out, 'open')];
    expect((await cli('explain', ...open)).code).toBe(0);
    const line = () => JSON.parse(readFileSync(join(out, 'open', 'questions.jsonl'), 'utf8'));
    expect([line().id, 'encoder' in line().maps]).toEqual(['7', true]);
    expect((await cli('explain', ...open, '--short', '--no-encoder')).code).toBe(0);
    expect('encoder' in line().maps).toBe(false);
    for (const [flags, message] of [
      [['--lens'], '--lens is for one question'],
      [['--answer', 'x'], '--answer is for one question'],
    ] as const)
      expect((await cli('explain', ...open, ...flags)).stderr).toContain(message);
    expect((await cli('explain', '--scenes', '3', '--limit', '1', '--out', out)).stderr).toContain('--limit goes with --batch');
  });

  test('drawn scenes: the pointing game, the same for the same seed', async () => {
    const run = async (name: string, ...more: string[]) => {
      const { code, stdout } = await cli('explain', '--scenes', '4', '--seed', '4', ...more, '--out', join(out, name));
      expect(code).toBe(0);
      expect(stdout).toContain('Pointing game, 4 questions');
      return readFileSync(join(out, name, 'summary.json'), 'utf8');
    };
    const first = await run('scenes', '--no-faithfulness');
    const { pointing } = JSON.parse(first);
    expect(Object.keys(pointing.maps)).toEqual(expect.arrayContaining(['relevancy', 'attention']));
    expect(pointing.maps.relevancy.n).toBe(4);
    expect(await run('again', '--no-faithfulness')).toBe(first);
  });

  test('drawn scenes: the box that holds the answer beats a random order', async () => {
    const words = ['--scenes', '2', '--seed', '4', '--steps', '2', '--out', join(out, 'oracle')];
    expect((await cli('explain', ...words)).stdout).toContain('Against a random order');
    const { faithfulness } = JSON.parse(readFileSync(join(out, 'oracle', 'summary.json'), 'utf8'));
    expect(faithfulness.oracle.mean.deletion.value).toBeLessThan(faithfulness.random.mean.deletion.value);
  });

  test.each([
    [['--prompt', 'What?'], '--image and --prompt'],
    [['--image', 'a.png', '--scenes', '4'], 'one of the three'],
    [['--batch', 'q.json'], '--image-folder'],
    [['--scenes', '4', '--split', 'nothing'], '--split nothing'],
    [['--scenes', '4', '--answer', 'cat'], '--answer'],
  ])('%j is refused', async (words, message) => {
    const { code, stderr } = await cli('explain', ...words, '--out', join(out, 'none'));
    expect(code).not.toBe(0);
    expect(stderr).toContain(message);
    expect(existsSync(join(out, 'none'))).toBe(false);
  });
});
