// One training step (forward, backward, AdamW) of a Gemma-shaped language model against PyTorch: same sizes,
// weights, tokens and threads (train-step.json, peers/torch_train_step.py). The sides take turns in one run,
// so that a noisy machine hurts all alike, and the waiting one sleeps. Equal losses prove equal work.

import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { type Engine, float32, int32, type State, type Value } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { UserError } from '../src/errors.ts';
import { languageConfigSchema } from '../src/models/language.ts';
import { type LossGraph, languageModelLoss } from '../src/models/programs.ts';
import { trainStage } from '../src/train/stage.ts';
import { startTorch, type TorchServer, torchPython } from './peers/torch.ts';

interface Size {
  batch: number;
  tokens: number;
  config: { vocab_size: number; initializer_range: number };
}

interface Setup {
  optimizer: { lr: number; betas: [number, number]; eps: number; weight_decay: number };
  sizes: Record<string, Size>;
}

/**
 * Timed steps per turn. One more comes first and is not counted: it warms the caches again after the other
 * sides.
 */
const STEPS_PER_TURN: Record<string, number> = { small: 8, large: 2 };
/** Pause before a turn, in ms: threads of the previous side may spin for a moment before they sleep. */
const PAUSE = 100;

/** Steps in ms and the losses before each. */
interface Turn {
  ms: number[];
  losses: number[];
}

type Side = (steps: number) => Promise<Turn>;

export function register(program: Command): void {
  program
    .command('train-step')
    .description('forward, backward and AdamW of a 5 M and a 74 M Gemma, against PyTorch in fp32 and in bf16 autocast')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option('--torch <python>', 'a Python that has PyTorch (default: .venv/bin/python, else python3)')
    .option('--sizes <list>', 'which sizes', 'small,large')
    .option('--rounds <n>', 'turns of each side', parseCount, 6)
    .option('--threads <n>', 'threads of each side', parseCount, availableParallelism())
    .option('--spin', 'let our idle threads spin: for a machine on which nothing else runs')
    .action(benchTrainStep);
}

interface Options {
  json?: boolean;
  torch?: string;
  sizes: string;
  rounds: number;
  threads: number;
  spin?: boolean;
}

async function benchTrainStep({ json, torch, sizes, rounds, threads, spin = false }: Options): Promise<void> {
  const setup = JSON.parse(readFileSync('bench/train-step.json', 'utf8')) as Setup;
  const names = sizes.split(',');
  for (const name of names)
    if (!setup.sizes[name]) throw new UserError(`--sizes: no size "${name}"; there are ${Object.keys(setup.sizes).join(', ')}`);
  const log = json ? console.error : console.log;
  const server = await startTorch(torchPython(torch), 'bench/peers/torch_train_step.py', threads);
  try {
    const machine = {
      cpu: cpus()[0].model.trim(),
      cores: availableParallelism(),
      threads,
      spin,
      node: process.version,
      onnxruntime: packageVersion('onnxruntime-node'),
      torch: server.version,
    };
    log(`${machine.cpu}, ${threads} of ${machine.cores} cores; onnxruntime ${machine.onnxruntime}, torch ${machine.torch}\n`);
    const results: Record<string, SizeResult> = {};
    for (const name of names) {
      results[name] = await measure(name, setup, server, rounds, createOrtEngine({ threads, spin }));
      log(describe(name, setup.sizes[name], results[name]));
    }
    if (json) console.log(JSON.stringify({ benchmark: 'train-step', machine, rounds, sizes: results }));
  } finally {
    server.stop();
  }
}

interface SizeResult {
  parameters: number;
  tokensPerStep: number;
  ours_ms: number;
  torch_fp32_ms: number;
  torch_bf16_ms: number;
  /** PyTorch's time over ours: above 1, ours is faster. */
  ratio_vs_torch_fp32: number;
  ratio_vs_torch_bf16: number;
  /** Losses of the first step, before any update, and how far ours is from PyTorch's fp32. */
  loss: { ours: number; torch_fp32: number; torch_bf16: number; relative_difference: number };
}

