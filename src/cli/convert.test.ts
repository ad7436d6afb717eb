import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { openCheckpoint, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { convertCheckpoint } from '../pretrained/convert.ts';
import { openSafetensors } from '../weights/safetensors.ts';
import { register } from './convert.ts';

const scratch = mkdtempSync(join(tmpdir(), 'convert-'));
const from = join(scratch, 'from');
// thirds are rounded by every 16-bit type
const values = Float32Array.of(1 / 3, -2, 1e-3, 100);

async function convert(to: string, ...words: string[]): Promise<string> {
  const program = new Command().exitOverride();
  register(program);
  vi.spyOn(console, 'log').mockImplementation(() => {});
  await program.parseAsync(['node', 'llava-gemma', 'convert', from, to, ...words]);
  return to;
}

beforeAll(async () => {
  const moments = new Map([['w.mean', { dtype: 'F32' as const, shape: [1], data: new Uint8Array(4) }]]);
  await saveCheckpoint(from, {
    config: { model_type: 'llava', note: 'kept' },
    tensors: new Map([['w', { shape: [2, 2], data: values }]]),
    dtype: 'F32',
    files: { 'tokenizer.json': '{"a":"ü"}', 'chat_template.jinja': '{{ bos_token }}', 'trainer_state.json': '{}' },
    tensorFiles: { 'optimizer.safetensors': moments },
  });
});

describe('a converted checkpoint', () => {
  it.each([
    ['float32', 'F32', 0],
    ['float16', 'F16', 2 ** -11],
    ['bfloat16', 'BF16', 2 ** -8],
  ] as const)('in %s has the values up to its rounding', async (dtype, stored, rounding) => {
    const to = await convert(join(scratch, dtype), '--dtype', dtype);
    const checkpoint = await openCheckpoint(to);
    expect(checkpoint.config).toEqual({ model_type: 'llava', note: 'kept', dtype });
    expect(checkpoint.shape('w')).toEqual([2, 2]);
    const converted = await checkpoint.float32('w');
    converted.forEach((value, i) => {
      expect(Math.abs(value - values[i])).toBeLessThanOrEqual(Math.abs(values[i]) * rounding);
    });
    await checkpoint.close();
    const file = await openSafetensors(join(to, 'model.safetensors'));
    expect(file.info('w').dtype).toBe(stored);
    await file.close();
  });

  it('keeps what a user of the model needs and drops what only its trainer needs', async () => {
    const to = await convert(join(scratch, 'small'));
    expect(readdirSync(to).sort()).toEqual(['chat_template.jinja', 'config.json', 'model.safetensors', 'tokenizer.json']);
    for (const name of ['tokenizer.json', 'chat_template.jinja'])
      expect(readFileSync(join(to, name))).toEqual(readFileSync(join(from, name)));
  });

  it('takes the place of an earlier one, but of nothing else', async () => {
    const to = await convert(join(scratch, 'again'), '--dtype', 'float32');
    writeFileSync(join(to, 'left-over.json'), '{}');
    await convert(to, '--dtype', 'bfloat16');
    expect(readdirSync(to)).not.toContain('left-over.json');

    const diary = join(scratch, 'diary');
    mkdirSync(diary);
    writeFileSync(join(diary, 'monday.txt'), 'rain');
    await expect(convert(diary)).rejects.toThrow(`${diary} holds monday.txt and is no checkpoint; give another folder`);
    await expect(convert(join(diary, 'monday.txt'))).rejects.toThrow('monday.txt is a file; give a folder');
    expect(readdirSync(diary)).toEqual(['monday.txt']);

    // a project with a config.json of its own; a model in a folder of another one
    for (const make of [(path: string) => writeFileSync(path, 'rain'), (path: string) => mkdirSync(path)]) {
      const project = mkdtempSync(join(scratch, 'project-'));
      writeFileSync(join(project, 'config.json'), '{}');
      make(join(project, 'monday.txt'));
      await expect(convert(project)).rejects.toThrow(`${project} holds monday.txt, which no checkpoint has and which would be lost`);
      expect(readdirSync(project)).toEqual(['config.json', 'monday.txt']);
    }
  });

  it('does not replace what it is made from', async () => {
    for (const to of [from, `${from}/../from`])
      await expect(convert(to)).rejects.toThrow(`${to}: it would replace what it is made from; give another folder`);
    expect(readdirSync(from)).toContain('optimizer.safetensors');
  });

  it('is written where it was asked for, however the path is spelled', async () => {
    const to = await convert(join(scratch, 'spelled'));
    for (const spelled of [`${to}/`, `${to}/../spelled`, `${to}/.`]) {
      await convert(spelled, '--dtype', 'float32');
      expect(readdirSync(to)).toContain('model.safetensors');
      expect(readdirSync(scratch).filter((name) => /incomplete|replaced/.test(name))).toEqual([]);
    }
    const fresh = await convert(`${join(scratch, 'slash')}/`);
    expect(readdirSync(fresh)).toContain('config.json');
  });

  it.each([
    ['float16', [65504, 65519.99], []],
    ['float16', [65504, -65520, 7e4], 'w holds 70000, but float16 ends at 65504: write bfloat16 or float32 instead'],
    ['bfloat16', [3.396e38, -7e4], []],
    ['bfloat16', [3.4e38], 'w holds 3.3999999521443642e+38, but bfloat16 ends at 3.3895313892515355e+38: write float32 instead'],
    // a folder that has infinity keeps it
    ['float16', [Number.POSITIVE_INFINITY, 1], [Number.POSITIVE_INFINITY]],
  ] as const)('in %s holds no infinity that was a number: %j', async (dtype, numbers, expected) => {
    const large = mkdtempSync(join(scratch, 'large-'));
    const data = Float32Array.from(numbers);
    await saveCheckpoint(large, { config: {}, tensors: new Map([['w', { shape: [data.length], data }]]) });
    const to = join(large, 'converted');
    const converting = convertCheckpoint(large, to, { dtype, maxShardSize: 1e9 });
    if (typeof expected === 'string') {
      await expect(converting).rejects.toThrow(new UserError(`${to}: ${expected}`));
      expect(existsSync(to)).toBe(false);
      return;
    }
    await converting;
    const checkpoint = await openCheckpoint(to);
    expect([...(await checkpoint.float32('w'))].filter((value) => !Number.isFinite(value))).toEqual(expected);
    await checkpoint.close();
  });

  it('is of a known type', async () => {
    await expect(convert(join(scratch, 'int8'), '--dtype', 'int8')).rejects.toThrow('--dtype int8: must be float32, float16 or bfloat16');
  });
});
