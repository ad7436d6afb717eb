// One training step (forward, backward, AdamW) of a Gemma-shaped language model against PyTorch: same sizes,
// weights, tokens and threads (train-step.json, peers/torch_train_step.py). The sides take turns in one run,
// so that a noisy machine hurts all alike, and the one that waits sleeps. Equal losses prove equal work.
// Beside the steps, both sides' products alone are measured.

import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { int32 } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { UserError } from '../src/errors.ts';
import { languageConfigSchema } from '../src/models/language.ts';
import { type LossGraph, languageModelLoss } from '../src/models/programs.ts';
import { trainStage } from '../src/train/stage.ts';
import { startTorch, type TorchServer, torchPython } from './peers/torch.ts';
import { busyCores, busyNote, median, PAUSE, round } from './statistics.ts';
import {
  batchRows,
  drawWeights,
  heldStage,
  readSetup,
  rowDims,
  type Setup,
  type Side,
  type Size,
  STEPS_PER_TURN,
  type Turn,
} from './train-step/held-stage.ts';
import { describeProduct, LARGE_PRODUCT, type Product, type ProductTurns, productTurns } from './train-step/products.ts';

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
  const setup = readSetup();
  const names = sizes.split(',');
  for (const name of names)
    if (!setup.sizes[name]) throw new UserError(`--sizes: no size "${name}"; there are ${Object.keys(setup.sizes).join(', ')}`);
  const log = json ? console.error : console.log;
  const server = await startTorch(torchPython(torch), 'bench/peers/torch_train_step.py', threads);
  try {
    const versions = { node: process.version, onnxruntime: packageVersion('onnxruntime-node'), torch: server.version };
    const machine = { cpu: cpus()[0].model.trim(), cores: availableParallelism(), threads, spin, ...versions };
    log(`${machine.cpu}, ${threads} of ${machine.cores} cores; onnxruntime ${machine.onnxruntime}, torch ${machine.torch}\n`);
    const before = await busyCores();
    const results: Record<string, SizeResult> = {};
    const large = await productTurns(LARGE_PRODUCT, server, { threads, spin });
    for (const name of names) {
      results[name] = await measure(name, setup, server, { rounds, threads, spin }, large);
      log(describe(name, setup.sizes[name], results[name]));
    }
    const products = productResult(LARGE_PRODUCT, large);
    log(`products alone, in the same turns:\n${describeProducts(products)}`);
    const { busy, note } = busyNote(before, await busyCores());
    if (note) log(`\n${note}`);
    if (json)
      console.log(JSON.stringify({ benchmark: 'train-step', machine: { ...machine, busy_cores: busy, products }, rounds, sizes: results }));
  } finally {
    server.stop();
  }
}

// === Products ===

/** Medians of float32 products by our engine and of products by PyTorch in both precisions. */
interface ProductResult extends Product {
  ours_fp32_gflops: number;
  torch_fp32_gflops: number;
  torch_bf16_gflops: number;
}

function productResult(product: Product, turns: ProductTurns): ProductResult {
  const { ours_fp32, torch_fp32, torch_bf16 } = turns.speeds();
  return { ...product, ours_fp32_gflops: ours_fp32, torch_fp32_gflops: torch_fp32, torch_bf16_gflops: torch_bf16! };
}

function describeProducts(result: ProductResult): string {
  const { ours_fp32_gflops: ours, torch_fp32_gflops: fp32, torch_bf16_gflops: bf16 } = result;
  const speeds = `ours ${ours.toFixed(0)} GFLOP/s, torch fp32 ${fp32.toFixed(0)}, torch bf16 ${bf16.toFixed(0)}`;
  return `  ${describeProduct(result)}: ${speeds}: ours are ${(ours / fp32).toFixed(2)} and ${(ours / bf16).toFixed(2)} x as fast`;
}

// === Steps ===

interface SizeResult {
  parameters: number;
  tokensPerStep: number;
  ours_ms: number;
  torch_fp32_ms: number;
  torch_bf16_ms: number;
  /** PyTorch's time over ours: above 1, ours is faster. */
  ratio_vs_torch_fp32: number;
  ratio_vs_torch_bf16: number;
  /**
   * CPU time of a step over all threads: other processes do not take part in it, but threads that spin while
   * they wait do.
   */
  cpu_ms: { ours: number; torch_fp32: number; torch_bf16: number };
  /** The product of the step's own widest layer. */
  products: ProductResult;
  /** Losses of the very first step, before any update, and how far ours is from PyTorch's fp32. */
  loss: { ours: number; torch_fp32: number; torch_bf16: number; relative_difference: number };
}

/** Largest relative difference of the initial losses that two fp32 implementations of one model may have. */
const LOSS_TOLERANCE = 1e-5;

