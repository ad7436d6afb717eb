// The bundled model answers GQA, VQAv2, TextVQA, VizWiz and captions from small files in the official forms,
// and its answers give the same scores when they are scored as those of any system.

import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import type { EvaluationReport } from '../src/benchmarks/assess.ts';
import { benchmarkNamed } from '../src/benchmarks/benchmarks.ts';
import { scoreAnswers } from '../src/benchmarks/score.ts';
import { buildEmojiDataset } from '../src/data/emoji/build.ts';
import { cli } from './toy.ts';

const folder = mkdtempSync(join(tmpdir(), 'evaluation-vqa-'));
const data = join(folder, 'downloads');
const PICTURES = 6;
const numbers = Array.from({ length: PICTURES }, (_, i) => i);

/** A JSON file of a benchmark. */
function write(path: string, value: unknown): void {
  mkdirSync(join(data, path, '..'), { recursive: true });
  writeFileSync(join(data, path), JSON.stringify(value));
}

const ten = (answer: string) => Array.from({ length: 10 }, (_, i) => ({ answer: i < 8 ? answer : 'dog', answer_confidence: 'yes' }));

beforeAll(async () => {
  const split = 'unseen-scenes';
  const { evaluation, imageFolder } = await buildEmojiDataset({
    seed: 6,
    out: join(folder, 'scenes'),
    trainScenes: 0,
    splits: [split],
    evaluationScenes: PICTURES,
  });
  const images = [...new Set((JSON.parse(readFileSync(evaluation[split], 'utf8')) as { image: string }[]).map(({ image }) => image))];
  const show = (place: string, nameOf: (i: number) => string) => {
    mkdirSync(join(data, place), { recursive: true });
    for (const i of numbers) cpSync(join(imageFolder, images[i]), join(data, place, nameOf(i)));
  };
  show('gqa/images', (i) => `n${i}.jpg`);
  const types = { structural: 'verify', semantic: 'obj', detailed: 'existC' };
  const ofGqa = {
    question: 'Is there a cat?',
    answer: 'yes',
    isBalanced: true,
    types,
    groups: { global: null },
    semantic: [],
    entailed: [],
  };
  write('gqa/testdev_balanced_questions.json', Object.fromEntries(numbers.map((i) => [`0${i}`, { ...ofGqa, imageId: `n${i}` }])));

  show('coco/val2014', (i) => `COCO_val2014_${String(i).padStart(12, '0')}.jpg`);
  const questions = numbers.map((i) => ({ question_id: i * 10, image_id: i, question: 'Is there a dog in the picture?' }));
  const annotations = numbers.map((i) => ({
    question_id: i * 10,
    image_id: i,
    question_type: 'is there a',
    answer_type: 'yes/no',
    answers: ten('no'),
  }));
  write('vqav2/v2_OpenEnded_mscoco_val2014_questions.json', { data_subtype: 'val2014', questions });
  write('vqav2/v2_mscoco_val2014_annotations.json', { data_subtype: 'val2014', annotations });

  show('textvqa/train_images', (i) => `00a${i}.jpg`);
  const ofText = numbers.map((i) => ({
    question_id: 34602 + i,
    image_id: `00a${i}`,
    question: 'what is this?',
    answers: ten('cat').map(({ answer }) => answer),
  }));
  write('textvqa/TextVQA_0.5.1_val.json', { data: ofText });
  write('textvqa/TextVQA_Rosetta_OCR_v0.2_val.json', {
    data: numbers.map((i) => ({ image_id: `00a${i}`, ocr_tokens: ['STOP', String(i)] })),
  });

  show('vizwiz/val', (i) => `VizWiz_val_0000000${i}.jpg`);
  write(
    'vizwiz/val.json',
    numbers.map((i) => ({
      image: `VizWiz_val_0000000${i}.jpg`,
      question: 'What is it?',
      answers: ten('cat'),
      answer_type: 'other',
      answerable: 1,
    })),
  );

  show('flickr30k-captions/flickr30k-images', (i) => `10000${i}.jpg`);
  const sentences = ['A cat.', 'Two dogs play.'].map((raw, k) => ({ raw, sentid: k, tokens: [] }));
  const splitOf = (nameOf: (i: number) => string, more: (i: number) => object) => ({
    images: numbers.map((i) => ({ filename: nameOf(i), imgid: i, split: 'test', sentences, ...more(i) })),
  });
  write(
    'coco-captions/dataset_coco.json',
    splitOf(
      (i) => `COCO_val2014_${String(i).padStart(12, '0')}.jpg`,
      (i) => ({ cocoid: i, filepath: 'val2014' }),
    ),
  );
  write(
    'flickr30k-captions/dataset_flickr30k.json',
    splitOf(
      (i) => `10000${i}.jpg`,
      () => ({}),
    ),
  );
}, 60_000);

/** Answers to a split whose right answers are secret. */
async function uploaded(): Promise<unknown> {
  const test = numbers.map((i) => ({ question_id: i, image_id: i, question: 'Is there a dog?' }));
  write('secret/v2_OpenEnded_mscoco_test-dev2015_questions.json', { questions: test });
  cpSync(join(data, 'coco', 'val2014'), join(data, 'secret', 'test2015'), { recursive: true });
  for (const i of numbers) {
    const name = `COCO_val2014_${String(i).padStart(12, '0')}.jpg`;
    cpSync(join(data, 'secret', 'test2015', name), join(data, 'secret', 'test2015', name.replace('val2014', 'test2015')));
  }
  const out = join(folder, 'secret');
  const { code, stdout, stderr } = await cli('eval', '--benchmarks', 'vqav2', '--data', join(data, 'secret'), '--out', out, '--no-blind');
  expect(code, stderr).toBe(0);
  expect(stdout).toMatch(/vqav2.upload.json: for the VQA challenge on EvalAI/);
  return JSON.parse(readFileSync(join(out, 'vqav2', 'upload.json'), 'utf8'));
}

it('the bundled model answers every one of them', async () => {
  const names = ['gqa', 'vqav2', 'textvqa', 'vizwiz', 'coco-captions', 'flickr30k-captions'];
  const out = join(folder, 'out');
  const asked = ['eval', '--benchmarks', names.join(), '--data', data, '--no-blind', '--no-exchanged', '--out', out];
  const { code, stderr } = await cli(...asked, '--max-new-tokens', '12');
  expect(code, stderr).toBe(0);
  const { benchmarks } = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')) as EvaluationReport;
  expect(benchmarks.map(({ score }) => score.benchmark)).toEqual(names);
  for (const { score, unasked } of benchmarks) {
    expect(unasked.count, `${score.benchmark}: ${unasked.reason}`).toBe(0);
    expect(score.n).toBe(PICTURES);
    const answers = join(out, score.benchmark, 'answers.jsonl');
    const again = await scoreAnswers(benchmarkNamed(score.benchmark), { answers, data });
    expect(again.score).toEqual(score);
  }
  const prompts = readFileSync(join(out, 'textvqa', 'answers.jsonl'), 'utf8');
  expect(prompts).toContain('What is this?\\nReference OCR token: STOP, 3\\nAnswer the question');
  expect(await uploaded()).toEqual(numbers.map((question_id) => ({ question_id, answer: expect.any(String) })));
  const retrieval = await cli('eval', '--benchmarks', 'coco-retrieval', '--data', data, '--out', join(folder, 'none'));
  expect(retrieval.stderr).toMatch(/coco-retrieval: no model can be asked for its answers yet/);
}, 60_000);
