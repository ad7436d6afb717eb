import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { openCheckpoint, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { int32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { type ForwardOutput, forward } from '../generate/forward.ts';
import { type LlavaConfig, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { shapeNamed } from '../models/shapes.ts';
import { initialize, packedName, scaleName } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import { dequantizeRows, plannedFormat, quantizeRows } from '../weights/quantize.ts';
import { type RunWeightsOptions, readRunWeights, runStorageOf } from './run-weights.ts';
import { readStored } from './stored.ts';

const root = mkdtempSync(join(tmpdir(), 'run-weights-'));
const scratch = mkdtempSync(join(tmpdir(), 'run-weights-scratch-'));
const config: LlavaConfig = llavaConfigSchema.parse(shapeNamed('llava-gemma-tiny').config);
const parameters = llavaParameters(config);
const tensors = new Map(
  parameters.map((parameter) => {
    const drawn = { ...parameter, initializer: { kind: 'normal', std: 0.2 } as const };
    return [parameter.name, { shape: [...parameter.dims], data: initialize(drawn, createRandom(5, parameter.name)) }];
  }),
);
const folderOf = (dtype: 'F32' | 'BF16') => join(root, dtype);

beforeAll(async () => {
  for (const dtype of ['F32', 'BF16'] as const) await saveCheckpoint(folderOf(dtype), { config, tensors, dtype });
  vi.stubEnv('TMPDIR', scratch);
});
// ONNX Runtime puts files of its own there
const scratchFolders = () => readdirSync(scratch).filter((name) => name.startsWith('llava-gemma-'));
afterEach(() => expect(scratchFolders()).toEqual([]));
afterAll(() => {
  vi.unstubAllEnvs();
  for (const dir of [root, scratch]) rmSync(dir, { recursive: true, force: true });
});

async function logitsOf(dir: string, options: RunWeightsOptions): Promise<{ logits: Float32Array; inFiles: string[] }> {
  const checkpoint = await openCheckpoint(dir);
  const inFiles: string[] = [];
  const releases: (() => Promise<void>)[] = [];
  try {
    const source = {
      storage: runStorageOf(checkpoint, options.quantize),
      async read(wanted: typeof parameters) {
        const { values, release } = await readRunWeights(checkpoint, wanted, options);
        releases.push(release);
        for (const value of values.values()) if ('path' in value) inFiles.push(value.path);
        return values;
      },
    };
    const inputs = { input_ids: int32([2, 5, 77, 4000, 9, 12], [1, 6]) };
    const outputs = await forward(createOrtEngine(), { kind: 'llava', config }, { ...source, read: source.read as never }, inputs);
    const pieces: number[] = [];
    for await (const piece of (outputs.get('logits') as ForwardOutput).pieces()) pieces.push(...piece);
    return { logits: Float32Array.from(pieces), inFiles };
  } finally {
    for (const release of releases) await release();
    await checkpoint.close();
  }
}

const largest = (values: Float32Array) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
const difference = (a: Float32Array, b: Float32Array) => largest(a.map((value, i) => value - b[i])) / largest(b);

describe('readRunWeights', () => {
  test.each([undefined, 'int4', 'int8'] as const)('gives the same from memory and from files (%s)', async (quantize) => {
    for (const dtype of ['F32', 'BF16'] as const) {
      const inMemory = await logitsOf(folderOf(dtype), { quantize });
      expect(inMemory.inFiles).toEqual([]);
      const fromFiles = await logitsOf(folderOf(dtype), { quantize, memoryLimit: 0 });
      expect(fromFiles.logits).toEqual(inMemory.logits);
      expect(fromFiles.inFiles.length).toBeGreaterThan(10);
      const own = fromFiles.inFiles.filter((path) => path.startsWith(root));
      // float32 is used in place; everything else goes through the scratch file
      if (dtype === 'BF16') expect(own).toEqual([]);
      else expect(own.length).toBeGreaterThan(quantize ? 3 : 10);
      if (dtype === 'F32' && !quantize) expect(own).toEqual(fromFiles.inFiles);
    }
  });

  test.each(['int4', 'int8'] as const)('%s computes what the rounded weights do in float32', async (quantize) => {
    const rounded = new Map(
      [...tensors].map(([name, { shape, data }]) => {
        const format = plannedFormat(name, shape, quantize);
        return [name, { shape, data: format ? dequantizeRows(quantizeRows(data, format), format) : data }];
      }),
    );
    const dir = join(root, `rounded-${quantize}`);
    await saveCheckpoint(dir, { config, tensors: rounded, dtype: 'F32' });
    const { logits } = await logitsOf(folderOf('F32'), { quantize });
    const expected = await logitsOf(dir, {});
    const float = await logitsOf(folderOf('F32'), {});
    // what remains is the rounding of activations to 8 bits, in each of about twenty products
    const activations = difference(logits, expected.logits);
    const all = difference(logits, float.logits);
    console.log(
      `${quantize}: off by ${activations.toPrecision(2)} from its weights in float32, ${all.toPrecision(2)} from the model's own`,
    );
    expect(activations).toBeLessThan(0.04);
    if (quantize === 'int4') expect(all).toBeGreaterThan(2 * activations);
  });

  test('reads packed weights back as they were packed, from memory and from files', async () => {
    const packed = new Map();
    const floats = new Map<string, { shape: number[]; data: Float32Array }>();
    for (const [name, { shape, data }] of tensors) {
      const format = plannedFormat(name, shape, 'int4');
      if (!format) {
        floats.set(name, { shape, data });
        continue;
      }
      const rows = quantizeRows(data, format);
      packed.set(packedName(name), { dtype: 'U8', shape: [shape[0], (shape[1] * format.bits) / 8], data: rows.packed });
      const bytes = new Uint8Array(rows.scale.buffer, rows.scale.byteOffset, rows.scale.byteLength);
      packed.set(scaleName(name), { dtype: 'F32', shape: [shape[0], shape[1] / format.blockSize], data: bytes });
    }
    const dir = join(root, 'packed');
    await saveCheckpoint(dir, { config, tensors: floats, dtype: 'F32', stored: packed });
    const { logits } = await logitsOf(folderOf('F32'), { quantize: 'int4' });
    expect((await logitsOf(dir, {})).logits).toEqual(logits);
    const fromFiles = await logitsOf(dir, { memoryLimit: 0 });
    expect(fromFiles.logits).toEqual(logits);
    expect(fromFiles.inFiles.every((path) => path.startsWith(dir))).toBe(true);
  });

  test.each([0, undefined])('tells which weights are not finite, and goes on (memory limit %s)', async (memoryLimit) => {
    const name = 'language_model.model.layers.1.mlp.up_proj.weight';
    const { shape, data } = tensors.get(name)!;
    const dir = join(root, 'damaged');
    await saveCheckpoint(dir, { config, tensors: new Map([...tensors, [name, { shape, data: data.with(3, Number.NaN) }]]), dtype: 'F32' });
    const said = vi.spyOn(console, 'error').mockImplementation(() => {});
    try {
      for (const quantize of [undefined, 'int4'] as const) {
        said.mockClear();
        const checkpoint = await openCheckpoint(dir);
        await (await readRunWeights(checkpoint, parameters, { quantize, memoryLimit })).release();
        await checkpoint.close();
        expect(said.mock.calls).toEqual([[expect.stringContaining(`${name} holds NaN or infinity`)]]);
      }
    } finally {
      said.mockRestore();
    }
  });

  test('tells numbers that float16 could not hold from damage', async () => {
    const name = 'language_model.model.layers.1.mlp.up_proj.weight';
    const { shape, data } = tensors.get(name)!;
    const dir = join(root, 'beyond');
    const spoiled = { shape, data: data.with(3, Number.POSITIVE_INFINITY) };
    await saveCheckpoint(dir, { config, tensors: new Map([...tensors, [name, spoiled]]), dtype: 'F16' });
    const said = vi.spyOn(console, 'error').mockImplementation(() => {});
    const checkpoint = await openCheckpoint(dir);
    try {
      await (await readRunWeights(checkpoint, parameters)).release();
      const message = `${name} holds infinity: numbers beyond float16, which ends at 65504, were converted to it`;
      expect(said.mock.calls).toEqual([[expect.stringContaining(message)]]);
      await expect(readStored(checkpoint, parameters, { inFiles: false })).rejects.toThrow(message);
    } finally {
      said.mockRestore();
      await checkpoint.close();
    }
  });

  test('says what is missing or of another shape, and leaves no scratch file behind', async () => {
    const name = 'language_model.model.layers.0.mlp.gate_proj.weight';
    const checkpoint = await openCheckpoint(folderOf('BF16'));
    const wrong = parameters.map((parameter) => (parameter.name === name ? { ...parameter, dims: [3, 4] } : parameter));
    await expect(readRunWeights(checkpoint, wrong, { memoryLimit: 0 })).rejects.toThrow(
      `${name} has shape [64, 32], but config.json asks for [3, 4]`,
    );
    const more = [...parameters, { ...parameters[0], name: 'no.such.weight' }];
    await expect(readRunWeights(checkpoint, more, { memoryLimit: 0 })).rejects.toThrow('has no tensor "no.such.weight"');
    await checkpoint.close();
  });

  test('takes away what a killed process left, and nothing else', async () => {
    const { pid } = spawnSync(process.execPath, ['--version']);
    const folders = [`llava-gemma-weights-${pid}-abc`, `llava-gemma-weights-${process.ppid}-abc`, 'llava-gemma-weights-mine'];
    for (const folder of folders) {
      mkdirSync(join(scratch, folder));
      writeFileSync(join(scratch, folder, 'weights.bin'), 'half');
    }
    const checkpoint = await openCheckpoint(folderOf('BF16'));
    await (await readRunWeights(checkpoint, parameters, { memoryLimit: 0 })).release();
    await checkpoint.close();
    expect(scratchFolders().sort()).toEqual(folders.slice(1).sort());
    for (const folder of folders.slice(1)) rmSync(join(scratch, folder), { recursive: true });
  });

  test('needs a folder for scratch files, and says so', async () => {
    vi.stubEnv('TMPDIR', join(scratch, 'nowhere'));
    const checkpoint = await openCheckpoint(folderOf('BF16'));
    await expect(readRunWeights(checkpoint, parameters, { memoryLimit: 0 })).rejects.toThrow(/nowhere.*set TMPDIR/);
    await checkpoint.close();
    vi.stubEnv('TMPDIR', scratch);
    expect(existsSync(join(scratch, 'nowhere'))).toBe(false);
  });
});
