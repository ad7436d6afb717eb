import { mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { UserError } from '../errors.ts';
import { loadRecipe, recipeToYaml } from '../train/recipe.ts';
import { describeFailure } from './failure.ts';
import { InterruptedError, withInterrupt } from './interrupt.ts';
import { run } from './main.ts';
import { chooseSamples, formatSamples } from './run/demo.ts';
import { trainOptionsOf } from './run/train.ts';

let stdout = '';
let stderr = '';

beforeEach(() => {
  stdout = '';
  stderr = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    stdout += text;
    return true;
  });
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    stderr += text;
    return true;
  });
  vi.spyOn(console, 'log').mockImplementation((text) => {
    stdout += `${text}\n`;
  });
  vi.spyOn(console, 'error').mockImplementation((text) => {
    stderr += `${text}\n`;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

const cli = (...words: string[]) => run(['node', 'llava-gemma', ...words]);
const scratch = () => mkdtempSync(join(tmpdir(), 'cli-'));

describe('help', () => {
  it('is what one gets without a command', async () => {
    expect(await cli()).toBe(0);
    for (const command of ['demo', 'train', 'eval', 'chat', 'data', 'pull', 'convert', 'info', 'init', 'forward'])
      expect(stdout).toMatch(new RegExp(`^ {2}${command} `, 'm'));
  });

  it.each(['demo', 'train', 'eval', 'chat', 'data', 'pull', 'convert', 'info', 'init', 'forward'])('of %s', async (command) => {
    expect(await cli(command, '--help')).toBe(0);
    expect(stdout).toContain(`Usage: llava-gemma ${command}`);
  });

  it('--version is that of the package', async () => {
    expect(await cli('--version')).toBe(0);
    expect(stdout.trim()).toBe(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version);
  });
});

describe('wrong command lines', () => {
  it.each([
    [['tarin'], "unknown command 'tarin'"],
    [['train', '--sett', 'a=1'], "unknown option '--sett'"],
    [['chat', '--max-new-tokens', '0'], 'It must be a whole number above 0'],
    [['data'], "required option '-o, --out <folder>' not specified"],
    [['train', 'recipes/nowhere.yaml'], 'error: recipe: there is nothing at recipes/nowhere.yaml'],
    [
      ['train', 'recipes/emoji-tiny.yaml', '--set', 'stages.0.epoch=3'],
      'error: recipes/emoji-tiny.yaml: unknown field stages.0.epoch; did you mean epochs?',
    ],
    [['train'], 'error: give a recipe'],
    [['train', '--resume'], 'error: --resume needs --out'],
    [['train', '--resume', '--overwrite', '--out', 'x'], 'give one of them'],
    [['chat', '--model', 'nowhere'], 'error: --model: there is nothing at nowhere'],
    [['chat', '--model', 'recipes'], 'config.json: no such file'],
    [
      ['eval', '--model', 'recipes', '--split', 'test'],
      'error: --split test: the splits are unseen-scenes, unseen-artist, unseen-concepts',
    ],
    [['eval', '--model', 'recipes', '--data', 'x.json'], 'error: --data needs --image-folder'],
    [['data', '--out', 'x', '--held-out-artist', 'rembrandt'], 'error: --held-out-artist rembrandt: the artists are'],
    [['init', 'llava-gemma-tiny'], "required option '-o, --out <folder>' not specified"],
    [['info', 'recipes'], 'config.json: no such file'],
    [['forward', '--model', 'recipes', '--inputs', 'x'], "required option '-o, --output <file>' not specified"],
    [['convert', 'recipes', 'x', '--max-shard-size', 'much'], 'It must be a size such as 5GB or 500MB'],
  ])('%j', async (words, message) => {
    expect(await cli(...words)).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^ +at /m);
  });
});

describe('data', () => {
  it('writes LLaVA JSON and pictures', async () => {
    const out = scratch();
    expect(await cli('data', '--out', out, '--train-scenes', '3', '--evaluation-scenes', '2', '--size', '32')).toBe(0);
    expect(stdout).toContain('unseen-artist');
    expect(readdirSync(out)).toContain('images');
    expect(stdout).toContain(join(out, 'images'));
  });
});

describe('trainOptionsOf', () => {
  const recipe = 'recipes/tiny-gemma.yaml';
  const flags = { set: [] };

  it('names the run after the recipe', async () => {
    expect(await trainOptionsOf(recipe, flags)).toMatchObject({ out: join('runs', 'tiny-gemma'), title: 'tiny-gemma', mode: 'new' });
    expect(await trainOptionsOf(recipe, { ...flags, out: 'a/b', overwrite: true })).toMatchObject({
      out: 'a/b',
      title: 'b',
      mode: 'overwrite',
    });
  });

  it('resumes with the recipe of the run only', async () => {
    const out = scratch();
    mkdirSync(out, { recursive: true });
    const own = loadRecipe(recipe, ['seed=7']);
    writeFileSync(join(out, 'recipe.yaml'), recipeToYaml(own));
    expect(await trainOptionsOf(undefined, { ...flags, out, resume: true })).toMatchObject({ recipe: own, mode: 'resume' });
    expect(await trainOptionsOf(recipe, { set: ['seed=7'], out, resume: true })).toMatchObject({ recipe: own });
    await expect(trainOptionsOf(recipe, { ...flags, out, resume: true })).rejects.toThrow('differs from');
    await expect(trainOptionsOf(undefined, { set: ['seed=7'], out, resume: true })).rejects.toThrow('--set cannot change');
    await expect(trainOptionsOf(recipe, { ...flags, out: join(out, 'none'), resume: true })).rejects.toThrow('no run to resume');
  });
});

describe('describeFailure', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
  });

  it('is one line for what the user did, with a hint for what nobody expected', () => {
    vi.stubEnv('DEBUG', '');
    expect(describeFailure(new UserError('a.png: not a picture'))).toEqual({ text: 'error: a.png: not a picture', code: 1 });
    expect(describeFailure(new TypeError('x is undefined\nmore'))).toEqual({
      text: 'error: x is undefined\n(unexpected; DEBUG=1 shows where it happened)',
      code: 1,
    });
  });

  it('says in words what the system refuses, with the path', () => {
    vi.stubEnv('DEBUG', '');
    const refused = (code: string, path?: string) => Object.assign(new Error(`${code}: text, write`), { code, path });
    expect(describeFailure(refused('EACCES', '/a/b')).text).toBe('error: /a/b: no permission');
    expect(describeFailure(refused('EISDIR', 'b')).text).toBe('error: b: it is a folder');
    expect(describeFailure(refused('ENOSPC')).text).toBe('error: the disk is full (ENOSPC: text, write)');
    expect(describeFailure(refused('EODD', 'b')).text).toMatch(/unexpected/);
  });

  it('names an option or argument that is empty', async () => {
    for (const words of [
      ['chat', '--image', ''],
      ['chat', '--prompt', ' '],
      ['eval', '--out', ''],
      ['train', 'a.yaml', '--set', ''],
    ]) {
      expect(await run(['node', 'llava-gemma', ...words])).toBe(1);
      expect(stderr).toBe(`error: ${words.at(-2)} is empty; give a value\n`);
      stderr = '';
    }
    expect(await run(['node', 'llava-gemma', 'info', ''])).toBe(1);
    expect(stderr).toBe('error: <folder> is empty; give a value\n');
  });

  it('shows the stack to whoever asks for it', () => {
    vi.stubEnv('DEBUG', '1');
    expect(describeFailure(new UserError('x')).text).toMatch(/UserError: x\n +at /);
  });

  it('ends with 130 when interrupted', () => {
    expect(describeFailure(new InterruptedError('interrupted; go on')).code).toBe(130);
  });
});