/** Largest relative difference of the initial losses that two fp32 implementations of one model may have. */
const LOSS_TOLERANCE = 1e-5;

async function measure(name: string, setup: Setup, server: TorchServer, rounds: number, engine: Engine): Promise<SizeResult> {
  const size = setup.sizes[name];
  const steps = 1 + (STEPS_PER_TURN[name] ?? 2);
  const loss = languageModelLoss(languageConfigSchema.parse(size.config));
  const parameters = loss.parameters.reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
  const torch = (precision: string): Side => {
    return async (steps) => {
      const turn = await server.request<Turn & { parameters: number }>({ size: name, precision, steps });
      if (turn.parameters !== parameters) throw new Error(`PyTorch has ${turn.parameters} parameters, ours has ${parameters}`);
      return turn;
    };
  };
  const sides: Record<string, Side> = {
    ours: ourSide(engine, loss, size, setup.optimizer, 1 + rounds * steps),
    fp32: torch('fp32'),
    bf16: torch('bf16'),
  };
  const initial: Record<string, number> = {};
  for (const [side, take] of Object.entries(sides)) initial[side] = (await take(1)).losses[0];
  const times: Record<string, number[]> = { ours: [], fp32: [], bf16: [] };
  for (let round = 0; round < rounds; round++)
    for (const [side, take] of Object.entries(sides)) {
      await sleep(PAUSE);
      times[side].push(...(await take(steps)).ms.slice(1));
    }

  const difference = Math.abs(initial.ours - initial.fp32) / initial.fp32;
  if (!(difference < LOSS_TOLERANCE))
    throw new Error(`${name}: the initial losses differ, ours ${initial.ours}, PyTorch ${initial.fp32}: the sides do not do the same work`);
  const [ours, fp32, bf16] = [median(times.ours), median(times.fp32), median(times.bf16)];
  return {
    parameters,
    tokensPerStep: size.batch * size.tokens,
    ours_ms: round(ours, 2),
    torch_fp32_ms: round(fp32, 2),
    torch_bf16_ms: round(bf16, 2),
    ratio_vs_torch_fp32: round(fp32 / ours, 3),
    ratio_vs_torch_bf16: round(bf16 / ours, 3),
    loss: { ours: initial.ours, torch_fp32: initial.fp32, torch_bf16: initial.bf16, relative_difference: difference },
  };
}

function describe(name: string, size: Size, result: SizeResult): string {
  const line = (label: string, ms: number, loss: number, ratio?: number) => {
    const speed = `${Math.round((result.tokensPerStep / ms) * 1000).toLocaleString('en')} tokens/s`;
    const faster = ratio === undefined ? '' : `ours is ${ratio.toFixed(2)} x as fast`;
    return `  ${label.padEnd(12)} ${ms.toFixed(1).padStart(8)} ms ${speed.padStart(17)}   first loss ${loss.toFixed(5)}   ${faster}`.trimEnd();
  };
  const { loss } = result;
  return [
    `${name}: ${(result.parameters / 1e6).toFixed(1)} M parameters, ${size.batch} x ${size.tokens} tokens a step (medians)`,
    line('llava-gemma', result.ours_ms, loss.ours),
    line('torch fp32', result.torch_fp32_ms, loss.torch_fp32, result.ratio_vs_torch_fp32),
    line('torch bf16', result.torch_bf16_ms, loss.torch_bf16, result.ratio_vs_torch_bf16),
    `  the first losses in fp32 agree to ${loss.relative_difference.toExponential(1)}\n`,
  ].join('\n');
}

// === Our side ===

/**
 * `trainStage` itself, which waits for the data of each step until a turn asks for it: the time of a step
 * runs from handing over the batch to the updated parameters. Fails if the stage fails; `totalSteps` is what
 * all turns together will ask for.
 */
