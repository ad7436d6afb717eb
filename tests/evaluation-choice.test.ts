// The bundled model answers ScienceQA, MMBench, SEED-Bench, MMMU, MME and MMVP from small files in the
// official forms, and its answers give the same scores when they are scored as those of any system.

import { cpSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import type { EvaluationReport } from '../src/benchmarks/assess.ts';
import { benchmarkNamed } from '../src/benchmarks/benchmarks.ts';
import { scoreAnswers } from '../src/benchmarks/score.ts';
import { buildEmojiDataset } from '../src/data/emoji/build.ts';
import { writeParquet } from './parquet.ts';
import { cli } from './toy.ts';

const folder = mkdtempSync(join(tmpdir(), 'evaluation-choice-'));
const data = join(folder, 'downloads');
const PICTURES = 4;
const numbers = Array.from({ length: PICTURES }, (_, i) => i);

function write(path: string, content: string): string {
  const place = join(data, path);
  mkdirSync(dirname(place), { recursive: true });
  writeFileSync(place, content);
  return place;
}

beforeAll(async () => {
  const split = 'unseen-scenes';
  const out = join(folder, 'scenes');
  const { evaluation, imageFolder } = await buildEmojiDataset({
    seed: 6,
    out,
    trainScenes: 0,
    splits: [split],
    evaluationScenes: PICTURES,
  });
  const samples = JSON.parse(readFileSync(evaluation[split], 'utf8')) as { image: string }[];
  const images = [...new Set(samples.map(({ image }) => join(imageFolder, image)))];
  const show = (place: string, i: number) => {
    mkdirSync(dirname(join(data, place)), { recursive: true });
    cpSync(images[i], join(data, place));
  };
  const bytesOf = (i: number) => readFileSync(images[i]);

  const problems = numbers.map((i) => {
    show(`scienceqa/images/test/${i}/image.png`, i);
    return [i, { question: 'What is there?', choices: ['cat', 'dog'], answer: i % 2, hint: '', image: i === 0 ? null : 'image.png' }];
  });
  write('scienceqa/problems.json', JSON.stringify(Object.fromEntries(problems)));
  write('scienceqa/pid_splits.json', JSON.stringify({ test: numbers.map(String) }));

  const rows = numbers.map(
    (i) => `${(i >> 1) + (i % 2) * 1e6}\tWhich?\tcat\tdog\t\t\t${'AB'[i % 2]}\t${bytesOf(i >> 1).toString('base64')}`,
  );
  write('mmbench/mmbench_dev_20230712.tsv', ['index\tquestion\tA\tB\tC\tD\tanswer\timage', ...rows].join('\n'));

  const choices = { choice_a: 'cat', choice_b: 'dog', choice_c: 'sun', choice_d: 'tree', question_type_id: 1, data_type: 'image' };
  const questions = numbers.map((i) => {
    show(`seed/SEED-Bench-image/${i}_x`, i);
    return { question_id: String(i), question: 'What is it?', answer: 'ABCD'[i], data_id: `${i}_x`, ...choices };
  });
  write('seed/SEED-Bench.json', JSON.stringify({ questions, question_type: { 'Scene Understanding': 1 } }));

  mkdirSync(join(data, 'mmmu', 'Art'), { recursive: true });
  const columns = {
    id: numbers.map((i) => `validation_Art_${i + 1}`),
    question: numbers.map((i) => (i === 0 ? 'How is <image 1> unlike <image 2>?' : 'What is in <image 1>?')),
    options: numbers.map((i) => (i === 3 ? '[]' : "['cat', 'dog']")),
    answer: numbers.map((i) => (i === 3 ? 'cat' : 'A')),
    question_type: numbers.map((i) => (i === 3 ? 'open' : 'multiple-choice')),
    image_1: numbers.map((i) => ({ bytes: bytesOf(i), path: 'a.png' })),
    image_2: numbers.map((i) => (i === 0 ? { bytes: bytesOf(1), path: 'b.png' } : null)),
  };
  writeParquet(join(data, 'mmmu', 'Art', 'validation-00000-of-00001.parquet'), columns, { pictures: ['image_1', 'image_2'] });

  for (const i of [0, 1]) {
    const task = i === 0 ? 'count' : 'landmark';
    const [pictures, texts] = i === 0 ? ['', ''] : ['images/', 'questions_answers_YN/'];
    show(`mme/MME_Benchmark_release_version/${task}/${pictures}a.png`, i);
    const pair = ['Is there a cat? Please answer yes or no.\tYes', 'Is there a dog? Please answer yes or no.\tNo'];
    write(`mme/MME_Benchmark_release_version/${task}/${texts}a.txt`, pair.join('\n'));
  }

  const pairs = numbers.map((i) => {
    show(`mmvp/MMVP Images/${i + 1}.jpg`, i);
    return `${i + 1},Is the dog facing left or right?,(a) Left (b) Right,(${'ab'[i % 2]})`;
  });
  write('mmvp/Questions.csv', ['Index,Question,Options,Correct Answer', ...pairs].join('\n'));
}, 60_000);

const names = ['scienceqa', 'mmbench', 'seed', 'mmmu', 'mme', 'mmvp'];

async function ask(name: string, ...more: string[]): Promise<string> {
  const out = join(folder, name);
  const asked = ['eval', '--benchmarks', names.join(), '--data', data, '--no-blind', '--no-exchanged', '--out', out];
  const { code, stderr } = await cli(...asked, '--max-new-tokens', '12', ...more);
  expect(code, stderr).toBe(0);
  return out;
}

it('the bundled model answers every one of them', async () => {
  const out = await ask('out');
  const { benchmarks } = JSON.parse(readFileSync(join(out, 'report.json'), 'utf8')) as EvaluationReport;
  expect(benchmarks.map(({ score }) => score.benchmark)).toEqual(names);
  for (const { score, unasked } of benchmarks) {
    expect(unasked.count, `${score.benchmark}: ${unasked.reason}`).toBe(0);
    expect(score.n, score.benchmark).toBe(4);
    const answers = join(out, score.benchmark, 'answers.jsonl');
    const again = await scoreAnswers(benchmarkNamed(score.benchmark), { answers, data });
    expect(again.score).toEqual(score);
  }
}, 60_000);

it('answers do not depend on the batch: prompts of all lengths, with one picture, several and none', async () => {
  const [one, eight] = [await ask('one', '--batch-size', '1'), await ask('eight', '--batch-size', '8')];
  for (const name of names) {
    const [a, b] = [one, eight].map((out) => readFileSync(join(out, name, 'judged.jsonl'), 'utf8'));
    expect(a, name).toBe(b);
  }
}, 60_000);
