// `llava-gemma forward` against transformers: the goldens of tests/reference go through the command as files,
// and must come back as what PyTorch computed. Also checks which folders the command takes.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { saveCheckpoint, storedToFloat32 } from '../src/checkpoint/checkpoint.ts';
import { float32ToBfloat16, float32ToFloat16 } from '../src/floats.ts';
import { imageTokenCount, type LlavaConfig } from '../src/models/llava.ts';
import { shapeNamed } from '../src/models/shapes.ts';
import { openSafetensors, type StoredTensor, writeSafetensors } from '../src/weights/safetensors.ts';
import { cli, withChangedJson } from './toy.ts';

const TOLERANCE = 1e-4;
const root = mkdtempSync(join(tmpdir(), 'forward-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string) => join(root, name);
const folderOf = (golden: string) => fileURLToPath(new URL(`./reference/goldens/${golden}`, import.meta.url));

type Tensors = Map<string, StoredTensor>;

async function read(path: string): Promise<Tensors> {
  const file = await openSafetensors(path);
  try {
    const tensors: Tensors = new Map();
    for (const name of file.names) tensors.set(name, await file.read(name));
    return tensors;
  } finally {
    await file.close();
  }
}

const golden = (name: string, file: string) => read(join(folderOf(name), `${file}.safetensors`));
const valuesOf = (tensor: StoredTensor) => storedToFloat32(tensor, 'a test');
const bytesOf = ({ buffer, byteOffset, byteLength }: Uint16Array | Int32Array) => new Uint8Array(buffer, byteOffset, byteLength);

/** The part of a golden's inputs that goes in: they hold labels too. */
async function inputsOf(name: string, file = 'inputs'): Promise<Tensors> {
  const all = await golden(name, file);
  return new Map([...all].filter(([tensor]) => ['input_ids', 'attention_mask', 'pixel_values'].includes(tensor)));
}

let runs = 0;

/** The tensors that the command writes for `inputs`. */
async function forward(model: string, inputs: Tensors, ...words: string[]): Promise<Tensors> {
  const [from, to] = [at(`in-${++runs}.safetensors`), at(`out-${runs}.safetensors`)];
  await writeSafetensors(from, inputs);
  const outcome = await cli('forward', '--model', model, '--inputs', from, '--output', to, ...words);
  expect(outcome).toEqual({ code: 0, stdout: `wrote ${to}\n`, stderr: '' });
  return read(to);
}

function largestDifference(actual: StoredTensor, expected: StoredTensor): number {
  expect(actual.dtype).toBe('F32');
  expect(actual.shape).toEqual(expected.shape);
  const wanted = valuesOf(expected);
  return valuesOf(actual).reduce((max, value, i) => Math.max(max, Math.abs(value - wanted[i])), 0);
}

function expectOutputs(label: string, actual: Tensors, expected: Tensors) {
  let worst = 0;
  for (const [name, tensor] of actual) {
    const difference = largestDifference(tensor, expected.get(name)!);
    expect(difference, `${label}: ${name}`).toBeLessThan(TOLERANCE);
    worst = Math.max(worst, difference);
  }
  console.log(`forward of ${label}: worst absolute error of ${actual.size} outputs ${worst.toExponential(1)}`);
}

const states = (tensors: Tensors) => [...tensors.keys()].filter((name) => name.startsWith('hidden_states.'));

describe('goldens through the command', () => {
  test.each(['gemma', 'gemma-mqa', 'gemma2', 'gemma3'])('%s', async (name) => {
    const inputs = await inputsOf(name);
    const expected = await golden(name, 'outputs');
    const actual = await forward(folderOf(name), inputs, '--hidden-states');
    expect([...actual.keys()].sort()).toEqual(['logits', ...states(expected)].sort());
    expectOutputs(name, actual, expected);
    const { shape, data } = inputs.get('input_ids')!;
    const wide = new BigInt64Array(data.slice().buffer);
    const narrow = new Map(inputs).set('input_ids', { dtype: 'I32', shape, data: bytesOf(Int32Array.from(wide, Number)) });
    const again = await forward(folderOf(name), narrow);
    expect([...again.keys()]).toEqual(['logits']);
    expect(again.get('logits')).toEqual(actual.get('logits'));
  });

  test.each([
    { name: 'llava', suffix: '', words: [] },
    { name: 'llava', suffix: '-scaled', words: ['--scale-image-features', 'true'] },
    { name: 'llava-siglip', suffix: '', words: ['--scale-image-features', 'false'] },
  ])('$name $suffix', async ({ name, suffix, words }) => {
    const expected = await golden(name, `outputs${suffix}`);
    const actual = await forward(folderOf(name), await inputsOf(name), '--hidden-states', '--image-features', ...words);
    expect([...actual.keys()].sort()).toEqual(['image_features', 'logits', ...states(expected)].sort());
    expectOutputs(name + suffix, actual, expected);
  });

  test.each([
    { name: 'siglip', suffix: '' },
    { name: 'dinov2', suffix: '' },
    { name: 'dinov2', suffix: '-larger' },
    { name: 'dinov2', suffix: '-smaller' },
    { name: 'dinov2-swiglu', suffix: '' },
  ])('$name $suffix by itself', async ({ name, suffix }) => {
    const expected = await golden(name, `outputs${suffix}`);
    const actual = await forward(folderOf(name), await inputsOf(name, `inputs${suffix}`));
    expect([...actual.keys()].sort()).toEqual(states(expected).sort());
    expectOutputs(name + suffix, actual, expected);
  });

  test('the encoder of a whole CLIP', async () => {
    const pixels = new Map([['pixel_values', (await golden('clip', 'inputs')).get('pixel_values')!]]);
    const expected = new Map([...(await golden('clip', 'outputs'))].map(([name, tensor]) => [name.replace('vision_', ''), tensor]));
    const actual = await forward(folderOf('clip'), pixels);
    expect(actual.size).toBe(4);
    expectOutputs('clip', actual, expected);
  });
});

test('the flag of the config is what holds without the option', async () => {
  const scaled = withChangedJson(folderOf('llava'), at('scaled'), 'config.json', (json) => {
    json.scale_image_features = true;
  });
  const inputs = await inputsOf('llava');
  expectOutputs('a scaled llava', await forward(scaled, inputs), await golden('llava', 'outputs-scaled'));
  expectOutputs(
    'a llava told not to scale',
    await forward(scaled, inputs, '--scale-image-features', 'false'),
    await golden('llava', 'outputs'),
  );
});

test('the override multiplies the image rows by sqrt(hidden), and nothing else', async () => {
  const inputs = await inputsOf('llava');
  const ids = Array.from(new BigInt64Array(inputs.get('input_ids')!.data.slice().buffer), Number);
  const words = ['--hidden-states', '--image-features', '--scale-image-features'];
  const plain = await forward(folderOf('llava'), inputs, ...words, 'false');
  const times = await forward(folderOf('llava'), inputs, ...words, 'true');
  const hidden = 24;
  const factor = Math.fround(Math.sqrt(hidden));
  const [before, after] = [plain, times].map((outputs) => valuesOf(outputs.get('hidden_states.0')!));
  expect(times.get('image_features')).toEqual(plain.get('image_features'));
  expect(after).toEqual(before.map((value, i) => (ids[Math.floor(i / hidden)] === 63 ? Math.fround(value * factor) : value)));
});

test('pixels of 16 bits are those of float32 after rounding', async () => {
  const inputs = await inputsOf('siglip');
  const { shape, data } = inputs.get('pixel_values')!;
  const exact = new Float32Array(data.slice().buffer);
  for (const [dtype, round] of [
    ['F16', float32ToFloat16],
    ['BF16', float32ToBfloat16],
  ] as const) {
    const stored: StoredTensor = { dtype, shape, data: bytesOf(round(exact)) };
    const rounded = valuesOf(stored);
    const wide: StoredTensor = { dtype: 'F32', shape, data: new Uint8Array(rounded.buffer, rounded.byteOffset, rounded.byteLength) };
    const [half, full] = [
      await forward(folderOf('siglip'), new Map([['pixel_values', stored]])),
      await forward(folderOf('siglip'), new Map([['pixel_values', wide]])),
    ];
    expect(half).toEqual(full);
  }
});

describe('folders', () => {
  test('an original LLaVA folder that only names its vision tower takes it from --vision-tower', async () => {
    expect((await cli('init', 'llava-gemma-tiny', '--out', at('hub'), '--dtype', 'float32')).code).toBe(0);
    const hub = await read(join(at('hub'), 'model.safetensors'));
    const config = shapeNamed('llava-gemma-tiny').config as unknown as LlavaConfig;
    const size = config.vision_config.image_size;
    const part = (pattern: RegExp, rename: (name: string) => string) =>
      new Map(
        [...hub]
          .filter(([name]) => pattern.test(name))
          .map(([name, tensor]) => [rename(name), { shape: tensor.shape, data: valuesOf(tensor) }]),
      );
    const tower = at('tower');
    await saveCheckpoint(tower, {
      config: config.vision_config,
      tensors: part(/^vision_tower/, (name) => name.replace('vision_tower.', '')),
      dtype: 'F32',
    });
    const native = at('native');
    await saveCheckpoint(native, {
      config: {
        ...config.text_config,
        architectures: ['LlavaGemmaForCausalLM'],
        model_type: 'llava_gemma',
        mm_projector_type: 'mlp2x_gelu',
        mm_vision_select_layer: -2,
        mm_vision_tower: 'someone/tower',
      },
      tensors: part(/^(?!vision_tower)/, (name) =>
        name
          .replace(/^multi_modal_projector\.linear_(\d)/, (_, n) => `model.mm_projector.${2 * (Number(n) - 1)}`)
          .replace(/^language_model\./, ''),
      ),
      dtype: 'F32',
    });
    // without a tokenizer, <image> is the first id after the vocabulary
    const ids = (image: number): StoredTensor => {
      const row = [2, ...Array<number>(imageTokenCount(config)).fill(image), 5, 6];
      return { dtype: 'I32', shape: [1, row.length], data: bytesOf(Int32Array.from(row)) };
    };
    const pixels = Float32Array.from({ length: 3 * size ** 2 }, (_, i) => Math.sin(i));
    const inputs = (image: number): Tensors =>
      new Map([
        ['input_ids', ids(image)],
        ['pixel_values', { dtype: 'F32', shape: [1, 3, size, size], data: new Uint8Array(pixels.buffer) }],
      ]);
    const joined = await forward(native, inputs(config.text_config.vocab_size), '--vision-tower', tower);
    const whole = await forward(at('hub'), inputs(config.image_token_index), '--scale-image-features', 'true');
    expect(joined).toEqual(whole);
  });

  test('a folder of another model is refused with the names of those that are taken', async () => {
    const other = withChangedJson(folderOf('gemma'), at('other'), 'config.json', (json) => {
      json.model_type = 'qwen2_vl';
    });
    const inputs = at('right.safetensors');
    await writeSafetensors(inputs, await inputsOf('gemma'));
    const refused = await cli('forward', '--model', other, '--inputs', inputs, '-o', at('x'));
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain(`${join(other, 'config.json')}: model_type: must be one of llava, gemma, gemma2, gemma3_text, `);
    expect(refused.stderr).toContain('(it is "qwen2_vl")');
  });
});