describe('withInterrupt', () => {
  it('aborts the work, which can save before it ends, and leaves no handler behind', async () => {
    const before = process.listenerCount('SIGINT');
    let isSaved = false;
    const work = withInterrupt(async (signal) => {
      process.emit('SIGINT');
      isSaved = signal.aborted;
      signal.throwIfAborted();
    }, 'go on with: x');
    await expect(work).rejects.toThrow(InterruptedError);
    await expect(work).rejects.toThrow('interrupted; go on with: x');
    expect(isSaved).toBe(true);
    expect(process.listenerCount('SIGINT')).toBe(before);
  });

  it('takes a signal that comes twice at once for one, as under npm, and ends at a later one', async () => {
    const exit = vi.spyOn(process, 'exit').mockImplementation(() => undefined as never);
    const clock = vi.spyOn(performance, 'now').mockReturnValue(1000);
    const exits: number[] = [];
    const work = withInterrupt(async (signal) => {
      for (const time of [1000, 1005, 3000]) {
        clock.mockReturnValue(time);
        process.emit('SIGINT');
        exits.push(exit.mock.calls.length);
      }
      signal.throwIfAborted();
    }, 'go on');
    await expect(work).rejects.toThrow(InterruptedError);
    expect(exits).toEqual([0, 0, 1]);
    clock.mockRestore();
    exit.mockRestore();
  });
});

describe('samples of the demo', () => {
  const sample = (task: string, image: string, correct = true) => ({
    id: 'x',
    image,
    task,
    split: 'a',
    prompt: '<image>\nWhat is it?\nA. cat\nAnswer with the letter.',
    expected: 'A',
    answer: 'B',
    correct,
  });

  it('show different tasks on different pictures', () => {
    const chosen = chooseSamples([sample('count', '1'), sample('name', '1'), sample('name', '2'), sample('colour', '1')], 3);
    expect(chosen.map(({ task, image }) => task + image)).toEqual(['count1', 'name2', 'colour1']);
  });

  it('are printed with the question as asked', () => {
    expect(formatSamples([sample('count', '1.png', false)])).toBe('1.png\n  What is it?  A. cat\n  B  (wrong: A)');
  });
});
