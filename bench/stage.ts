// One step of each stage of the recipe, end to end from files on disk, against a loop of PyTorch and Hugging
// Face transformers (and peft) that is written as LLaVA's scripts train (peers/torch_stage.py): the mid-size
// model, the same weights and samples. Each side is a process a stage, so that its peak memory is its own;
// they take turns. Equal first losses prove equal work. What each cause is worth is measured on PyTorch's
// side, with that one thing changed.

import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { stringify } from 'yaml';
import { readTokenizerFiles } from '../src/checkpoint/tokenizer-files.ts';
import { parseCount } from '../src/cli/options.ts';
import { conversationBatches } from '../src/data/conversations.ts';
import { indexData, openData } from '../src/data/data-set.ts';
import { UserError } from '../src/errors.ts';
import { createTokenizer } from '../src/text/tokenizer.ts';
import { startServer } from './peers/server.ts';
import { startTorch, torchPython } from './peers/torch.ts';
import { freshModel, midSizeLanguage, midSizeVision, writeConversations } from './stage/mid-size.ts';
import type { Greeting, StageTurn } from './stage/side.ts';
import { busyCores, busyNote, median, PAUSE, round, thisMachine } from './statistics.ts';
import { LARGE_PRODUCT, type ProductTurns, productTurns } from './train-step/products.ts';

const FOLDER = resolve('.cache/bench/stage');

/** Rows of a picture: CLIP ViT-B/16 at 224 x 224. */
const IMAGE_TOKENS = 196;

/** Samples on disk. */
const SAMPLES = 64;

/** Steps of a turn, after one that is left out. */
const TIMED = 2;

const stages = {
  stage1: { train: ['multi_modal_projector'] },
  stage2: { train: ['multi_modal_projector', 'language_model'] },
  stage2_lora: { train: ['multi_modal_projector'], lora: { rank: 64, alpha: 128, dropout: 0 } },
} as const;
type StageName = keyof typeof stages;

/** What is changed on PyTorch's side, and whether that spares time or costs some. */
const causes = { cached_features: -1, label_logits: -1, no_padding: -1, all_gradients: 1 } as const;
type Cause = keyof typeof causes;

interface Options {
  json?: boolean;
  torch?: string;
  stages: string;
  rounds: number;
  batch: number;
  causes: boolean;
  bf16: boolean;
}

export function register(program: Command): void {
  program
    .command('stage')
    .description('a step of each stage from files on disk, and its memory, against transformers and PyTorch')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option('--torch <python>', 'a Python that has PyTorch, transformers, peft and pillow (default: .venv/bin/python, else python3)')
    .option('--stages <list>', 'which stages', 'stage1,stage2')
    .option('--rounds <n>', 'turns of each side', parseCount, 3)
    .option('--batch <n>', 'samples in a batch, of one picture and 233 to 297 tokens each', parseCount, 8)
    .option('--no-bf16', 'leave out PyTorch in bf16: a CPU without instructions for it takes minutes a step')
    .option('--no-causes', "leave out what single causes are worth on PyTorch's side")
    .action(benchStage);
}

async function benchStage(options: Options): Promise<void> {
  const log = options.json ? console.error : console.log;
  const python = torchPython(options.torch);
  const names = options.stages.split(',') as StageName[];
  for (const name of names)
    if (!stages[name]) throw new UserError(`--stages: no stage "${name}"; there are ${Object.keys(stages).join(', ')}`);
  const files = await makeFiles(log);
  const before = await busyCores();
  log(`${cpus()[0].model.trim()}, ${availableParallelism()} cores\n`);
  const results: Record<string, StageResult> = {};
  for (const name of names) {
    results[name] = await measure(name, files, python, options);
    log(describe(name, results[name]));
  }
  const { busy, note } = busyNote(before, await busyCores());
  if (note) log(note);
  if (!options.json) return;
  const machine = { ...thisMachine(), busy_cores: busy };
  const figures = Object.entries(results).flatMap(([name, { ratios }]) =>
    Object.entries(ratios).map(([ratio, value]) => [
      ratio.startsWith('memory') ? `memory_${name}_${ratio.slice(7)}` : `${name}_${ratio}`,
      value,
    ]),
  );
  console.log(JSON.stringify({ benchmark: 'stage', machine, batch: options.batch, ...Object.fromEntries(figures), stages: results }));
}

// === Files ===

interface Files {
  model: string;
  data: { data_path: string; image_folder: string };
}

