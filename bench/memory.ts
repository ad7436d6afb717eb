// What a training run takes: two stages of LLaVA on a CLIP ViT-B/16 and a Gemma of 253 M parameters, of which
// 197 M are an embedding of 256,000 words. The run is `llava-gemma train` itself, in a process of its own;
// its peak is the one that it writes into summary.json.

import { spawn } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { Command } from 'commander';
import { stringify } from 'yaml';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import { modelParameters } from '../src/models/model-parameters.ts';
import type { ModelConfig } from '../src/models/shapes.ts';
import { findRunFolder, readSummary } from '../src/runs/folder.ts';
import { processMb } from '../src/runs/memory.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { elementCount } from '../src/weights/safetensors.ts';
import { freshModel, midSizeLanguage, midSizeVision, writeConversations } from './stage/mid-size.ts';

const FOLDER = resolve('.cache/bench/memory');

interface Options {
  batch: number;
  steps: number;
  json?: boolean;
}

export function register(program: Command): void {
  program
    .command('memory')
    .description('peak memory of a run of two stages: CLIP ViT-B/16 and a Gemma of 253 M with 256,000 words')
    .option('--batch <n>', 'samples in a batch, of one picture and 233 to 297 tokens each', parseCount, 8)
    .option('--steps <n>', 'steps of each stage', parseCount, 2)
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .action(benchMemory);
}

async function benchMemory({ batch, steps, json }: Options): Promise<void> {
  const log = json ? console.error : console.log;
  const recipe = await writeRun(batch, steps, log);
  const { stages, peakRssMb } = await train(recipe);
  const lines = stages.map(
    ({ name, peak, stepSeconds }) =>
      `${name.padEnd(9)} a step ${stepSeconds.toFixed(1)} s${peak ? `, peak ${megabytes(peak.resident)}, ${megabytes(peak.files)} of it mapped files` : ''}`,
  );
  const trained = parameterCount(midSizeLanguage);
  log(`${lines.join('\n')}\n`);
  for (const [part, copies] of Object.entries({ values: 1, 'sums of gradients': 1, moments: 2 }))
    log(`${part.padEnd(17)} ${megabytes(4 * trained * copies)}`);
  log(`peak of the run   ${Math.round(peakRssMb)} MB`);
  if (json) console.log(JSON.stringify({ benchmark: 'memory', batch, steps, trained_parameters: trained, peak_rss_mb: peakRssMb, stages }));
}

const megabytes = (bytes: number) => `${Math.round(bytes / 2 ** 20)} MB`;
const parameterCount = (config: ModelConfig) => modelParameters(config).reduce((sum, { dims }) => sum + elementCount(dims), 0);

// === What is run ===

/** Makes what is missing of folders and data, and writes the recipe; returns its path. */
async function writeRun(batch: number, steps: number, log: (line: string) => void): Promise<string> {
  const model = {
    vision_tower: await freshModel(join(FOLDER, 'clip-vit-base-patch16'), midSizeVision, undefined, log),
    language_model: await freshModel(join(FOLDER, 'gemma-253m'), midSizeLanguage, 'assets/models/tiny-gemma', log),
  };
  const data = await writeConversations(FOLDER, 2 * batch * steps);
  const stage = { data, steps, batch_size: batch, lr: 1e-4, log_every: 1 };
  const recipe = {
    task: 'llava',
    model,
    stages: [
      { name: 'pretrain', train: ['multi_modal_projector'], ...stage },
      { name: 'finetune', train: ['multi_modal_projector', 'language_model'], ...stage },
    ],
  };
  const path = join(FOLDER, 'recipe.yaml');
  await writeFile(path, stringify(recipe));
  return path;
}

// === The run ===

interface Resident {
  /** Bytes in RAM. */
  resident: number;
  /** Those of mapped files among them. */
  files: number;
}

interface StageMemory {
  name: string;
  /** Where the system tells: on Linux. */
  peak?: Resident;
  /** Of the last step. */
  stepSeconds: number;
}

/** Memory of a process; undefined where there is no /proc. */
function residentOf(pid: number): Resident | undefined {
  const [resident, files] = [processMb('VmRSS', pid), processMb('RssFile', pid)];
  return resident === undefined ? undefined : { resident: resident * 2 ** 20, files: (files ?? 0) * 2 ** 20 };
}

const INTERVAL = 50;

/** Trains in a process of its own, whose memory is looked at every 50 ms. */
async function train(recipe: string): Promise<{ stages: StageMemory[]; peakRssMb: number }> {
  const out = join(FOLDER, 'run');
  const command = ['bin/llava-gemma.js', 'train', recipe, '--out', out, '--overwrite'];
  const child = spawn(process.execPath, command, { stdio: ['ignore', 'ignore', 'inherit'] });
  const seen: (Resident & { time: number })[] = [];
  const timer = setInterval(() => {
    const resident = residentOf(child.pid!);
    if (resident) seen.push({ ...resident, time: Date.now() / 1000 });
  }, INTERVAL);
  const code = await new Promise((resolve) => child.on('exit', resolve));
  clearInterval(timer);
  if (code !== 0) throw new UserError(`the run ended with code ${code}`);
  const folder = findRunFolder(out);
  const events = readMetrics(folder.metrics);
  let since = 0;
  const stages = events
    .filter(({ type }) => type === 'stage')
    .map(({ stage: name, time: until }): StageMemory => {
      const within = seen.filter(({ time }) => time > since && time <= until);
      const peak = within.length > 0 ? within.reduce((a, b) => (b.resident > a.resident ? b : a)) : undefined;
      const steps = events.filter((event) => event.type === 'step' && event.stage === name);
      const [before, last] = steps.slice(-2).map(({ time }) => time);
      since = until;
      return { name, peak: peak && { resident: peak.resident, files: peak.files }, stepSeconds: last - before };
    });
  return { stages, peakRssMb: readSummary(folder).peakRssMb };
}