function ourSide(engine: Engine, loss: LossGraph, size: Size, optimizer: Setup['optimizer'], totalSteps: number): Side {
  const inputs = batchInputs(size);
  const batch = { inputs, weight: inputs.labels.data.length, tokens: size.batch * size.tokens };
  let start = () => {};
  let asked = Promise.resolve();
  let begin = 0;
  const hold = () => {
    asked = new Promise<void>((resolve) => {
      start = resolve;
    });
  };
  hold();
  let finish = (_step: { ms: number; loss: number }) => {};
  const training = trainStage({
    engine,
    loss,
    trained: drawWeights(engine, loss, size.config.initializer_range),
    constants: new Map(),
    learningRate: () => optimizer.lr,
    schedule: { kind: 'constant', totalSteps, warmupSteps: 0, floor: 0 },
    optimizer: { betas: optimizer.betas, eps: optimizer.eps, weightDecay: optimizer.weight_decay, maxGradNorm: 0 },
    data: {
      stepsPerEpoch: totalSteps,
      async *batches() {
        await asked;
        begin = performance.now();
        yield batch;
      },
    },
    onStep({ loss }) {
      const ms = performance.now() - begin;
      hold();
      finish({ ms, loss });
    },
  });
  // a failure is reported to whoever asks for the next step
  const failure = training.then(() => new Promise<never>(() => {}));
  failure.catch(() => {});
  return async (steps) => {
    const turn: Turn = { ms: [], losses: [] };
    for (let i = 0; i < steps; i++) {
      const step = new Promise<{ ms: number; loss: number }>((resolve) => {
        finish = resolve;
      });
      start();
      const { ms, loss } = await Promise.race([step, failure]);
      turn.ms.push(ms);
      turn.losses.push(loss);
    }
    return turn;
  };
}

/**
 * Number `index` of the benchmark's stream of uint32: the 32-bit finalizer of MurmurHash3, like `draw` on the
 * PyTorch side.
 */
function draw(index: number): number {
  let x = index | 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  x ^= x >>> 16;
  return x >>> 0;
}

/**
 * One draw per element over the parameters sorted by name, uniform with the given standard deviation; norm
 * weights are 0 and draw none.
 */
function drawWeights(engine: Engine, loss: LossGraph, std: number): Map<string, State> {
  const values = new Map<string, State>();
  let index = 0;
  for (const { name, dims } of [...loss.parameters].sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const array = new Float32Array(dims.reduce((a, b) => a * b, 1));
    if (dims.length > 1) for (let i = 0; i < array.length; i++) array[i] = (draw(index++) / 2 ** 32 - 0.5) * (std * Math.sqrt(12));
    values.set(name, engine.state(float32(array, dims)));
  }
  return values;
}

/** Rows of drawn tokens; token t predicts t + 1, the last one of a row predicts nothing. */
function batchInputs({ batch, tokens, config }: Size): Record<string, Value> {
  const count = batch * tokens;
  const inputIds = Int32Array.from({ length: count }, (_, i) => draw(2 ** 31 + i) % config.vocab_size);
  const labelRows = Array.from({ length: count }, (_, i) => i).filter((i) => i % tokens !== tokens - 1);
  return {
    input_ids: int32(inputIds, [batch, tokens]),
    position_ids: int32(
      Array.from({ length: count }, (_, i) => i % tokens),
      [batch, tokens],
    ),
    sample_ids: int32(new Int32Array(count).fill(1), [batch, tokens]),
    branch_ids: int32(new Int32Array(count).fill(1), [batch, tokens]),
    label_rows: int32(labelRows, [labelRows.length]),
    labels: int32(
      labelRows.map((i) => inputIds[i + 1]),
      [labelRows.length],
    ),
  };
}

// === Helpers ===

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const round = (value: number, digits: number) => Number(value.toFixed(digits));

function packageVersion(name: string): string {
  return (JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')) as { version: string }).version;
}
