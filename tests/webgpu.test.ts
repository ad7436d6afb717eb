// Training and answering on WebGPU beside the CPU engine, on a software adapter: the same losses in both
// stages of a recipe, runs that go on from one engine to the other, the same answers, no kernel on the CPU,
// and what is left when the device is lost.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import * as ort from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { formatDevice } from '../src/cli/run/info-device.ts';
import { createNodeWebgpuEngine } from '../src/engine/devices.ts';
import { type Engine, float32, float32Values, int32, type State, type Value } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { createWebgpuEngine, type WebgpuOptions } from '../src/engine/webgpu/engine.ts';
import { DeviceError, DeviceLostError } from '../src/engine/webgpu/failure.ts';
import type { Runtime, RuntimeTensor } from '../src/engine/webgpu/runtime.ts';
import { type BatchScheduler, createBatchScheduler } from '../src/generate/batch-scheduler.ts';
import { createGenerator, type Generator } from '../src/generate/generator.ts';
import { linearLogSumExp } from '../src/graph/composites.ts';
import { grad } from '../src/graph/grad.ts';
import { add, cast, dequantize, gather, matmul, mul, reduceSum, takeLast } from '../src/graph/primitives.ts';
import { input, typedData } from '../src/graph/tensor.ts';
import { imageSize, llavaConfigSchema, llavaParameters } from '../src/models/llava.ts';
import { bundledModel } from '../src/paths.ts';
import { withCheckpoint } from '../src/pretrained/folder.ts';
import { loadModel } from '../src/pretrained/load.ts';
import { readParameters } from '../src/pretrained/values.ts';
import { createRandom } from '../src/random.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { silentStatus } from '../src/runs/status.ts';
import { createAdamW } from '../src/train/optimizer.ts';
import { loadRecipe } from '../src/train/recipe.ts';
import { deviceOf, train } from '../src/train/run.ts';
import { quantizeRows } from '../src/weights/quantize.ts';
import { bin, cli, enterToyFolder, recipes } from './toy.ts';
import { hasFloat16, webgpu } from './webgpu.ts';

// a software adapter on a busy machine
vi.setConfig({ testTimeout: 300_000 });

const picture = fileURLToPath(new URL('../docs/images/demo.png', import.meta.url));

const losses = (out: string) =>
  readMetrics(join(out, 'metrics.jsonl')).flatMap((event) => (event.type === 'step' ? [{ stage: event.stage, loss: event.loss }] : []));

function expectSameLosses(out: string, expected: ReturnType<typeof losses>) {
  const actual = losses(out);
  expect(actual.map(({ stage }) => stage)).toEqual(expected.map(({ stage }) => stage));
  for (const [i, { loss }] of expected.entries()) expect(Math.abs(actual[i].loss / loss - 1)).toBeLessThan(1e-4);
}