async function makeFiles(log: (line: string) => void): Promise<Files> {
  const config = {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    vision_config: midSizeVision,
    text_config: midSizeLanguage,
    // `<image>` of the tokenizer
    image_token_index: 6,
    image_seq_length: IMAGE_TOKENS,
    mm_projector_type: 'mlp2x_gelu',
    multimodal_projector_bias: true,
    projector_hidden_act: 'gelu',
    // as transformers 5 computes
    scale_image_features: false,
    tie_word_embeddings: true,
    vision_feature_layer: -2,
    vision_feature_select_strategy: 'default',
  };
  const tokenizer = 'assets/models/tiny-gemma';
  config.image_token_index = (await tokenizerIn(tokenizer)).imageTokenId;
  const model = await freshModel(join(FOLDER, 'llava-253m'), config, tokenizer, log);
  return { model, data: await writeConversations(FOLDER, SAMPLES) };
}

async function tokenizerIn(folder: string) {
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(folder);
  return createTokenizer(tokenizerJson, tokenizerConfig);
}

/** Samples of each step, in the order in which a run takes them. */
async function orderOf(name: StageName, { model, data }: Files, { batch, steps }: { batch: number; steps: number }): Promise<string[][]> {
  const opened = openData(await indexData([{ path: data.data_path, imageFolder: data.image_folder, share: 1 }]));
  try {
    const tokenizer = await tokenizerIn(model);
    const rules = { tokenizer, imageTokens: IMAGE_TOKENS, template: 'gemma' as const, maxLength: 2048 };
    const batches = conversationBatches({ data: opened, ...rules, batchSize: batch, seed: 42, stage: name });
    return Array.from({ length: steps }, (_, step) => batches.batch(step).map(({ id }) => id));
  } finally {
    opened.close();
  }
}

// === A stage ===

interface SideResult {
  /** Medians of a step. */
  ms: number;
  cpu_ms: number;
  /** Most that its process held in a turn. */
  peak_mb: number;
  first_loss: number;
}

interface StageResult {
  /** `ms` has the frozen encoder in it, counted once a picture. */
  ours: SideResult & { encode_ms: number; peak_without_files_mb: number };
  torch_fp32: SideResult;
  torch_bf16?: SideResult;
  /** PyTorch over ours for times, ours over PyTorch's for memory. */
  ratios: { vs_torch_fp32: number; vs_torch_bf16?: number; memory_vs_torch_fp32: number; memory_vs_torch_bf16?: number };
  /** Share of a float32 step of PyTorch that each cause spares, or would cost. */
  causes?: Record<Cause, number>;
  /** GFLOP/s of a large product on each side, in the same turns. */
  products: ReturnType<ProductTurns['speeds']>;
}

/** Largest relative difference of the first losses. */
const LOSS_TOLERANCE = 1e-4;

async function measure(
  name: StageName,
  files: Files,
  python: string,
  { rounds, batch, bf16, causes: asksCauses }: Options,
): Promise<StageResult> {
  const steps = 1 + rounds * (1 + TIMED);
  const settings = { weight_decay: 0, lr: 1e-4 };
  const dir = join(FOLDER, name);
  mkdirSync(dir, { recursive: true });
  const stage = { name, ...stages[name], ...settings, template: 'gemma', data: files.data, steps, batch_size: batch, log_every: 1 };
  const recipe = { task: 'llava', seed: 42, model: { llava: files.model }, stages: [{ ...stage, save_every_minutes: 0 }] };
  writeFileSync(join(dir, 'recipe.yaml'), stringify(recipe));
  const order = await orderOf(name, files, { batch, steps });
  const setup = { ...stages[name], ...settings, ...files.data, model: files.model, image_tokens: IMAGE_TOKENS, steps: order };
  writeFileSync(join(dir, 'setup.json'), JSON.stringify(setup));

  const threads = availableParallelism();
  const torch = await startTorch(python, 'bench/peers/torch_stage.py', threads, ['--setup', join(dir, 'setup.json')]);
  const script = fileURLToPath(new URL('stage/side.js', import.meta.url));
  // features are cached where it runs: anew each time
  const cwd = join(dir, 'cold');
  const ours = startServer('llava-gemma', process.execPath, [script, join(dir, 'recipe.yaml'), join(dir, 'run')], { apart: true, cwd });
  try {
    const { encodeSeconds } = await ours.greeting<Greeting>();
    const askTorch = (precision: string, variant = 'plain') => {
      return (steps: number) => torch.request<StageTurn>({ precision, variant, steps });
    };
    const sides: Record<string, Meter> = {
      ours: meter((steps) => ours.request<StageTurn>({ steps })),
      fp32: meter(askTorch('fp32')),
      ...(bf16 ? { bf16: meter(askTorch('bf16')) } : {}),
    };
    const products = await productTurns(LARGE_PRODUCT, torch, { threads, spin: false, bf16 });
    for (const { take } of Object.values(sides)) await take(1);
    for (let i = 0; i < rounds; i++) {
      await products.take();
      for (const { take } of Object.values(sides)) {
        await sleep(PAUSE);
        await take(1 + TIMED);
      }
    }
    const result = Object.fromEntries(Object.entries(sides).map(([side, { result }]) => [side, result()])) as Record<string, MeterResult>;
    const difference = Math.abs(result.ours.first_loss / result.fp32.first_loss - 1);
    if (!(difference < LOSS_TOLERANCE))
      throw new Error(`${name}: the first losses differ, ours ${result.ours.first_loss}, PyTorch ${result.fp32.first_loss}`);
    const encode = (encodeSeconds * 1000 * batch) / SAMPLES;
    const whole = { ...result.ours, ms: result.ours.ms + encode, encode_ms: encode };
    return {
      ours: rounded(whole),
      torch_fp32: rounded(result.fp32),
      ...(bf16 ? { torch_bf16: rounded(result.bf16) } : {}),
      ratios: {
        vs_torch_fp32: round(result.fp32.ms / whole.ms, 3),
        ...(bf16 ? { vs_torch_bf16: round(result.bf16.ms / whole.ms, 3) } : {}),
        memory_vs_torch_fp32: round(whole.peak_mb / result.fp32.peak_mb, 3),
        ...(bf16 ? { memory_vs_torch_bf16: round(whole.peak_mb / result.bf16.peak_mb, 3) } : {}),
      },
      ...(asksCauses ? { causes: await causesOf(askTorch, rounds) } : {}),
      products: products.speeds(),
    };
  } finally {
    ours.stop();
    torch.stop();
  }
}

