import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import * as promises from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { initialize } from '../nn/parameters.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { loadModel } from '../pretrained/load.ts';
import { readParameters } from '../pretrained/values.ts';
import { createRandom } from '../random.ts';
import { run } from './main.ts';

vi.mock('node:fs/promises', async (original) => ({ ...(await original<typeof promises>()) }));

const scratch = mkdtempSync(join(tmpdir(), 'init-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let stdout = '';
let stderr = '';
beforeEach(() => {
  stdout = '';
  stderr = '';
  vi.spyOn(console, 'log').mockImplementation((text) => {
    stdout += `${text}\n`;
  });
  vi.spyOn(console, 'error').mockImplementation((text) => {
    stderr += `${text}\n`;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += text;
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

const init = (name: string, ...words: string[]) =>
  run(['node', 'llava-gemma', 'init', 'llava-gemma-tiny', '--out', join(scratch, name), ...words]);
const weights = (name: string) => readFileSync(join(scratch, name, 'model.safetensors'));

describe('a fresh checkpoint', () => {
  it('has the values that training would begin with, drawn piece by piece', async () => {
    expect(await init('fresh', '--dtype', 'float32', '--seed', '3'), stderr).toBe(0);
    expect(stdout).toBe(`wrote ${join(scratch, 'fresh')}\n`);
    await withCheckpoint(join(scratch, 'fresh'), llavaConfigSchema, async (config, checkpoint) => {
      const parameters = llavaParameters(config);
      const values = await readParameters(checkpoint, parameters);
      for (const parameter of parameters)
        expect(values.get(parameter.name)).toEqual(initialize(parameter, createRandom(3, parameter.name)));
      expect(checkpoint.names.length).toBe(parameters.length);
    });
  });

  it('answers, as it has a tokenizer and an image processor', async () => {
    await init('answers');
    const { generator, tokenizer, config } = await loadModel(join(scratch, 'answers'));
    expect(tokenizer.imageTokenId).toBe(config.image_token_index);
    const rows = await generator.imageRows(await generator.imageFeatures(new Float32Array(3 * 32 * 32)));
    const inputIds = [tokenizer.bosTokenId, ...Array<number>(16).fill(config.image_token_index), tokenizer.newlineTokenId];
    const [answer] = await generator.generate([{ inputIds, imageRows: rows }], { maxNewTokens: 3, stopTokenIds: [] });
    expect(answer.length).toBe(3);
    await generator.dispose();
  });

  it('is the same for the same seed, and bfloat16 in one file unless asked', async () => {
    await init('a');
    await init('b');
    await init('c', '--seed', '43');
    expect(weights('a').equals(weights('b'))).toBe(true);
    expect(weights('a').equals(weights('c'))).toBe(false);
    expect(JSON.parse(readFileSync(join(scratch, 'a', 'config.json'), 'utf8')).dtype).toBe('bfloat16');
    await init('shards', '--max-shard-size', '0.1MB');
    expect(readdirSync(join(scratch, 'shards')).filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name)).length).toBeGreaterThan(
      2,
    );
  });
});

describe('what stands in the way is said in a sentence', () => {
  it('a folder that holds something, or a file', async () => {
    mkdirSync(join(scratch, 'diary'));
    writeFileSync(join(scratch, 'diary', 'monday.txt'), 'rain');
    expect(await init('diary')).toBe(1);
    expect(stderr).toBe(`error: ${join(scratch, 'diary')} is not empty; give another --out\n`);
    stderr = '';
    expect(await init(join('diary', 'monday.txt'))).toBe(1);
    expect(stderr).toContain('monday.txt is a file; give another --out');
    expect(readdirSync(join(scratch, 'diary'))).toEqual(['monday.txt']);
  });

  it.each([
    [['--dtype', 'int8'], '--dtype int8: must be float32, float16 or bfloat16'],
    [['--max-shard-size', 'big'], 'It must be a size such as 5GB or 500MB'],
    [['--max-shard-size', '0GB'], 'It must be a size'],
    [['--seed', '-1'], 'It must be a whole number'],
  ])('%j', async (words, message) => {
    expect(await init('never', ...words)).toBe(1);
    expect(stderr).toContain(message);
    expect(existsSync(join(scratch, 'never'))).toBe(false);
  });

  it('a shape that is not known', async () => {
    expect(await run(['node', 'llava-gemma', 'init', 'llava-gemma', '--out', join(scratch, 'never')])).toBe(1);
    expect(stderr).toMatch(/^error: there is no shape "llava-gemma"; the shapes are llava-gemma-2b, /);
  });

  it('a disk that is too small, before anything is drawn', async () => {
    vi.spyOn(promises, 'statfs').mockResolvedValue({ bavail: 10, bsize: 1000, blocks: 100 } as Awaited<ReturnType<typeof promises.statfs>>);
    expect(await init('never')).toBe(1);
    expect(stderr).toMatch(/the weights take 373 kB, but the disk has 10 kB free\n$/);
    expect(existsSync(join(scratch, 'never'))).toBe(false);
  });

  it('a disk that fills up half-way: nothing is left that looks like a checkpoint', async () => {
    const probe = await promises.open(join(scratch, 'probe'), 'w');
    const prototype = Object.getPrototypeOf(probe);
    await probe.close();
    const write = prototype.write;
    let written = 0;
    vi.spyOn(prototype, 'write').mockImplementation(async function (this: unknown, ...args: unknown[]) {
      written += (args[2] as number) ?? 0;
      if (written > 200_000) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
      return write.apply(this, args);
    });
    expect(await init('full', '--max-shard-size', '100kB')).toBe(1);
    expect(stderr).toMatch(/model-00002-of-\d{5}\.safetensors: the disk is full/);
    expect(readdirSync(scratch).filter((name) => name.startsWith('full'))).toEqual([]);
  });

  it('Ctrl-C', async () => {
    const written = init('interrupted');
    // the handler is there once drawing begins
    while (process.listenerCount('SIGINT') === 0) await new Promise((resolve) => setImmediate(resolve));
    process.emit('SIGINT');
    expect(await written).toBe(130);
    expect(stderr).toContain('interrupted; nothing was written');
    expect(readdirSync(scratch).filter((name) => name.startsWith('interrupted'))).toEqual([]);
  });
});

it('help names the shapes', async () => {
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += text;
    return true;
  });
  await run(['node', 'llava-gemma', 'init', '--help']);
  expect(stdout).toMatch(/^ {2}llava-gemma-7b {2,}Gemma 7B, /m);
  expect(stdout).toContain('$ llava-gemma init llava-gemma-tiny --out toy');
});