describe.skipIf(!webgpu)('a run on WebGPU', () => {
  let leave: () => void;
  let expected: ReturnType<typeof losses>;

  /** A run that is stopped after the first step of the second stage. */
  async function begin(out: string, engine: Engine): Promise<void> {
    const controller = new AbortController();
    const status = {
      ...silentStatus,
      update: ({ stage, step }: { stage: string; step: number }) => {
        if (stage === 'finetune' && step === 1) controller.abort(new Error('stopped'));
      },
    };
    const recipe = loadRecipe('short.yaml');
    await expect(train({ recipe, title: out, out, mode: 'new', signal: controller.signal, status, engine })).rejects.toThrow('stopped');
  }

  const resume = (out: string, engine: Engine) =>
    train({
      recipe: loadRecipe('short.yaml'),
      title: out,
      out,
      mode: 'resume',
      signal: new AbortController().signal,
      status: silentStatus,
      engine,
    });

  beforeAll(async () => {
    leave = await enterToyFolder();
    const { evaluate: _, ...rest } = recipes.llava;
    const stages = rest.stages.map((stage) => ({ ...stage, steps: 2, batch_size: 1, warmup_steps: 0, save_every: 1 }));
    writeFileSync('short.yaml', JSON.stringify({ ...rest, stages }));
    const { code, stderr } = await cli('train', 'short.yaml', '--out', 'cpu');
    expect(code, stderr).toBe(0);
    expected = losses('cpu');
    expect(expected).toHaveLength(4);
  });
  afterAll(() => leave?.());

  test('has the losses of one on the CPU, and goes on there', async () => {
    await begin('there', webgpu!);
    await resume('there', createOrtEngine());
    expectSameLosses('there', expected);
  });

  test('goes on from where one on the CPU was stopped, by the name of the device', async () => {
    await begin('here', createOrtEngine());
    const { code, stderr } = await cli('train', '--resume', '--out', 'here', '--device', 'webgpu');
    expect(code, stderr).toBe(0);
    expectSameLosses('here', expected);
  });

  test('has the same losses where its frozen weights are larger than a buffer', async () => {
    const status = { ...silentStatus };
    const engine = createNodeWebgpuEngine({ bufferBytes: 1500 });
    await train({
      recipe: loadRecipe('short.yaml'),
      title: 'split',
      out: 'split',
      mode: 'new',
      signal: new AbortController().signal,
      status,
      engine,
    });
    expectSameLosses('split', expected);
  });

  test('that loses its device keeps the last checkpoint, and says so in a sentence', async () => {
    let isLost = false;
    const failing = (): void => {
      if (isLost) throw new Error('[Device] is lost.\n - While calling');
    };
    const notes: string[] = [];
    const failure = train({
      recipe: loadRecipe('short.yaml', ['stages.0.steps=1', 'stages.1.save_every=0']),
      title: 'lost',
      out: 'lost',
      mode: 'new',
      signal: new AbortController().signal,
      engine: createWebgpuEngine(watched({ before: failing })),
      status: {
        ...silentStatus,
        note: (text) => void notes.push(text),
        update: ({ stage, step }) => {
          isLost = stage === 'finetune' && step === 1;
        },
      },
    });
    await expect(failure).rejects.toThrow(DeviceLostError);
    await expect(failure).rejects.toThrow(/^the WebGPU device was lost \([^\n]*\): its driver was restarted, or it ran out of memory$/);
    expect(notes.at(-1)).toContain('what was trained since the last checkpoint is lost');
    const { code, stderr } = await cli('train', '--resume', '--out', 'lost');
    expect(code, stderr).toBe(0);
    expect(losses('lost').map(({ stage }) => stage)).toEqual(['pretrain', 'finetune', 'finetune']);
  });
});

/** ONNX Runtime with somebody who is told of each run of a session before it, and of its results after it. */
function watched({ before, after }: { before?: () => void; after?: (results: readonly RuntimeTensor[]) => void }): Runtime {
  const runtime = ort as unknown as Runtime;
  return {
    Tensor: runtime.Tensor,
    InferenceSession: {
      async create(model, options) {
        const session = await runtime.InferenceSession.create(model, options);
        return {
          inputNames: session.inputNames,
          outputNames: session.outputNames,
          release: () => session.release(),
          async run(feeds) {
            before?.();
            const results = await session.run(feeds);
            after?.(Object.values(results));
            return results;
          },
        };
      },
    },
  };
}

/** Expects ONNX Runtime's own profile of what `work` does on an engine to name no provider but WebGPU's. */
async function profiled(work: (engine: Engine) => Promise<void>, options: WebgpuOptions = {}): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'llava-gemma-profile-'));
  await work(createNodeWebgpuEngine({ ...options, session: { enableProfiling: true, profileFilePrefix: join(folder, 'profile') } }));
  // sessions that have ended; those that move buffers go on, and their profiles are not whole
  const profiles = readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'));
  const whole = profiles.filter((text) => text.trim().endsWith(']'));
  const events = whole.flatMap((text) => JSON.parse(text) as { cat: string; args: Record<string, string> }[]);
  const kernels = events.filter(({ cat }) => cat === 'Node').map(({ args }) => args);
  expect(kernels.length).toBeGreaterThan(20);
  expect([...new Set(kernels.map(({ provider }) => provider))]).toEqual(['WebGpuExecutionProvider']);
  // nor is a value moved between host and device in the midst of a run
  expect(kernels.filter(({ op_name }) => op_name.startsWith('Memcpy'))).toEqual([]);
  rmSync(folder, { recursive: true });
}

/** The tiny random LLaVA of the goldens. */
const tinyLlava = (engine: Engine) =>
  withCheckpoint(fileURLToPath(new URL('./reference/goldens/llava', import.meta.url)), llavaConfigSchema, async (config, checkpoint) => {
    const parameters = llavaParameters(config);
    return createGenerator(engine, config, float32Values(parameters, await readParameters(checkpoint, parameters)));
  });

