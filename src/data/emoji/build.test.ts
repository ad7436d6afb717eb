import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { readLlavaJson, type Sample } from '../llava-json.ts';
import { buildEmojiDataset, cachedEmojiDataset, type EmojiDataset } from './build.ts';
import { type EmojiGlyphs, loadEmojiGlyphs } from './glyphs.ts';
import { captionOf, sceneInWords } from './questions.ts';
import type { Scene } from './scene.ts';
import { defaultAugmentation } from './scene.ts';
import { splitConcepts } from './split.ts';

const options = { seed: 5, trainScenes: 200, evaluationScenes: 120 };
const folder = () => mkdtempSync(join(tmpdir(), 'emoji-'));

let glyphs: EmojiGlyphs;
let out: string;
let dataset: EmojiDataset;
let train: Sample[];
let evaluation: Record<string, Sample[]>;

beforeAll(async () => {
  glyphs = await loadEmojiGlyphs();
  out = folder();
  dataset = await buildEmojiDataset({ ...options, out });
  train = await readLlavaJson(dataset.questions, dataset.imageFolder);
  evaluation = {};
  for (const [split, path] of Object.entries(dataset.evaluation)) evaluation[split] = await readLlavaJson(path, dataset.imageFolder);
}, 60_000);

const answers = (samples: readonly Sample[], task: string) =>
  samples.filter(({ fields }) => fields.task === task).map((sample) => sample.conversations[1].value);
const share = (list: readonly string[], value: string) => list.filter((item) => item === value).length / list.length;

