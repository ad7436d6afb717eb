// Time and memory of scoring many answers, for each benchmark: files in its official form are written, and
// scored by the command line in a process of its own.

import { spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import { createRandom } from '../src/random.ts';
import { processMb } from '../src/runs/memory.ts';
import { busyCores, busyNote, cpuSeconds } from './statistics.ts';

const FOLDER = '.cache/bench/score';

export function register(program: Command): void {
  program
    .command('score')
    .description('scoring answers to each published benchmark: seconds and memory')
    .option('--answers <n>', 'answers to each', parseCount, 100_000)
    .option('--benchmarks <names>', 'some of them, with commas between')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .action(benchScore);
}

const random = createRandom(1);
const oneOf = (texts: readonly string[]) => texts[random.integer(texts.length)];
const words = ['yes', 'no', 'Two dogs.', 'a red bus', 'on the left', '3', 'cat', "It's the man's hat", 'Nike', 'unanswerable'];
const letters = ['A', 'B', 'C', 'D'];
const range = (n: number) => Array.from({ length: n }, (_, i) => i);
const jsonLines = (values: readonly object[]) => values.map((value) => JSON.stringify(value)).join('\n');
/** LLaVA's answers.jsonl to questions of these ids. */
const said = (
  ids: readonly (string | number)[],
  texts: readonly string[],
  prompt = 'What is it?\nAnswer the question using a single word or phrase.',
) =>
  jsonLines(
    ids.map((question_id) => ({ question_id, prompt, text: oneOf(texts), answer_id: 'x'.repeat(22), model_id: 'model', metadata: {} })),
  );
const ten = () => range(10).map((i) => ({ answer: i < 7 ? oneOf(words) : 'cat', answer_confidence: 'yes', answer_id: i + 1 }));

const MME_TASKS =
  'existence count position color posters celebrity scene landmark artwork OCR commonsense_reasoning numerical_calculation text_translation code_reasoning'.split(
    ' ',
  );

/** Files of a benchmark by path, the answers' among them. */
type Files = { answers: string } & Record<string, string>;

/** Files with about `n` answers, in the forms that each benchmark is published and answered in. */
const makers: Record<string, (n: number) => Files> = {
  pope(n) {
    const ids = range(Math.ceil(n / 3)).map((i) => i + 1);
    const questions = (of: string) => ({
      [`pope/coco/coco_pope_${of}.json`]: jsonLines(
        ids.map((question_id) => ({ question_id, image: `${question_id >> 3}.jpg`, text: 'Is there a dog?', label: oneOf(['yes', 'no']) })),
      ),
    });
    const answers = said(
      [0, 10_000_000, 20_000_000].flatMap((base) => ids.map((id) => base + id)),
      ['Yes', 'No', 'no, there is not', 'Yes, there is'],
    );
    return { answers, ...questions('adversarial'), ...questions('random'), ...questions('popular') };
  },
  gqa(n) {
    const types = { structural: 'query', semantic: 'rel', detailed: 'x' };
    const semantic = range(3).map((i) => ({ operation: 'select', argument: 'wall (16)', dependencies: [i] }));
    const question = { question: 'What is it?', isBalanced: true, types, semantic, entailed: ['1', '2'], equivalent: ['1'] };
    const entries = range(n).map((i) => [
      `${1e8 + i}`,
      { ...question, answer: oneOf(words), imageId: `n${i >> 3}`, groups: { global: `g${i % 90}` } },
    ]);
    return {
      answers: said(
        range(n).map((i) => `${1e8 + i}`),
        words,
      ),
      'gqa/testdev_balanced_questions.json': JSON.stringify(Object.fromEntries(entries)),
    };
  },
  vqav2(n) {
    const questions = range(n).map((i) => ({ question_id: i, image_id: i >> 2, question: 'What is it?' }));
    const annotations = range(n).map((i) => ({
      question_id: i,
      image_id: i >> 2,
      question_type: 'what is',
      answer_type: 'other',
      answers: ten(),
    }));
    return {
      answers: said(range(n), words),
      'vqav2/v2_OpenEnded_mscoco_val2014_questions.json': JSON.stringify({ data_subtype: 'val2014', questions }),
      'vqav2/v2_mscoco_val2014_annotations.json': JSON.stringify({ data_subtype: 'val2014', annotations }),
    };
  },
  textvqa(n) {
    const data = range(n).map((i) => ({
      question_id: i,
      image_id: `p${i}`,
      question: 'what is it?',
      answers: ten().map(({ answer }) => answer),
    }));
    return {
      answers: said(
        range(n).map((i) => `p${i}`),
        words,
      ),
      'textvqa/TextVQA_0.5.1_val.json': JSON.stringify({ data }),
    };
  },
  vizwiz(n) {
    const image = (i: number) => `VizWiz_val_${String(i).padStart(8, '0')}.jpg`;
    const entries = range(n).map((i) => ({
      image: image(i),
      question: 'What is it?',
      answers: ten(),
      answer_type: 'other',
      answerable: 1,
    }));
    return { answers: said(range(n).map(image), words), 'vizwiz/val.json': JSON.stringify(entries) };
  },
  scienceqa(n) {
    const problem = {
      question: 'Which?',
      choices: ['cat', 'dog', 'sun'],
      hint: 'a hint',
      image: 'image.png',
      subject: 'x',
      topic: 'y',
      grade: 'grade3',
    };
    const problems = range(n).map((i) => [i, { ...problem, answer: i % 3 }]);
    return {
      answers: said(range(n).map(String), ['A', 'B', 'C. sun', 'The answer is B.', 'who knows']),
      'scienceqa/problems.json': JSON.stringify(Object.fromEntries(problems)),
      'scienceqa/pid_splits.json': JSON.stringify({ test: range(n).map(String) }),
    };
  },
  mmbench: (n) => ({
    answers: [
      'index\tanswer\tprediction',
      ...range(n).map((i) => `${(i >> 2) + (i % 4) * 1e6}\t${letters[i % 4]}\t${oneOf(letters)}`),
    ].join('\n'),
  }),
  seed(n) {
    const choices = { choice_a: 'cat', choice_b: 'dog', choice_c: 'sun', choice_d: 'tree', question_type_id: 1, data_type: 'image' };
    const questions = range(n).map((i) => ({
      question_id: String(i),
      question: 'What?',
      answer: oneOf(letters),
      data_id: `${i}_x`,
      ...choices,
    }));
    return {
      answers: said(range(n).map(String), letters),
      'seed/SEED-Bench.json': JSON.stringify({ questions, question_type: { Scene: 1 } }),
    };
  },
  mmmu(n) {
    const ids = range(n).map((i) => `validation_Art_${i + 1}`);
    const gold = ids.map((id) => [id, { question_type: 'multiple-choice', ground_truth: oneOf(letters) }]);
    return {
      answers: JSON.stringify(Object.fromEntries(ids.map((id) => [id, oneOf(letters)]))),
      'mmmu/answer_dict_val.json': JSON.stringify(Object.fromEntries(gold)),
    };
  },
  mme(n) {
    const line = (i: number) =>
      `${i >> 1}.jpg\tIs there a ${i % 2 ? 'dog' : 'cat'}? Please answer yes or no.\t${i % 2 ? 'No' : 'Yes'}\t${oneOf(['Yes', 'no, there is not', 'I see'])}`;
    const lines = range(2 * Math.ceil(n / 28))
      .map(line)
      .join('\n');
    return { answers: '', ...Object.fromEntries(MME_TASKS.map((task) => [`lines/${task}.txt`, lines])) };
  },
  mmvp: (n) => ({ answers: JSON.stringify(range(2 * Math.ceil(n / 2)).map(() => oneOf(['yes', 'no', 'Yes']))) }),
  'mm-vet'(n) {
    const grades = range(n).map((i) => [`v1_${i}`, { model: ['gpt-4'], content: ['0.5'], score: [oneOf(['0', '1']) === '1' ? 1 : 0.5] }]);
    const capabilities = range(n).map((i) => [`v1_${i}`, i % 2 ? ['ocr', 'math'] : ['rec']]);
    return {
      answers: JSON.stringify(Object.fromEntries(grades)),
      'mm-vet/capabilities.json': JSON.stringify(Object.fromEntries(capabilities)),
    };
  },
  mathvista(n) {
    const metadata = {
      category: 'general-vqa',
      context: 'scene',
      grade: 'daily life',
      language: 'english',
      skills: ['x'],
      source: 'y',
      task: 'z',
    };
    const problem = {
      question: 'How many?',
      choices: null,
      unit: null,
      precision: null,
      question_type: 'free_form',
      answer_type: 'integer',
    };
    const entries = range(n).map((i) => {
      const one = {
        ...problem,
        pid: String(i),
        image: `images/${i}.jpg`,
        answer: String(i % 9),
        query: 'Hint: please answer.\nQuestion: How many?',
      };
      return [String(i), { ...one, metadata, response: 'There are 3 of them in the picture.', extraction: String(random.integer(9)) }];
    });
    return { answers: JSON.stringify(Object.fromEntries(entries)) };
  },
};

interface Measured {
  seconds: number;
  cpu_seconds: number | null;
  peak_mb: number | null;
  n: number;
}

/** Scores in a process of its own. */
async function scored(words: readonly string[]): Promise<Measured> {
  const began = performance.now();
  const child = spawn(process.execPath, ['bin/llava-gemma.js', 'score', ...words, '--json'], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (piece) => {
    text += piece;
  });
  let peak: number | undefined;
  let cpu: number | undefined;
  const timer = setInterval(() => {
    peak = processMb('VmHWM', child.pid) ?? peak;
    cpu = cpuSeconds(child.pid!) ?? cpu;
  }, 20);
  const code = await new Promise((resolve) => child.on('close', resolve));
  clearInterval(timer);
  if (code !== 0) throw new UserError(`llava-gemma score ${words.join(' ')} ended with ${code}`);
  const seconds = (performance.now() - began) / 1000;
  return { seconds, cpu_seconds: cpu ?? null, peak_mb: peak ?? null, n: JSON.parse(text).n };
}

async function benchScore({ answers: count, benchmarks, json }: { answers: number; benchmarks?: string; json?: boolean }): Promise<void> {
  const log = json ? console.error : console.log;
  const names = benchmarks?.split(',') ?? Object.keys(makers);
  const results: Record<string, Measured> = {};
  const before = await busyCores();
  for (const name of names) {
    if (!makers[name]) throw new UserError(`${name}: there are ${Object.keys(makers).join(', ')}`);
    rmSync(FOLDER, { recursive: true, force: true });
    const { answers, ...files } = makers[name](count);
    for (const [path, text] of Object.entries({ 'answers.jsonl': answers, ...files })) {
      mkdirSync(dirname(join(FOLDER, path)), { recursive: true });
      writeFileSync(join(FOLDER, path), text);
    }
    const given = name === 'mme' ? join(FOLDER, 'lines') : join(FOLDER, name === 'mmbench' ? 'answers.tsv' : 'answers.jsonl');
    if (name === 'mmbench') writeFileSync(given, answers);
    const data = Object.keys(files).some((path) => path.startsWith(`${name}/`)) ? ['--data', FOLDER] : [];
    const result = await scored([name, '--answers', given, ...data]);
    results[name] = result;
    log(
      `${name.padEnd(10)} ${result.n} answers  ${result.seconds.toFixed(1)} s (CPU ${result.cpu_seconds?.toFixed(1) ?? '-'} s)  ${result.peak_mb?.toFixed(0) ?? '-'} MB`,
    );
  }
  rmSync(FOLDER, { recursive: true, force: true });
  const { busy, note } = busyNote(before, await busyCores());
  if (note) log(note);
  if (json) console.log(JSON.stringify({ busy_cores: busy, benchmarks: results }, null, 2));
}