describe.skipIf(!webgpu)('answers on WebGPU', () => {
  test('of the bundled model are those on the CPU', async () => {
    const answers: number[][][] = [];
    for (const engine of [createOrtEngine(), webgpu!]) {
      const { tokenizer, generator, imageRows } = await loadModel(bundledModel, { engine });
      const [rows] = await imageRows([picture]);
      const places = new Array<number>(rows.length / generator.config.text_config.hidden_size).fill(tokenizer.imageTokenId);
      const prompt = { inputIds: [...places, ...tokenizer.encode('\nhow many things?')], imageRows: rows };
      answers.push(await generator.generate([prompt], { maxNewTokens: 4, stopTokenIds: [] }));
      await generator.dispose();
    }
    expect(answers[1]).toEqual(answers[0]);
  });

  test.each([
    ['', {}],
    [' also of weights that are split', { bufferBytes: 1500 }],
  ])('run every kernel on the device, from pixels on, also behind a prefix that was cut;%s', (_, options) =>
    profiled(async (engine) => {
      const generator = await tinyLlava(engine);
      const { image_token_index: image, text_config: text } = generator.config;
      const size = imageSize(generator.config);
      const pixels = Float32Array.from({ length: 3 * size * size }, (_, i) => Math.sin(i));
      const imageRows = await generator.imageRows(await generator.imageFeatures(pixels));
      const places = new Array<number>(imageRows.length / text.hidden_size).fill(image);
      const prefix = {};
      for (const words of [
        [2, 3],
        [2, 4, 5],
      ])
        await generator.generate([{ inputIds: [...places, ...words], imageRows }], { maxNewTokens: 3, stopTokenIds: [], prefix });
      await generator.dispose();
    }, options),
  );

  const prompts = [[2, 5, 7], [3], [2, 5, 7, 4, 6], [2, 5], [3, 3, 3, 3, 3], [2, 5, 7, 4, 9, 8]];
  const openScheduler = (generator: Generator, slots: number) =>
    createBatchScheduler(generator, { slots, prefixBytes: 2 ** 20, breathe: async () => {} });
  const answersOf = (scheduler: BatchScheduler) =>
    prompts.map((inputIds, ticket) =>
      scheduler.answer({ ticket, inputIds, pictures: [], maxNewTokens: 3 + (ticket % 2) * 4, stopTokenIds: [] }),
    );

  /** Answers to prompts that share beginnings, some of which wait for a slot. */
  async function batched(engine: Engine, slots: number): Promise<{ said: number[][]; cached: number }> {
    const generator = await tinyLlava(engine);
    const scheduler = openScheduler(generator, slots);
    const answers = await Promise.all(answersOf(scheduler));
    expect(scheduler.load.prefixBytes).toBeGreaterThan(0);
    await generator.dispose();
    return { said: answers.map(({ tokens }) => tokens), cached: answers.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0) };
  }

  test('of a batch that rows join and leave are those on the CPU, and numbers of tokens are all that is read back', async () => {
    const read: number[] = [];
    const after = (results: readonly RuntimeTensor[]) => {
      for (const result of results) if (result.location === 'cpu') read.push((result.data as Int32Array).length);
    };
    const expected = await batched(createOrtEngine(), 3);
    expect(expected.cached).toBeGreaterThan(0);
    expect(await batched(createWebgpuEngine(watched({ after })), 3)).toEqual(expected);
    expect(read.length).toBeGreaterThan(10);
    expect(Math.max(...read)).toBeLessThanOrEqual(3);
  });

  test('of a batch are right, or fail, while there is no memory, and right again afterwards', async () => {
    const { said } = await batched(createOrtEngine(), 3);
    const random = createRandom(3);
    let isFull = false;
    let failures = 0;
    const before = () => {
      if (!isFull || random.uniform() > 0.06) return;
      failures++;
      throw new Error('out of device memory');
    };
    const generator = await tinyLlava(createWebgpuEngine(watched({ before })));
    const scheduler = openScheduler(generator, 3);
    await Promise.all(answersOf(scheduler));
    let right = 0;
    for (let round = 0; round < 6; round++) {
      isFull = true;
      for (const [i, answer] of (await Promise.allSettled(answersOf(scheduler))).entries())
        if (answer.status === 'rejected') expect(answer.reason).toBeInstanceOf(DeviceError);
        else {
          expect(answer.value.tokens).toEqual(said[i]);
          right++;
        }
      isFull = false;
      expect((await Promise.all(answersOf(scheduler))).map(({ tokens }) => tokens)).toEqual(said);
    }
    expect(failures).toBeGreaterThan(5);
    expect(right).toBeGreaterThan(0);
    await generator.dispose();
  });

  test('of a batch run every kernel on the device', () =>
    profiled(async (engine) => {
      await batched(engine, 2);
    }));
});