describe('buildEmojiDataset', () => {
  it('writes the same bytes for the same seed', async () => {
    const again = folder();
    await buildEmojiDataset({ ...options, out: again });
    const files = readdirSync(out, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    expect(files.length).toBe(5 + 200 + 3 * 120);
    for (const { parentPath, name } of files) {
      const path = join(parentPath, name);
      expect(readFileSync(path).equals(readFileSync(path.replace(out, again))), path).toBe(true);
    }
  }, 60_000);

  it('leaves nothing to guess: yes and no, numbers and letters are balanced', () => {
    for (const samples of [train, ...Object.values(evaluation)]) {
      expect(share(answers(samples, 'existence'), 'yes')).toBe(0.5);
      for (const count of ['1', '2', '3', '4']) expect(share(answers(samples, 'count'), count)).toBe(0.25);
      for (const letter of ['A', 'B', 'C', 'D']) expect(Math.abs(share(answers(samples, 'category'), letter) - 0.25)).toBeLessThan(0.06);
    }
  });

  it('asks for random, popular and adversarial names in equal shares', () => {
    for (const split of ['unseen-scenes', 'unseen-artist']) {
      const kinds = evaluation[split].filter(({ fields }) => fields.task === 'existence').map(({ fields }) => String(fields.kind));
      for (const kind of ['random', 'popular', 'adversarial']) expect(share(kinds, kind)).toBeCloseTo(1 / 3, 10);
    }
  });

  it('takes popular wrong names from a short list, also where no training scenes are made', async () => {
    const bare = await buildEmojiDataset({ seed: 5, trainScenes: 0, splits: ['unseen-artist'], evaluationScenes: 240, out: folder() });
    expect(readdirSync(bare.imageFolder).sort()).toEqual(['train', 'unseen-artist']);
    const asked = await readLlavaJson(bare.evaluation['unseen-artist'], bare.imageFolder);
    const wrong = (kind: string) =>
      asked
        .filter(({ fields, conversations }) => fields.kind === kind && conversations[1].value === 'no')
        .map(({ conversations }) => conversations[0].value);
    expect(wrong('popular')).toHaveLength(80);
    expect(new Set(wrong('popular')).size).toBeLessThanOrEqual(30);
    expect(new Set(wrong('random')).size).toBeGreaterThan(30);
  }, 60_000);

  it('never tells an unseen name in training, nor asks for one as an answer', () => {
    const { unseen } = splitConcepts(glyphs);
    const unseenNames = new Set(unseen.map((index) => glyphs.concepts[index].name));
    for (const samples of [train, evaluation['unseen-scenes'], evaluation['unseen-artist']]) {
      for (const name of answers(samples, 'name')) expect(unseenNames).not.toContain(name);
    }
    expect(answers(evaluation['unseen-concepts'], 'name')).toEqual([]);
    expect(answers(evaluation['unseen-concepts'], 'category').length).toBeGreaterThan(80);
  });

  it('evaluates in one phrasing a task and trains in several', () => {
    const firstLines = (samples: readonly Sample[]) =>
      new Set(samples.filter(({ fields }) => fields.task === 'count').map((sample) => sample.conversations[0].value));
    expect(firstLines(evaluation['unseen-artist']).size).toBe(1);
    expect(firstLines(train).size).toBeGreaterThan(2);
  });

  it('asks with and without the line about the form of the answer, and in several turns, in training only', () => {
    const formed = (samples: readonly Sample[]) =>
      samples
        .filter(({ fields }) => fields.task === 'name')
        .map(({ conversations: [{ value }] }) => value.includes('single word or phrase'));
    const asked = formed(train);
    expect(asked.filter(Boolean).length / asked.length).toBeGreaterThan(0.5);
    expect(asked.filter(Boolean).length / asked.length).toBeLessThan(0.8);
    expect(formed(evaluation['unseen-artist']).every(Boolean)).toBe(true);
    const talks = train.filter(({ conversations }) => conversations.length > 2);
    expect(talks.length).toBeGreaterThan(30);
    for (const { conversations, fields, images } of talks) {
      expect(fields.task).toBe('conversation');
      expect(conversations.map(({ value }) => value.includes('<image>'))).toEqual([true, false, false, false, false, false]);
      // each turn is a question that the scene is also asked alone
      const alone = train.filter((sample) => sample.images[0] === images[0] && sample.conversations.length === 2);
      const bare = (text: string) => text.replace('<image>\n', '');
      for (let turn = 0; turn < 6; turn += 2)
        expect(alone.some((sample) => bare(sample.conversations[0].value) === bare(conversations[turn].value))).toBe(true);
    }
    for (const samples of Object.values(evaluation)) expect(samples.every(({ conversations }) => conversations.length === 2)).toBe(true);
  });

  it('varies training pictures alone when told to, and not what is said of them', async () => {
    const other = folder();
    await buildEmojiDataset({ ...options, out: other, augmentation: { ...defaultAugmentation, hue: 0 } });
    const differs = (name: string) => !readFileSync(join(out, name)).equals(readFileSync(join(other, name)));
    expect(differs('images/train/000000.png')).toBe(true);
    expect(differs('images/unseen-artist/000000.png')).toBe(false);
    expect(differs('train_questions.json')).toBe(false);
  }, 60_000);

  it('answers in agreement with the caption of the same scene', async () => {
    const captions = new Map(
      (await readLlavaJson(dataset.captions, dataset.imageFolder)).map((sample) => [sample.images[0], sample.conversations[1].value]),
    );
    for (const { images, conversations, fields } of train) {
      const caption = captions.get(images[0])!;
      const [question, answer] = conversations.map(({ value }) => value);
      if (fields.task === 'count') expect(caption.split(' at the ').length - 1).toBe(Number(answer));
      const place = /(top|bottom) (left|right)/.exec(question)?.[0] ?? '';
      if (place === '' && fields.task === 'name') expect(caption.split(' at the ')).toHaveLength(2);
      if (fields.task === 'name') expect(caption).toContain(`${answer} at the ${place}`);
    }
  });
});

describe('words about a scene', () => {
  const placed = (name: string, cell: 0 | 1 | 2 | 3) => {
    const concept = glyphs.concepts.findIndex((candidate) => candidate.name === name);
    return { concept, artist: 'noto', cell, x: 0, y: 0, size: 40 };
  };

  it('are grammatical', () => {
    const scene: Scene = {
      size: 96,
      ground: [255, 255, 255],
      glyphs: [placed('red apple', 0), placed('cherries', 1), placed('elephant', 3)],
    };
    expect(captionOf(scene, glyphs)).toBe('a red apple at the top left, cherries at the top right and an elephant at the bottom right.');
    expect(sceneInWords(scene, glyphs)).toBe('top left: red apple. top right: cherries. bottom left: nothing. bottom right: elephant.');
  });
});

it('scenes that differ have folders of their own where nobody names one', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'cached-'));
  const ask = (options: object) =>
    cachedEmojiDataset(folder, { seed: 1, trainScenes: 0, splits: ['unseen-artist'], evaluationScenes: 2, ...options });
  const first = await ask({});
  const text = readFileSync(first.evaluation['unseen-artist'], 'utf8');
  const others = [await ask({ seed: 2 }), await ask({ evaluationScenes: 3 }), await ask({ heldOutArtist: 'noto' })];
  expect(new Set([first, ...others].map(({ imageFolder }) => imageFolder)).size).toBe(4);
  expect(readFileSync(first.evaluation['unseen-artist'], 'utf8')).toBe(text);
  expect((await ask({ splits: ['unseen-artist', 'unseen-scenes'] })).imageFolder).toBe(first.imageFolder);
  expect(readFileSync(first.evaluation['unseen-artist'], 'utf8')).toBe(text);
});