const rounded = <T extends object>(result: T): T =>
  Object.fromEntries(Object.entries(result).map(([key, value]) => [key, key === 'first_loss' ? value : round(value as number, 1)])) as T;

type Take = (steps: number) => Promise<StageTurn>;
type MeterResult = SideResult & { peak_without_files_mb: number };

interface Meter {
  take(steps: number): Promise<void>;
  result(): MeterResult;
}

/** Collects the turns of a side; the first step of each is left out of the times. */
function meter(ask: Take): Meter {
  const [ms, cpu]: number[][] = [[], []];
  let [peak, apart, first] = [0, 0, Number.NaN];
  return {
    async take(steps) {
      const turn = await ask(steps);
      if (Number.isNaN(first)) first = turn.losses[0];
      ms.push(...turn.ms.slice(1));
      cpu.push(...turn.cpu_ms.slice(1));
      peak = Math.max(peak, turn.peak_mb);
      apart = Math.max(apart, turn.peak_mb - (turn.mapped_mb ?? 0));
    },
    result: () => ({ ms: median(ms), cpu_ms: median(cpu), peak_mb: peak, peak_without_files_mb: apart, first_loss: first }),
  };
}

async function causesOf(ask: (precision: string, variant?: string) => Take, rounds: number): Promise<Record<Cause, number>> {
  const variants = ['plain', ...Object.keys(causes)];
  const meters = new Map(variants.map((variant) => [variant, meter(ask('fp32', variant))]));
  for (let i = 0; i < rounds; i++) for (const { take } of meters.values()) await take(1 + TIMED);
  const plain = meters.get('plain')!.result().ms;
  const share = ([cause, sign]: [string, number]) => [cause, round((sign * (meters.get(cause)!.result().ms - plain)) / plain, 3)];
  return Object.fromEntries(Object.entries(causes).map(share)) as Record<Cause, number>;
}

function describe(name: string, { ours, torch_fp32: fp32, torch_bf16: bf16, ratios, causes, products }: StageResult): string {
  const line = (label: string, { ms, cpu_ms, peak_mb, first_loss }: SideResult, ratio?: number) =>
    `  ${label.padEnd(12)} ${(ms / 1000).toFixed(2).padStart(7)} s a step (CPU ${(cpu_ms / 1000).toFixed(1)} s)  peak ${peak_mb.toFixed(0).padStart(6)} MB  first loss ${first_loss.toFixed(5)}${ratio === undefined ? '' : `  ours is ${ratio.toFixed(2)} x as fast`}`;
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  return [
    `${name}:`,
    line('llava-gemma', ours),
    `               ${(ours.encode_ms / 1000).toFixed(2)} s of it are the frozen encoder, once a picture`,
    line('torch fp32', fp32, ratios.vs_torch_fp32),
    ...(bf16 ? [line('torch bf16', bf16, ratios.vs_torch_bf16)] : []),
    `  memory: ${percent(ratios.memory_vs_torch_fp32)} of PyTorch's in fp32${bf16 ? `, ${percent(ratios.memory_vs_torch_bf16!)} in bf16` : ''}`,
    ...(causes
      ? [
          `  of a float32 step of PyTorch: features that are kept spare ${percent(causes.cached_features)}, logits of labels alone ${percent(causes.label_logits)}, rows without padding ${percent(causes.no_padding)}; gradients of frozen weights would cost ${percent(causes.all_gradients)}`,
        ]
      : []),
    `  products alone: ours ${products.ours_fp32} GFLOP/s, torch fp32 ${products.torch_fp32}${bf16 ? `, bf16 ${products.torch_bf16}` : ''}\n`,
  ].join('\n');
}
