import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { languageConfigSchema } from '../models/language.ts';
import { llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { languageModelLoss } from '../models/programs.ts';
import { initialize } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import { checkConfig, withCheckpoint } from './folder.ts';
import { imageProcessorFor } from './processor.ts';
import { readParameters } from './values.ts';

const folders = mkdtempSync(join(tmpdir(), 'pretrained-'));
afterAll(() => rmSync(folders, { recursive: true, force: true }));

const config = languageConfigSchema.parse({
  vocab_size: 11,
  hidden_size: 4,
  intermediate_size: 6,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 2,
});
const parameters = languageModelLoss(config).parameters;
const values = new Map(parameters.map((p) => [p.name, initialize(p, createRandom(1, p.name))]));

/** A folder of the tiny Gemma with changed tensors. */
async function folder(name: string, change: (tensors: Map<string, { shape: number[]; data: Float32Array }>) => void = () => {}) {
  const tensors = new Map(parameters.map((p) => [p.name, { shape: [...p.dims], data: values.get(p.name)! }]));
  change(tensors);
  const dir = join(folders, name);
  await saveCheckpoint(dir, { config, tensors, dtype: 'F32' });
  return dir;
}

const read = (dir: string, rename?: (name: string) => string) =>
  withCheckpoint(dir, languageConfigSchema, (_, checkpoint) => readParameters(checkpoint, parameters, rename));

describe('readParameters', () => {
  test('gives every parameter its values, under the names in the file if they differ', async () => {
    expect(await read(await folder('whole'))).toEqual(values);
    const renamed = await folder('renamed', (tensors) => {
      for (const [name, tensor] of [...tensors]) {
        tensors.delete(name);
        tensors.set(`language_model.${name}`, tensor);
      }
    });
    expect(await read(renamed, (name) => `language_model.${name}`)).toEqual(values);
  });

  test('names folder and tensor that is missing', async () => {
    const dir = await folder('missing', (tensors) => tensors.delete('model.norm.weight'));
    const reading = read(dir);
    await expect(reading).rejects.toThrow(UserError);
    await expect(reading).rejects.toThrow(`${dir}: the checkpoint has no tensor "model.norm.weight"`);
  });

  test('names folder, tensor and both shapes where they differ', async () => {
    const dir = await folder('misshapen', (tensors) =>
      tensors.set('model.layers.0.mlp.up_proj.weight', { shape: [4, 6], data: new Float32Array(24) }),
    );
    const reading = read(dir);
    await expect(reading).rejects.toThrow(UserError);
    await expect(reading).rejects.toThrow(`${dir}: model.layers.0.mlp.up_proj.weight has shape [4, 6], but config.json asks for [6, 4]`);
  });

  test('reads vision towers with and without "vision_model." in their names', async () => {
    const golden = fileURLToPath(new URL('../../tests/reference/goldens/llava', import.meta.url));
    await withCheckpoint(golden, llavaConfigSchema, async (config, checkpoint) => {
      const all = llavaParameters(config);
      const short = await readParameters(checkpoint, all);
      const name = 'vision_tower.vision_model.embeddings.class_embedding';
      expect(checkpoint.storedName(name)).toBe('vision_tower.embeddings.class_embedding');
      // every tensor of the file is requested, and nothing else
      expect(short.size).toBe(checkpoint.names.length);
      const dir = join(folders, 'long-names');
      const tensors = new Map(all.map(({ name, dims }) => [name, { shape: [...dims], data: short.get(name)! }]));
      await saveCheckpoint(dir, { config, tensors, dtype: 'F32' });
      await withCheckpoint(dir, llavaConfigSchema, async (_, saved) => {
        expect(saved.storedName(name)).toBe(name);
        expect(await readParameters(saved, all)).toEqual(short);
      });
    });
  });
});

describe('withCheckpoint', () => {
  test('names file and field of a bad config', async () => {
    const dir = await folder('bad-config');
    const write = (changes: object) => writeFileSync(join(dir, 'config.json'), JSON.stringify({ ...config, ...changes }));
    write({ head_dim: -2 });
    await expect(read(dir)).rejects.toThrow(`${join(dir, 'config.json')}: head_dim: `);
    write({ model_type: 'llama' });
    await expect(read(dir)).rejects.toThrow(`${join(dir, 'config.json')}: model_type: must be one of gemma, gemma2, gemma3_text`);
    await expect(read(dir)).rejects.toThrow(UserError);
  });

  test('closes the files even when the body fails', async () => {
    const dir = await folder('closing');
    let leaked: Parameters<Parameters<typeof withCheckpoint>[2]>[1] | undefined;
    const failing = withCheckpoint(dir, languageConfigSchema, async (_, checkpoint) => {
      leaked = checkpoint;
      throw new Error('stop');
    });
    await expect(failing).rejects.toThrow('stop');
    await expect(leaked!.float32('model.norm.weight')).rejects.toThrow();
  });
});

test('checkConfig names nested fields', () => {
  const bad = { vision_config: { hidden_size: 'wide' }, text_config: config, image_token_index: 1 };
  expect(() => checkConfig(llavaConfigSchema, bad, 'x/config.json')).toThrow(/^x\/config\.json: vision_config\.hidden_size: /);
});

test('imageProcessorFor pads, resizes and crops to the size asked for', () => {
  expect(imageProcessorFor(48)).toMatchObject({ do_pad: true, size: { shortest_edge: 48 }, crop_size: { height: 48, width: 48 } });
});
