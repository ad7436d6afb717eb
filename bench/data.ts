// Data files of a thousand to a million samples, in the form of llava_v1_5_mix665k.json: how long until the
// first step is done, what a run takes in memory, and how many tokens a second it trains afterwards. What
// grows faster than the samples, or grows with them and need not, shows here.

import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import sharp from 'sharp';
import { stringify } from 'yaml';
import { UserError } from '../src/errors.ts';
import { createRandom, type Random } from '../src/random.ts';
import { findRunFolder, readSummary } from '../src/runs/folder.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { cpuSeconds, round } from './statistics.ts';

const FOLDER = '.cache/bench-data';
const PICTURES = 64;
/** Samples that are written at a time. */
const SLICE = 1000;
const STEPS = 40;
const WORDS = 'the picture shows a red apple beside small wooden table while two dogs run across café 漢字 reads "news" under lamp'.split(
  ' ',
);
const words = createRandom(1);
const TEXT = Array.from({ length: 20_000 }, () => words.pick(WORDS)).join(' ');

export function register(program: Command): void {
  program
    .command('data')
    .description('runs over files of a thousand to a million samples: time to the first step, memory, tokens a second')
    .option('--samples <list>', 'samples in each file', '1000,10000,100000,1000000')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option('--keep', `leave the files in ${FOLDER}`)
    .action(benchData);
}

const pictureOf = (number: number) => `${String(number).padStart(12, '0')}.png`;
const textOf = (random: Random, characters: number) => {
  const start = random.integer(TEXT.length - characters);
  return TEXT.slice(start, start + characters);
};

/** As mixes of LLaVA are: one to six rounds, some samples without a picture, 1.65 kB on average. */
function sampleOf(random: Random, number: number): object {
  const rounds = 1 + random.integer(6);
  const hasImage = random.uniform() > 0.06;
  const conversations = Array.from({ length: rounds }, (_, round) => [
    { from: 'human', value: `${round === 0 && hasImage ? '<image>\n' : ''}${textOf(random, 80)}` },
    { from: 'gpt', value: textOf(random, 50 + random.integer(560)) },
  ]).flat();
  return { id: String(number), ...(hasImage ? { image: pictureOf(random.integer(PICTURES)) } : {}), conversations };
}

function writeSamples(path: string, samples: number): void {
  const random = createRandom(1);
  const file = openSync(path, 'w');
  for (let from = 0; from < samples; from += SLICE) {
    const list = Array.from({ length: Math.min(SLICE, samples - from) }, (_, i) => JSON.stringify(sampleOf(random, from + i)));
    writeSync(file, `${from === 0 ? '[' : ','}${list.join(',\n')}${from + SLICE >= samples ? ']' : ''}`);
  }
  closeSync(file);
}

interface Result {
  samples: number;
  file_mb: number;
  /** From the start of the command to the end of the first step; CPU over all threads, on Linux. */
  first_step: { s: number; cpu_s?: number };
  peak_memory_mb: number;
  /** Of the steps behind the first. */
  tokens_per_s: number;
}

const INTERVAL = 50;

/** A short run over `path` in a process of its own. */
async function train(path: string, samples: number): Promise<Result> {
  const recipe = {
    task: 'llava',
    model: { vision_tower: 'assets/models/tiny-clip', language_model: 'assets/models/tiny-gemma' },
    stages: [
      {
        name: 'only',
        train: ['multi_modal_projector'],
        steps: STEPS,
        batch_size: 4,
        // short, so that a step's memory does not hide that of the data
        max_length: 512,
        log_every: 1,
        data: { data_path: path, image_folder: FOLDER },
        template: 'gemma',
      },
    ],
  };
  const [recipePath, out] = [join(FOLDER, 'recipe.yaml'), join(FOLDER, 'run')];
  writeFileSync(recipePath, stringify(recipe));
  rmSync(out, { recursive: true, force: true });
  const began = Date.now() / 1000;
  const child = spawn(process.execPath, ['bin/llava-gemma.js', 'train', recipePath, '--out', out], { stdio: ['ignore', 'ignore', 'pipe'] });
  let messages = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    messages = (messages + text).slice(-3000);
  });
  const metrics = join(out, 'metrics.jsonl');
  let firstCpu: number | undefined;
  const timer = setInterval(() => {
    if (firstCpu === undefined && existsSync(metrics) && statSync(metrics).size > 0) firstCpu = cpuSeconds(child.pid!);
  }, INTERVAL);
  const code = await new Promise((resolve) => child.on('exit', resolve));
  clearInterval(timer);
  if (code !== 0) throw new UserError(`the run failed: ${messages.trim()}`);
  const folder = findRunFolder(out);
  const steps = readMetrics(folder.metrics).filter((event) => event.type === 'step');
  const [first, last] = [steps[0], steps[steps.length - 1]];
  // a line says the tokens of its step a second
  const tokens = steps.slice(1).reduce((sum, { tokensPerSecond, seconds }, i) => sum + tokensPerSecond * (seconds - steps[i].seconds), 0);
  return {
    samples,
    file_mb: round(statSync(path).size / 1e6, 0),
    first_step: { s: round(first.time - began, 1), cpu_s: firstCpu },
    peak_memory_mb: round(readSummary(folder).peakRssMb, 0),
    tokens_per_s: round(tokens / (last.seconds - first.seconds), 0),
  };
}

async function benchData({ samples, json, keep }: { samples: string; json?: boolean; keep?: boolean }): Promise<void> {
  const counts = samples.split(',').map(Number);
  for (const count of counts)
    if (!Number.isInteger(count) || count < 1) throw new UserError(`--samples: a list of whole numbers above 0, not "${samples}"`);
  const log = json ? console.error : console.log;
  mkdirSync(FOLDER, { recursive: true });
  for (let i = 0; i < PICTURES; i++) {
    if (existsSync(join(FOLDER, pictureOf(i)))) continue;
    const background = { r: 4 * i, g: 255 - 4 * i, b: 128 };
    await sharp({ create: { width: 96, height: 96, channels: 3, background } }).toFile(join(FOLDER, pictureOf(i)));
  }
  const results: Result[] = [];
  for (const count of counts) {
    const path = join(FOLDER, `${count}.json`);
    if (!existsSync(path)) writeSamples(path, count);
    const result = await train(path, count);
    results.push(result);
    const { file_mb: size, first_step: first, peak_memory_mb: memory, tokens_per_s: speed } = result;
    const cpu = first.cpu_s === undefined ? '' : ` (CPU ${first.cpu_s.toFixed(1)} s)`;
    const name = `${count.toLocaleString('en')} samples, ${size.toLocaleString('en')} MB`;
    log(`${name}: first step after ${first.s.toFixed(1)} s${cpu}, ${memory} MB, ${speed.toLocaleString('en')} tokens/s`);
    if (!keep) rmSync(path);
  }
  if (!keep) rmSync(FOLDER, { recursive: true });
  if (json) console.log(JSON.stringify({ benchmark: 'data', steps: STEPS, results }));
}