describe.skipIf(!webgpu)('a step on WebGPU', () => {
  const [width, classes] = [8, 12];
  const x = input('x', 'float32', ['rows', width]);
  const weight = input('w', 'float32', [classes, width]);

  /** Loss, gradient and update of a product, on an engine of its own. */
  async function step(engine: Engine): Promise<void> {
    const loss = reduceSum(mul(matmul(x, weight, { transB: true }), 0.5), [0, 1]);
    const [gradient] = grad(loss, [weight]);
    const program = await engine.compile({ loss }, { writes: { g: { mode: 'add', tensor: gradient } } });
    const dims = [classes, width];
    const state = { w: engine.state(float32(new Float32Array(classes * width).fill(0.1), dims)), g: engine.zeros('float32', dims) };
    const parameters = [{ name: 'w', dims, values: state.w, gradient: state.g }];
    const optimizer = await createAdamW(engine, parameters, { betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 });
    await program.run({ x: float32(new Float32Array(2 * width).fill(1), [2, width]) }, { state });
    await optimizer.step({ step: 1, scale: 1, learningRate: () => 0.1 });
    await optimizer.dispose();
    for (const one of Object.values(state)) one.clear();
    await program.dispose();
  }

  test('runs every kernel on the device', () => profiled(step));

  test('reads back the loss and the norm of the gradient alone', async () => {
    const read: number[] = [];
    const after = (results: readonly RuntimeTensor[]) => {
      for (const result of results) if (result.location === 'cpu') read.push((result.data as Float32Array).length);
    };
    await step(createWebgpuEngine(watched({ after })));
    expect(read).toEqual([1, 1]);
  });

  test('sums the rows of one index the same each time', async () => {
    const [rows, words] = [64, 3];
    const table = input('table', 'float32', [words, width]);
    const picked = gather(table, input('ids', 'int32', ['rows']));
    const [gradient] = grad(reduceSum(mul(picked, input('y', 'float32', ['rows', width])), [0, 1]), [table]);
    const program = await webgpu!.compile({ gradient });
    const noise = Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i) * 10 ** (i % 7));
    const values = {
      table: float32(new Float32Array(words * width), [words, width]),
      ids: int32(
        Array.from({ length: rows }, (_, i) => (i * i) % words),
        [rows],
      ),
      y: float32(noise, [rows, width]),
    };
    const first = (await program.run(values)).gradient.data;
    for (let round = 0; round < 3; round++) expect((await program.run(values)).gradient.data).toEqual(first);
    await program.dispose();
  });

  test('gives very many scalars as one', async () => {
    const count = 300;
    const many = Array.from({ length: count }, (_, i) => [`s${i}`, reduceSum(mul(input(`x${i}`, 'float32', [2]), i), [0])] as const);
    const program = await webgpu!.compile(Object.fromEntries(many));
    const values = Object.fromEntries(many.map((_, i) => [`x${i}`, float32([1, 2], [2])]));
    const results = await program.run(values, { outputs: ['s7', 's299'] });
    expect(Object.entries(results).map(([name, { data }]) => [name, data[0]])).toEqual([
      ['s7', 21],
      ['s299', 897],
    ]);
    expect((await program.run(values)).s298.data[0]).toBe(894);
    await program.dispose();
  });

  test('does not grow in memory', async () => {
    const size = 2 ** 18;
    const w = input('big', 'float32', [size]);
    const program = await webgpu!.compile(
      { sum: reduceSum(input('few', 'float32', [4]), [0]) },
      { writes: { big: { mode: 'replace', tensor: add(mul(w, 0.5), input('few', 'float32', [4]).dims.length) } } },
    );
    const state: Record<string, State> = { big: webgpu!.zeros('float32', [size]) };
    const run = () => program.run({ few: float32([1, 2, 3, 4], [4]) }, { state });
    for (let i = 0; i < 50; i++) await run();
    const before = process.memoryUsage.rss();
    for (let i = 0; i < 300; i++) await run();
    // 300 buffers that nobody gives back would be 300 MiB
    expect(process.memoryUsage.rss() - before).toBeLessThan(60 * 2 ** 20);
    expect((await state.big.read()).data[size - 1]).toBeCloseTo(2, 5);
    await program.dispose();
  });

  test('that needs too large a buffer says so', async () => {
    const size = 2 ** 15;
    const program = await webgpu!.compile({ y: add(input('a', 'float32', ['rows', 1]), input('b', 'float32', ['columns'])) });
    const ones = new Float32Array(size).fill(1);
    const failure = program.run({ a: float32(ones, [size, 1]), b: float32(ones, [size]) });
    await expect(failure).rejects.toThrow(DeviceError);
    await expect(failure).rejects.toThrow('the WebGPU device gives no buffer as large as this needs');
    // and goes on
    const { y } = await program.run({ a: float32([1, 2], [2, 1]), b: float32([1], [1]) });
    expect([...(y.data as Float32Array)]).toEqual([2, 3]);
    await program.dispose();
  });

  test('takes weights as they are stored', async () => {
    const values = [1.5, -2, 0.25, 3];
    for (const dtype of ['bfloat16', 'float16'] as const) {
      const wide = cast(input('stored', dtype, [4]), 'float32');
      const program = await webgpu!.compile(
        { y: mul(wide, input('two', 'float32', [])) },
        { constants: new Map([['stored', { dtype, dims: [4], data: typedData(values, dtype) }]]) },
      );
      const { y } = await program.run({ two: float32([2], []) });
      expect([...(y.data as Float32Array)]).toEqual(values.map((value) => 2 * value));
      await program.dispose();
    }
  });

  test.each([
    ['float16', '', undefined],
    ['float16', ', split', 70 * 128 * 2],
    ['bfloat16', '', undefined],
  ] as const)('that is to be lean takes weights of %s in 16 bits, where the adapter has them%s', async (dtype, _, bufferBytes) => {
    const [rows, columns] = [280, 128];
    const wave = (count: number, step: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(step * i) / 8);
    const matrix = cast(input('stored', dtype, [rows, columns]), 'float32');
    const given = input('x', 'float32', [3, columns]);
    const outputs = {
      rows: gather(matrix, input('ids', 'int32', [4])),
      product: matmul(given, matrix, { transB: true }),
      loss: linearLogSumExp(given, matrix),
      gradient: grad(reduceSum(linearLogSumExp(given, matrix), [0]), [given])[0],
    };
    const constants = new Map([['stored', { dtype, dims: [rows, columns], data: typedData([...wave(rows * columns, 0.7)], dtype) }]]);
    const values = { ids: int32([0, 3, 4, 10], [4]), x: float32(wave(3 * columns, 1.3), [3, columns]) };
    // what the runtime has made of it: it is the session that was opened last
    const path = join(mkdtempSync(join(tmpdir(), 'llava-gemma-lean-')), 'optimized.onnx');
    let size = 0;
    const results: Record<string, Value>[] = [];
    for (const engine of [createOrtEngine(), createNodeWebgpuEngine({ bufferBytes, session: { optimizedModelFilePath: path } })]) {
      const program = await engine.compile(outputs, { constants, lean: true });
      if (existsSync(path)) size = statSync(path).size;
      results.push(await program.run(values));
      await program.dispose();
    }
    const [wanted, actual] = results;
    rmSync(dirname(path), { recursive: true });
    const numbers = size / (rows * columns);
    if (await hasFloat16()) expect(numbers).toBeLessThan(2.5);
    else expect(numbers).toBeGreaterThan(4);
    for (const [name, { data }] of Object.entries(wanted))
      for (const [i, number] of (data as Float32Array).entries())
        expect((actual[name].data as Float32Array)[i], name).toBeCloseTo(number, 4);
  });

  test.each([4, 8] as const)('reads packed weights of %i bits that are larger than a buffer', async (bits) => {
    const [rows, columns, format] = [11, 32, { bits, blockSize: 16 }];
    const wave = (count: number, step: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(step * i));
    const { packed, scale } = quantizeRows(wave(rows * columns, 0.7), format);
    const [bytes, blocks] = [packed.length / rows, columns / 16];
    const matrix = dequantize(input('packed', 'uint8', [rows, bytes]), input('scale', 'float32', [rows, blocks]), format);
    const given = input('x', 'float32', [3, columns]);
    const upstream = input('upstream', 'float32', [3, rows]);
    const outputs = {
      rows: gather(matrix, input('ids', 'int32', [4])),
      product: matmul(given, matrix, { transB: true }),
      gradient: matmul(upstream, matrix),
    };
    const constants = new Map([
      ['packed', { dtype: 'uint8' as const, dims: [rows, bytes], data: packed }],
      ['scale', { dtype: 'float32' as const, dims: [rows, blocks], data: scale }],
    ]);
    const values = {
      ids: int32([0, 3, 4, 10], [4]),
      x: float32(wave(3 * columns, 1.3), [3, columns]),
      upstream: float32(wave(3 * rows, 0.3), [3, rows]),
    };
    // four rows a part
    const runs = [createOrtEngine(), createNodeWebgpuEngine({ bufferBytes: 4 * bytes })].map(async (engine) => {
      const program = await engine.compile(outputs, { constants });
      const results = await program.run(values);
      await program.dispose();
      return results;
    });
    const [wanted, actual] = await Promise.all(runs);
    for (const [name, { data }] of Object.entries(wanted))
      for (const [i, number] of (data as Float32Array).entries()) expect((actual[name].data as Float32Array)[i]).toBeCloseTo(number, 4);
  });

  test('refuses what has no kernel by the name of its op', async () => {
    const program = await webgpu!.compile({ y: takeLast(x, 0, input('count', 'int32', []), 'kept') });
    const run = program.run({ x: float32(new Float32Array(width), [1, width]), count: int32([1], []) });
    await expect(run).rejects.toThrow('takeLast: ONNX Runtime has no kernel for WebGPU');
  });
});

