// A training file of the size of llava_v1_5_mix665k.json: how long until the first step has been taken, and
// what it takes in memory, beside the same run over a slice of it.

import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import sharp from 'sharp';
import { stringify } from 'yaml';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import { createRandom, type Random } from '../src/random.ts';
import type { RunSummary } from '../src/runs/folder.ts';

const FOLDER = '.cache/bench-data';
const PICTURES = 64;
const SLICE = 1000;
const WORDS = 'the picture shows a red apple beside small wooden table while two dogs run across café 漢字 reads "news" under lamp'.split(
  ' ',
);
const words = createRandom(1);
const TEXT = Array.from({ length: 20_000 }, () => words.pick(WORDS)).join(' ');

export function register(program: Command): void {
  program
    .command('data')
    .description('the first step over a data file of a gigabyte: time and memory, beside a slice of it')
    .option('--samples <n>', 'samples in the file', parseCount, 665_000)
    .option('--keep', `leave the file in ${FOLDER}`)
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

/** One step over `path` in a process of its own. */
function trainOneStep(path: string): { seconds: number; peakMb: number } {
  const recipe = {
    task: 'llava',
    model: { vision_tower: 'assets/models/tiny-clip', language_model: 'assets/models/tiny-gemma' },
    stages: [
      {
        name: 'only',
        train: ['multi_modal_projector'],
        steps: 1,
        batch_size: 8,
        data: { data_path: path, image_folder: FOLDER },
        template: 'gemma',
      },
    ],
  };
  const [recipePath, out] = [join(FOLDER, 'recipe.yaml'), join(FOLDER, 'run')];
  writeFileSync(recipePath, stringify(recipe));
  const began = performance.now();
  const { status, stderr } = spawnSync(process.execPath, ['bin/llava-gemma.js', 'train', recipePath, '--out', out, '--overwrite']);
  if (status !== 0) throw new UserError(`the run failed: ${String(stderr).trim()}`);
  const { peakRssMb }: RunSummary = JSON.parse(readFileSync(join(out, 'summary.json'), 'utf8'));
  return { seconds: (performance.now() - began) / 1000, peakMb: peakRssMb };
}

async function benchData({ samples, keep }: { samples: number; keep?: boolean }): Promise<void> {
  mkdirSync(FOLDER, { recursive: true });
  for (let i = 0; i < PICTURES; i++) {
    if (existsSync(join(FOLDER, pictureOf(i)))) continue;
    const background = { r: 4 * i, g: 255 - 4 * i, b: 128 };
    await sharp({ create: { width: 96, height: 96, channels: 3, background } }).toFile(join(FOLDER, pictureOf(i)));
  }
  for (const count of [Math.min(SLICE, samples), samples]) {
    const path = join(FOLDER, `${count}.json`);
    if (!existsSync(path)) writeSamples(path, count);
    const { seconds, peakMb } = trainOneStep(path);
    const size = (statSync(path).size / 1e6).toFixed(0);
    console.log(`${count} samples, ${size} MB: the run with its one step took ${seconds.toFixed(1)} s and ${peakMb.toFixed(0)} MB`);
  }
  if (!keep) rmSync(FOLDER, { recursive: true });
}
