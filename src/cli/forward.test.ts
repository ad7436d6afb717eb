// What bad input comes to: one sentence that names file and tensor, an exit code, and nothing written. The
// numbers are in tests/forward.test.ts.
import { existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { cli } from '../../tests/toy.ts';
import { type StoredDType, type StoredTensor, writeSafetensors } from '../weights/safetensors.ts';

const scratch = mkdtempSync(join(tmpdir(), 'forward-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const golden = (name: string) => fileURLToPath(new URL(`../../tests/reference/goldens/${name}`, import.meta.url));
const llava = golden('llava');
const from = join(scratch, 'in.safetensors');
const to = join(scratch, 'out.safetensors');

type Tensors = Record<string, StoredTensor>;

const bytes = ({ buffer }: { buffer: ArrayBufferLike }) => new Uint8Array(buffer);
const int64 = (shape: number[], values: readonly number[]): StoredTensor => ({
  dtype: 'I64',
  shape,
  data: bytes(BigInt64Array.from(values, BigInt)),
});
const float32 = (shape: number[], dtype: StoredDType = 'F32'): StoredTensor => ({
  dtype,
  shape,
  data: new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
});
const row = (...values: number[]) => int64([1, values.length], values);
const image = Array<number>(16).fill(63);

/** Runs the command on `tensors`; the flags come last. */
async function forward(model: string, tensors: Tensors, ...words: string[]) {
  await writeSafetensors(from, new Map(Object.entries(tensors)));
  return cli('forward', '--model', model, '--inputs', from, '--output', to, ...words);
}

async function expectRefused(outcome: ReturnType<typeof cli>, ...parts: string[]): Promise<void> {
  const before = readdirSync(scratch);
  const { code, stdout, stderr } = await outcome;
  expect(code).toBe(1);
  expect(stdout).toBe('');
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(stderr).toMatch(/^error: /);
  for (const part of parts) expect(stderr).toContain(part);
  const written = readdirSync(scratch).filter((name) => !before.includes(name) && name !== 'in.safetensors');
  expect(written).toEqual([]);
  expect(existsSync(to)).toBe(false);
}

beforeEach(() => rmSync(to, { force: true }));

describe('tensors of the inputs', () => {
  const words = row(2, 5, 6);
  const pictures = float32([1, 3, 24, 24]);
  const tensor = (name: string) => `${from}: tensor "${name}": `;

  it.each<[string, string, Tensors, string[]]>([
    ['none', 'llava', { pixel_values: pictures }, [`${from}: it has no tensor "input_ids", which the model needs`]],
    ['no pixels for an encoder', 'dinov2', {}, [`${from}: it has no tensor "pixel_values", which the model needs`]],
    [
      'an unknown name',
      'llava',
      { input_ids: words, labels: words },
      [`${from}: tensor "labels" is not known here; the file may hold input_ids, attention_mask, pixel_values`],
    ],
    ['ids of floats', 'llava', { input_ids: float32([1, 3]) }, [`${tensor('input_ids')}expected int64 or int32, found F32`]],
    [
      'a mask of floats',
      'llava',
      { input_ids: words, attention_mask: float32([1, 3]) },
      [`${tensor('attention_mask')}expected int64 or int32, found F32`],
    ],
    [
      'pixels of whole numbers',
      'llava',
      { input_ids: row(2, ...image), pixel_values: float32([1, 3, 24, 24], 'I32') },
      [`${tensor('pixel_values')}expected a float tensor, found I32`],
    ],
    [
      'ids without a batch',
      'llava',
      { input_ids: int64([3], [2, 5, 6]) },
      [`${tensor('input_ids')}its shape is [3], but must be [batch, tokens]`],
    ],
    ['no ids', 'llava', { input_ids: int64([1, 0], []) }, [`${tensor('input_ids')}its shape is [1, 0], but must be`]],
    [
      'more tokens than the context',
      'llava',
      { input_ids: row(...Array(65).fill(5)) },
      [`${tensor('input_ids')}its rows have 65 tokens, but the model reads 64`],
    ],
    [
      'an id behind the vocabulary',
      'gemma',
      { input_ids: int64([2, 2], [2, 5, 101, 6]) },
      [`${tensor('input_ids')}id 101 at [1, 0] is not in the vocabulary, which has 0 to 100`],
    ],
    ['an id below 0', 'llava', { input_ids: row(2, -1) }, [`${tensor('input_ids')}id -1 at [0, 1] is not in the vocabulary`]],
    [
      'an id beyond int32',
      'llava',
      { input_ids: row(2, 5, 2 ** 32 + 5) },
      [`${tensor('input_ids')}4294967301 at [0, 2] is beyond the range of int32`],
    ],
    [
      'a mask of another shape',
      'gemma',
      { input_ids: words, attention_mask: int64([3, 1], [1, 1, 1]) },
      [`${tensor('attention_mask')}its shape is [3, 1], but input_ids has [1, 3]`],
    ],
    [
      'pixels for a language model',
      'gemma2',
      { input_ids: words, pixel_values: pictures },
      [`${tensor('pixel_values')}the model has no vision encoder; it takes input_ids and attention_mask only`],
    ],
    [
      'ids for an encoder',
      'siglip',
      { input_ids: words, pixel_values: pictures },
      [`${tensor('input_ids')}the model has no language model; it takes pixel_values only`],
    ],
    [
      'pixels of one picture without a batch',
      'llava',
      { input_ids: row(2, ...image), pixel_values: float32([3, 24, 24]) },
      [`${tensor('pixel_values')}its shape is [3, 24, 24], but must be [images, 3, height, width]`],
    ],
    ['grey pixels', 'dinov2', { pixel_values: float32([1, 1, 12, 12]) }, ['its shape is [1, 1, 12, 12], but must be']],
    ['no picture', 'dinov2', { pixel_values: float32([0, 3, 12, 12]) }, ['with one image at least']],
    [
      'pictures that are no squares',
      'dinov2',
      { pixel_values: float32([1, 3, 12, 16]) },
      [`${tensor('pixel_values')}its pictures have 16 x 12 pixels, but the encoder takes squares`],
    ],
    [
      'pictures of another size',
      'llava',
      { input_ids: row(2, ...image), pixel_values: float32([1, 3, 30, 30]) },
      [`${tensor('pixel_values')}pictures of 30 x 30 pixels do not fit the encoder, which takes 24 x 24`],
    ],
    [
      'pictures smaller than a patch',
      'dinov2',
      { pixel_values: float32([1, 3, 3, 3]) },
      [`${tensor('pixel_values')}pictures of 3 x 3 pixels do not fill a patch of 4 x 4`],
    ],
    [
      'more images than places',
      'llava',
      { input_ids: row(2, ...image), pixel_values: float32([2, 3, 24, 24]) },
      [`${tensor('input_ids')}it has 16 image tokens (id 63), but pixel_values gives 32 rows (2 images of 16)`],
    ],
    [
      'places without an image',
      'llava',
      { input_ids: row(2, 63, 63) },
      [`${tensor('input_ids')}it has 2 image tokens (id 63), but without pixel_values there are 0 rows`],
    ],
  ])('%s', (_, model, tensors, parts) => expectRefused(forward(golden(model), tensors), ...parts));
});

describe('options', () => {
  const words = { input_ids: row(2, 5, 6) };

  it('that ask for what the model does not make', async () => {
    await expectRefused(forward(llava, words, '--image-features'), `--image-features: ${from} has no pixel_values`);
    await expectRefused(forward(golden('gemma'), words, '--image-features'), '--image-features', 'is no LLaVA');
    await expectRefused(forward(golden('gemma'), words, '--scale-image-features', 'true'), '--scale-image-features', 'is no LLaVA');
    await expectRefused(forward(llava, words, '--vision-tower', golden('clip')), 'is no original LLaVA folder');
  });

  it('that are no values', async () => {
    const { code, stderr } = await forward(llava, words, '--scale-image-features', 'yes');
    expect(code).toBe(1);
    expect(stderr).toContain('Allowed choices are true, false');
  });
});

describe('files', () => {
  const command = (model: string, inputs: string, output: string) =>
    cli('forward', '--model', model, '--inputs', inputs, '--output', output);
  beforeEach(() => writeSafetensors(from, new Map([['input_ids', row(2, 5, 6)]])));

  it('that are not there', async () => {
    await expectRefused(command('nowhere', from, to), '--model: there is nothing at nowhere');
    await expectRefused(command(llava, join(scratch, 'none'), to), `--inputs: there is nothing at ${join(scratch, 'none')}`);
    const lost = join(scratch, 'nowhere', 'out.safetensors');
    await expectRefused(command(llava, from, lost), `${lost}: cannot write it: no folder ${join(scratch, 'nowhere')}`);
  });

  it('that are no safetensors, or no place to write', async () => {
    const text = join(scratch, 'words.txt');
    writeFileSync(text, 'this is no tensor');
    await expectRefused(command(llava, text, to), text);
    await expectRefused(command(llava, from, join(text, 'out')), `cannot write it: ${text} is no folder`);
    await expectRefused(command(llava, scratch, to), `${scratch}: cannot open it: it is a folder`);
    const folder = join(scratch, 'folder');
    mkdirSync(folder);
    await expectRefused(command(llava, from, folder), `${folder} is a folder; give a file`);
  });

  it('that the output would replace', async () => {
    const before = readFileSync(from);
    const [soft, hard] = [join(scratch, 'soft'), join(scratch, 'hard')];
    symlinkSync(from, soft);
    linkSync(from, hard);
    for (const output of [from, join(scratch, '.', 'in.safetensors'), soft, hard])
      await expectRefused(command(llava, from, output), `${output}: it would replace ${from}, from which it is made`);
    expect(readFileSync(from)).toEqual(before);
    const weights = join(llava, 'model.safetensors');
    await expectRefused(command(llava, from, weights), `it would replace ${weights}`);
  });

  it('of an earlier pass are replaced whole', async () => {
    writeFileSync(to, 'from an earlier pass');
    expect(await command(llava, from, to)).toEqual({ code: 0, stdout: `wrote ${to}\n`, stderr: '' });
    const first = readFileSync(to);
    await command(llava, from, to);
    expect(readFileSync(to)).toEqual(first);
    expect(readdirSync(scratch).filter((name) => name.includes('incomplete'))).toEqual([]);
  });
});