// elsewhere, an adapter is found without Vulkan
describe.skipIf(process.platform !== 'linux')('without an adapter', () => {
  const environment = { ...process.env, VK_ICD_FILENAMES: '/there/is/none.json', DEBUG: '' };
  const chat = (device: string) =>
    spawnSync(process.execPath, [bin, 'chat', '--device', device, '--image', picture, '--prompt', 'What is it?', '--max-new-tokens', '1'], {
      env: environment,
      encoding: 'utf8',
    });

  test('webgpu is refused in a sentence', () => {
    const { status, stderr } = chat('webgpu');
    expect(status).toBe(1);
    expect(stderr.trim().split('\n').at(-1)).toMatch(/^error: device webgpu: there is no WebGPU adapter here \([^)]*\); take device cpu$/);
  });

  test('auto takes the CPU', () => {
    const { status, stdout, stderr } = chat('auto');
    expect(status, stderr).toBe(0);
    expect(stdout.trim()).not.toBe('');
  });
});

test('moments in 8 bits are refused in a sentence', async () => {
  const recipe = loadRecipe('recipes/emoji-tiny.yaml', ['stages.1.optim=adamw_8bit']);
  const options = { recipe, title: 'codes', out: join(tmpdir(), 'codes'), mode: 'new', signal: new AbortController().signal } as const;
  const failure = train({ ...options, status: silentStatus, engine: createNodeWebgpuEngine() });
  await expect(failure).rejects.toThrow('stage finetune: optim adamw_8bit is for device cpu; on webgpu take adamw_torch');
  // where the device is left open, that is no reason to fail
  expect(deviceOf({ ...recipe, device: 'auto' })).toBe('cpu');
  expect(deviceOf({ ...loadRecipe('recipes/emoji-tiny.yaml'), device: 'auto' })).toBe('auto');
});

test('info --device is told in words', () => {
  const gpus = [
    { name: 'A card', isSoftware: false },
    { name: 'SwiftShader', isSoftware: true },
  ];
  expect(
    formatDevice({ gpus, float16: true, largestBuffer: 2 ** 31, flops: 1.25e12 }),
  ).toBe(`WebGPU          an adapter, by ONNX Runtime's provider
GPUs of Vulkan  A card, SwiftShader (software: right numbers, slowly)
float16         yes
buffers         2.15 GB and less
products        1,250 GFLOP/s in float32`);
});

test('an unknown device is refused with what there is', async () => {
  const { code, stderr } = await cli('chat', '--device', 'gpu', '--prompt', 'hello');
  expect(code).toBe(1);
  expect(stderr).toContain('cpu, webgpu, auto');
});
