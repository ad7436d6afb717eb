// One side of `npm run bench -- compare`: the built code of a checkout, this one or an older one, started as
// `node side.js <its dist folder>`. Internals move between versions, so it takes what the checkout has: a
// stage of train/stage.js or, before that, of train/trainer.js. What all versions have comes from index.js.

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Engine, Value } from '../../src/engine/engine.ts';
import type { Generator } from '../../src/generate/generator.ts';
import type { LanguageConfig } from '../../src/models/language.ts';
import type { LossGraph } from '../../src/models/programs.ts';
import type { StageOptions } from '../../src/train/stage.ts';
import { answerRequests, processMemory, promptIds, speeds } from '../peers/generate-peer.ts';
import { batchRows, drawWeights, type Hold, heldStage, readSetup, rowDims, type Side, type Turn } from '../train-step/held-stage.ts';

export type Request =
  | { op: 'load-step'; size: string; totalSteps: number; threads: number; spin: boolean }
  | { op: 'load-generator'; folder: string; threads: number; spin: boolean }
  | { op: 'step'; steps: number }
  | { op: 'generate'; prompt: number; tokens: number }
  | { op: 'memory' };

/** Answer to `generate`: tokens a second of wall time, and ms of CPU time over all threads. */
export interface GenerateAnswer {
  prefill: number;
  decode: number;
  prefill_cpu_ms: number;
  decode_cpu_ms: number;
}

const dist = process.argv[2];

/** A module of the checkout; undefined where it has none of that name. */
async function find<T>(path: string): Promise<T | undefined> {
  const url = pathToFileURL(join(dist, path)).href;
  try {
    return (await import(url)) as T;
  } catch (error) {
    const { code, url: missing } = error as { code?: string; url?: string };
    if (code === 'ERR_MODULE_NOT_FOUND' && missing === url) return undefined;
    throw error;
  }
}

async function need<T>(path: string): Promise<T> {
  const module = await find<T>(path);
  if (!module) throw new Error(`${dist} has no ${path}: it is not built, or of a version that this benchmark does not know`);
  return module;
}

/** Of index.js, what all versions have. */
interface Index {
  createOrtEngine(options: { threads: number; spin: boolean }): Engine;
  float32(data: ArrayLike<number>, dims: number[]): Value;
  int32(data: ArrayLike<number>, dims: number[]): Value;
  languageConfigSchema: { parse(config: unknown): LanguageConfig };
  loadGenerator(folder: string, options: { engine: Engine }): Promise<{ generator: Generator }>;
}

// === Training step ===

/** train/trainer.js and train/objectives.js of 18220b3 and its neighbors. */
interface OldTrainer {
  trainStage(options: object): Promise<void>;
}
interface OldObjectives {
  languageModelObjective(config: LanguageConfig): { parameters: { list(): { name: string; dims: readonly number[] }[] } };
}

async function loadStep(index: Index, request: Extract<Request, { op: 'load-step' }>): Promise<Side> {
  const { optimizer, sizes } = readSetup();
  const { totalSteps, threads, spin } = request;
  const size = sizes[request.size];
  const config = index.languageConfigSchema.parse(size.config);
  const engine = index.createOrtEngine({ threads, spin });
  const rows = batchRows(size);
  const inputs = Object.fromEntries(Object.entries(rows).map(([name, data]) => [name, index.int32(data, rowDims(name, data, size))]));
  const labels = rows.labels.length;
  const tokens = size.batch * size.tokens;
  const std = size.config.initializer_range;
  const options = <B>(hold: Hold, batch: B) => ({
    engine,
    learningRate: () => optimizer.lr,
    schedule: { kind: 'constant' as const, totalSteps, warmupSteps: 0, floor: 0 },
    optimizer: { betas: optimizer.betas, eps: optimizer.eps, weightDecay: optimizer.weight_decay, maxGradNorm: 0 },
    data: {
      stepsPerEpoch: totalSteps,
      async batches() {
        await hold.asked();
        return [batch];
      },
    },
    onStep: ({ loss }: { loss: number }) => hold.done(loss),
  });

  const stage = await find<{ trainStage(options: StageOptions): Promise<void> }>('train/stage.js');
  if (stage) {
    const programs = await need<{ languageModelLoss(config: LanguageConfig): LossGraph }>('models/programs.js');
    const loss = programs.languageModelLoss(config);
    const weights = drawWeights(loss.parameters, std);
    const trained = new Map(weights.map(({ name, dims, data }) => [name, engine.state(index.float32(data, [...dims]))]));
    const batch = { inputs, weight: labels, tokens };
    return heldStage((hold) => stage.trainStage({ ...options(hold, batch), loss, trained, constants: new Map() }));
  }
  const trainer = await need<OldTrainer>('train/trainer.js');
  const objective = (await need<OldObjectives>('train/objectives.js')).languageModelObjective(config);
  const values = new Map(drawWeights(objective.parameters.list(), std).map(({ name, data }) => [name, data]));
  const batch = { inputs: { ...inputs, loss_scale: index.float32([1 / labels], []) }, tokens };
  return heldStage((hold) => trainer.trainStage({ ...options(hold, batch), objective, values, trainable: () => true }));
}

// === Generation ===

const cpuTime = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

async function generate(generator: Generator, prompt: number, tokens: number): Promise<GenerateAnswer> {
  const inputIds = promptIds(prompt, generator.config.text_config.vocab_size);
  const times: number[] = [];
  const cpu: number[] = [];
  const [start, startCpu] = [performance.now(), cpuTime()];
  await generator.generate([{ inputIds }], {
    maxNewTokens: tokens,
    // random weights must not stop where chance has it
    stopTokenIds: [],
    onToken() {
      times.push(performance.now());
      cpu.push(cpuTime());
    },
  });
  return { ...speeds(prompt, start, times), prefill_cpu_ms: cpu[0] - startCpu, decode_cpu_ms: (cpu.at(-1)! - cpu[0]) / (tokens - 1) };
}

// === Requests ===

const index = await need<Index>('index.js');
let step: Side;
let generator: Generator;

await answerRequests<Request>(async (request): Promise<object> => {
  switch (request.op) {
    case 'load-step':
      step = await loadStep(index, request);
      return {};
    case 'load-generator':
      ({ generator } = await index.loadGenerator(request.folder, { engine: index.createOrtEngine(request) }));
      return {};
    case 'step':
      return (await step(request.steps)) satisfies Turn;
    case 'generate':
      return generate(generator, request.prompt, request.tokens);
    case 'memory':
      return processMemory();
  }
});