async function measure(
  name: string,
  setup: Setup,
  server: TorchServer,
  { rounds, ...options }: { rounds: number; threads: number; spin: boolean },
  large: ProductTurns,
): Promise<SizeResult> {
  const size = setup.sizes[name];
  const { hidden_size: hidden, intermediate_size: inner } = size.config;
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
  const sides = {
    ours: ourSide(loss, size, setup.optimizer, { ...options, totalSteps: 1 + rounds * steps }),
    torch_fp32: torch('fp32'),
    torch_bf16: torch('bf16'),
  };
  const widest = { m: size.batch * size.tokens, k: hidden, n: inner, transB: true };
  const own = await productTurns(widest, server, options);
  const forEach = <T>(of: (side: keyof typeof sides) => T) => ({
    ours: of('ours'),
    torch_fp32: of('torch_fp32'),
    torch_bf16: of('torch_bf16'),
  });
  const initial = forEach(() => 0);
  for (const [side, take] of Object.entries(sides)) initial[side as keyof typeof sides] = (await take(1)).losses[0];
  const times = forEach((): { ms: number[]; cpu: number[] } => ({ ms: [], cpu: [] }));
  for (let round = 0; round < rounds; round++) {
    await large.take();
    await own.take();
    for (const [side, take] of Object.entries(sides)) {
      await sleep(PAUSE);
      const turn = await take(steps);
      times[side as keyof typeof sides].ms.push(...turn.ms.slice(1));
      times[side as keyof typeof sides].cpu.push(...turn.cpu_ms.slice(1));
    }
  }

  const difference = Math.abs(initial.ours - initial.torch_fp32) / initial.torch_fp32;
  if (!(difference < LOSS_TOLERANCE))
    throw new Error(
      `${name}: the initial losses differ, ours ${initial.ours}, PyTorch ${initial.torch_fp32}: the sides do not do the same work`,
    );
  const ms = forEach((side) => median(times[side].ms));
  return {
    parameters,
    tokensPerStep: size.batch * size.tokens,
    ours_ms: round(ms.ours, 2),
    torch_fp32_ms: round(ms.torch_fp32, 2),
    torch_bf16_ms: round(ms.torch_bf16, 2),
    ratio_vs_torch_fp32: round(ms.torch_fp32 / ms.ours, 3),
    ratio_vs_torch_bf16: round(ms.torch_bf16 / ms.ours, 3),
    cpu_ms: forEach((side) => round(median(times[side].cpu), 2)),
    products: productResult(widest, own),
    loss: { ...initial, relative_difference: difference },
  };
}

function describe(name: string, size: Size, result: SizeResult): string {
  const line = (label: string, ms: number, cpu: number, loss: number, ratio?: number) => {
    const speed = `${Math.round((result.tokensPerStep / ms) * 1000).toLocaleString('en')} tokens/s`;
    const faster = ratio === undefined ? '' : `ours is ${ratio.toFixed(2)} x as fast`;
    const times = `${ms.toFixed(1).padStart(8)} ms ${`(CPU ${cpu.toFixed(0)} ms)`.padStart(14)}`;
    return `  ${label.padEnd(12)} ${times} ${speed.padStart(17)}   first loss ${loss.toFixed(5)}   ${faster}`.trimEnd();
  };
  const { loss, cpu_ms: cpu } = result;
  return [
    `${name}: ${(result.parameters / 1e6).toFixed(1)} M parameters, ${size.batch} x ${size.tokens} tokens a step (medians)`,
    line('llava-gemma', result.ours_ms, cpu.ours, loss.ours),
    line('torch fp32', result.torch_fp32_ms, cpu.torch_fp32, loss.torch_fp32, result.ratio_vs_torch_fp32),
    line('torch bf16', result.torch_bf16_ms, cpu.torch_bf16, loss.torch_bf16, result.ratio_vs_torch_bf16),
    `  the first losses in fp32 agree to ${loss.relative_difference.toExponential(1)}`,
    `${describeProducts(result.products)}\n`,
  ].join('\n');
}

// === Our side ===

/** `trainStage` itself; `totalSteps` is what all turns together will ask for. */
function ourSide(
  loss: LossGraph,
  size: Size,
  optimizer: Setup['optimizer'],
  { totalSteps, threads, spin }: { totalSteps: number; threads: number; spin: boolean },
): Side {
  const engine = createOrtEngine({ threads, spin });
  const rows = batchRows(size);
  const inputs = Object.fromEntries(Object.entries(rows).map(([name, data]) => [name, int32(data, rowDims(name, data, size))]));
  const batch = { inputs, weight: rows.labels.length, tokens: size.batch * size.tokens };
  const weights = drawWeights(loss.parameters, size.config.initializer_range);
  return heldStage((hold) =>
    trainStage({
      engine,
      loss,
      trained: new Map(weights.map(({ name, dims, data }) => [name, engine.state({ dtype: 'float32', dims: [...dims], data })])),
      constants: new Map(),
      learningRate: () => optimizer.lr,
      schedule: { kind: 'constant', totalSteps, warmupSteps: 0, floor: 0 },
      optimizer: { betas: optimizer.betas, eps: optimizer.eps, weightDecay: optimizer.weight_decay, maxGradNorm: 0 },
      data: {
        stepsPerEpoch: totalSteps,
        async *batches() {
          await hold.asked();
          yield batch;
        },
      },
      onStep: ({ loss }) => hold.done(loss),
    }),
  );
}

function packageVersion(name: string): string {
  return (JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8')) as { version: string }).version;
}
