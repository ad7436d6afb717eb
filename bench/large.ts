// One stage of a LLaVA-Gemma of real size on this machine: ten steps of one sample, killed on the way and
// gone on, with the time of a step and the memory that it took. Weights are random.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join, resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { stringify } from 'yaml';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import type { ModelConfig } from '../src/models/shapes.ts';
import { shapeNamed } from '../src/models/shapes.ts';
import { findRunFolder } from '../src/runs/folder.ts';
import { processMb } from '../src/runs/memory.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { freshModel, midSizeLanguage, midSizeVision, writeConversations } from './stage/mid-size.ts';
import { busyCores, busyNote, median, round, thisMachine } from './statistics.ts';
import { gflops, type Product, productSide } from './train-step/products.ts';

const FOLDER = resolve('.cache/bench/large');
const INTERVAL = 500;

const clip = shapeNamed('clip-vit-large-patch14-336').config;

interface Size {
  language: ModelConfig;
  vision: ModelConfig;
  isPacked?: boolean;
}

/** By the names of the option; `mid` is for trying it out. */
const SIZES: Readonly<Record<string, Size>> = {
  mid: { language: midSizeLanguage, vision: midSizeVision },
  '2b': { language: shapeNamed('gemma-2b').config, vision: clip },
  '7b': { language: shapeNamed('gemma-7b').config, vision: clip, isPacked: true },
  '9b': { language: shapeNamed('gemma-2-9b').config, vision: clip, isPacked: true },
};

interface Options {
  size: string;
  stage1?: boolean;
  checkpointing?: boolean;
  steps: number;
  json?: boolean;
}

export function register(program: Command): void {
  program
    .command('large')
    .description('steps of a LLaVA-Gemma of real size: adapters of rank 64, or the connector alone')
    .addOption(new Option('--size <name>', 'of the language model; 7b and 9b in 4 bits').choices(Object.keys(SIZES)).default('2b'))
    .option('--stage1', 'train the connector alone')
    .option('--checkpointing', 'gradient_checkpointing: true')
    .option('--steps <n>', 'how many; the run is killed after half of them', parseCount, 10)
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .action(benchLarge);
}

/** Makes what is missing of the models; the folders of vision tower and language model. */
async function models(name: string, { language, vision, isPacked }: Size, log: (line: string) => void) {
  const stored = { dtype: 'bfloat16' as const };
  const tower = await freshModel(join(FOLDER, name === 'mid' ? 'vision-mid' : 'vision'), vision, undefined, log, stored);
  const packed = join(FOLDER, `${name}-int4`);
  if (isPacked && existsSync(packed)) return { vision_tower: tower, language_model: packed };
  const plain = await freshModel(join(FOLDER, name), language, 'assets/models/tiny-gemma', log, stored);
  if (!isPacked) return { vision_tower: tower, language_model: plain };
  log(`packing ${packed}`);
  await ended(start(['convert', plain, packed, '--quantize', 'int4']));
  rmSync(plain, { recursive: true });
  return { vision_tower: tower, language_model: packed };
}

const start = (words: readonly string[]): ChildProcess =>
  spawn(process.execPath, ['bin/llava-gemma.js', ...words], { stdio: ['ignore', 'ignore', 'inherit'] });

/** UserError where it fails otherwise than by `SIGKILL`. */
async function ended(child: ChildProcess): Promise<void> {
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((done) =>
    child.on('exit', (...how: [number | null, NodeJS.Signals | null]) => done(how)),
  );
  if (code !== 0 && signal !== 'SIGKILL') throw new UserError(`it ended with code ${code}${signal ? ` (${signal})` : ''}`);
}

const stepsOf = (out: string) => {
  const { metrics } = findRunFolder(out);
  return existsSync(metrics) ? readMetrics(metrics).flatMap((event) => (event.type === 'step' ? [event] : [])) : [];
};

/** The step of the checkpoint; 0 without one. */
function savedStep(out: string): number {
  const path = join(out, 'checkpoints', 'stage', 'trainer_state.json');
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as { step: number }).step : 0;
}

/**
 * Trains, and watches its memory; kills the process once `killAfter` steps are saved. Returns the peak in MB.
 */
async function trained(words: readonly string[], out: string, killAfter: number): Promise<number> {
  const child = start(words);
  let peak = 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, processMb('RssAnon', child.pid!) ?? 0);
    if (savedStep(out) >= killAfter) child.kill('SIGKILL');
  }, INTERVAL);
  await ended(child).finally(() => clearInterval(timer));
  return peak;
}

/** The largest of Gemma 2B. */
const PRODUCT: Product = { m: 674, k: 2048, n: 16384, transB: true };

async function productSpeed(): Promise<number> {
  const take = await productSide(PRODUCT, { threads: availableParallelism(), spin: false });
  return gflops(PRODUCT, median((await take(6)).slice(1)));
}

async function benchLarge({ size, stage1 = false, checkpointing = false, steps, json }: Options): Promise<void> {
  const log = json ? console.error : console.log;
  mkdirSync(FOLDER, { recursive: true });
  const model = await models(size, SIZES[size], log);
  const data = await writeConversations(FOLDER, Math.max(2, steps));
  const killAfter = Math.max(1, Math.floor(steps / 2));
  const stage = {
    name: 'stage',
    train: ['multi_modal_projector'],
    ...(stage1 ? { template: 'gemma' } : { lora: { rank: 64, alpha: 128, dropout: 0.05 } }),
    data,
    steps,
    batch_size: 1,
    gradient_checkpointing: checkpointing,
    save_every: killAfter,
    log_every: 1,
  };
  const recipe = join(FOLDER, `${size}.yaml`);
  writeFileSync(recipe, stringify({ task: 'llava', model, stages: [stage] }));
  const out = join(FOLDER, `run-${size}`);
  rmSync(out, { recursive: true, force: true });
  const product = await productSpeed();
  log(
    `${cpus()[0].model.trim()}, ${availableParallelism()} cores, ${(totalmem() / 1e9).toFixed(0)} GB; products of ${PRODUCT.m} x ${PRODUCT.k} x ${PRODUCT.n}: ${product.toFixed(0)} GFLOP/s`,
  );
  const before = await busyCores();
  const first = await trained(['train', recipe, '--out', out], out, killAfter);
  const saved = savedStep(out);
  const second = await trained(['train', '--resume', '--out', out], out, Number.POSITIVE_INFINITY);
  const { busy, note } = busyNote(before, await busyCores());
  const done = stepsOf(out);
  // the first of each sitting compiles, and reads the weights
  const times = done.slice(1).flatMap(({ seconds, step }, i) => (step === killAfter + 1 ? [] : [seconds - done[i].seconds]));
  const step = times.length > 0 ? median(times) : Number.NaN;
  const tokens = done.length > 0 ? (done.at(-1)!.tokensPerSecond * step).toFixed(0) : '-';
  log(`${done.length} steps, killed and gone on from step ${saved}: ${step.toFixed(1)} s a step of some ${tokens} tokens`);
  log(`anonymous memory at most ${(Math.max(first, second) / 1024).toFixed(2)} GiB`);
  if (note) log(note);
  if (json)
    console.log(
      JSON.stringify({
        benchmark: 'large',
        machine: { ...thisMachine(), busy_cores: busy, gflops: round(product, 0) },
        size,
        stage: stage1 ? 'connector' : 'adapters',
        checkpointing,
        steps: done.length,
        step_seconds: round(step, 2),
        anonymous_gib: round(Math.max(first, second) / 1024, 2),
      }),
    );
  if (done.length !== steps) throw new UserError(`it has ${done.length} steps in its log, not ${steps}`);
}
