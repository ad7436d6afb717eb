// Setup shared by the tests that cross rooms: toy backbones and a toy LLaVA recipe made through the real
// recipes, and the command line in this process or in one of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect, vi } from 'vitest';
import { stringify } from 'yaml';
import { openCheckpoint } from '../src/checkpoint/checkpoint.ts';
import { run } from '../src/cli/main.ts';

export const bin = fileURLToPath(new URL('../bin/llava-gemma.js', import.meta.url));
const dieWithParent = new URL('die-with-parent.mjs', import.meta.url).href;

// a worker of vitest outlives vitest where that is killed, and would go on with its tests
process.once('disconnect', () => process.exit(1));

export interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** The command line in this process, which is fast. */
export async function cli(...words: string[]): Promise<Outcome> {
  const said = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said[name] += text;
      return true;
    }),
  );
  // vitest replaces the console with one that does not write to the streams
  const log = vi.spyOn(console, 'log').mockImplementation((text) => {
    said.stdout += `${text}\n`;
  });
  const error = vi.spyOn(console, 'error').mockImplementation((text) => {
    said.stderr += `${text}\n`;
  });
  try {
    return { code: await run(['node', 'llava-gemma', ...words]), ...said };
  } finally {
    for (const spy of [...spies, log, error]) spy.mockRestore();
  }
}

/**
 * The command line as a user starts it, in a process of its own, which ends with this one at the latest. Its
 * input stays open if `input` is null.
 */
export function spawnCli(words: readonly string[], input: string | null = ''): { child: ChildProcess; outcome: Promise<Outcome> } {
  const child = spawn(process.execPath, ['--import', dieWithParent, bin, ...words], {
    env: { ...process.env, DEBUG: '' },
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
  });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name]!.setEncoding('utf8').on('data', (text: string) => {
      said[name] += text;
    });
  if (input !== null) child.stdin!.end(input);
  const outcome = new Promise<Outcome>((resolve) => child.on('close', (code) => resolve({ code, ...said })));
  return { child, outcome };
}

const gemma = {
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 192,
};
const vision = { image_size: 32, patch_size: 16, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 2 };
const text = { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, max_position_embeddings: 64 };

/** Toy recipes. Paths are relative to the folder that `enterToyFolder` enters. */
export const recipes = {
  clip: {
    task: 'contrastive',
    model: { vision_config: vision, text_config: text, projection_dim: 16, tokenizer: 'assets/tokenizer' },
    data: { generate: 'emoji' },
    stages: [{ name: 'clip', steps: 2, batch_size: 4, log_every: 1 }],
  },
  gemma: {
    task: 'language-model',
    model: { text_config: gemma, tokenizer: 'assets/tokenizer' },
    data: { generate: 'emoji' },
    stages: [{ name: 'gemma', steps: 2, batch_size: 2, max_length: 64, log_every: 1, mixture: [{ source: 'captions', weight: 1 }] }],
  },
  llava: {
    task: 'llava',
    model: { vision_tower: 'clip/checkpoints/clip', language_model: 'gemma/checkpoints/gemma' },
    data: { generate: 'emoji', folder: 'scenes', train_scenes: 12, evaluation_scenes: 2, scene_size: 32 },
    stages: [
      {
        name: 'pretrain',
        train: ['multi_modal_projector'],
        data: 'captions',
        template: 'gemma',
        steps: 4,
        batch_size: 4,
        lr: 0.01,
        max_length: 160,
        log_every: 1,
      },
      {
        name: 'finetune',
        train: ['multi_modal_projector', 'language_model'],
        data: 'questions',
        steps: 4,
        batch_size: 8,
        lr: 0.01,
        max_length: 160,
        log_every: 1,
      },
    ],
    evaluate: { splits: ['unseen-artist'], max_new_tokens: 4 },
  },
} as const;

/** Trains the backbones in `folder`, which all test files share, unless another has done so or is at it. */
async function shareBackbones(folder: string): Promise<void> {
  const ready = join(folder, 'ready');
  try {
    mkdirSync(folder);
  } catch {
    while (!existsSync(ready)) await sleep(50);
    return;
  }
  for (const name of ['clip', 'gemma'] as const) {
    const recipe = join(folder, `${name}.yaml`);
    writeFileSync(recipe, stringify(recipes[name]));
    const { code, stderr } = await cli('train', recipe, '--out', join(folder, name));
    if (code !== 0) throw new Error(`cannot train the toy ${name}: ${stderr}`);
  }
  writeFileSync(ready, '');
}

/**
 * Enters a fresh folder with the recipes in it and the trained backbones in `clip/` and `gemma/`. Returns a
 * function that removes it.
 */
export async function enterToyFolder(): Promise<() => void> {
  const before = process.cwd();
  const folder = mkdtempSync(join(tmpdir(), 'llava-gemma-'));
  process.chdir(folder);
  for (const [name, recipe] of Object.entries(recipes)) writeFileSync(`${name}.yaml`, stringify(recipe));
  const shared = join(tmpdir(), 'toy-backbones');
  await shareBackbones(shared);
  for (const name of ['clip', 'gemma']) cpSync(join(shared, name), name, { recursive: true });
  return () => {
    process.chdir(before);
    rmSync(folder, { recursive: true, force: true });
  };
}

/** Runs `train` with these words, and expects it to succeed. */
export async function train(...words: string[]): Promise<void> {
  const { code, stderr } = await cli('train', ...words);
  expect(code, stderr).toBe(0);
}

/** The values of every tensor of a checkpoint, by our names. */
export async function tensorsOf(dir: string): Promise<Map<string, Float32Array>> {
  const checkpoint = await openCheckpoint(dir);
  const tensors = new Map<string, Float32Array>();
  for (const name of checkpoint.names) tensors.set(name, await checkpoint.float32(name));
  await checkpoint.close();
  return tensors;
}

/** Copies a folder, changing a JSON file in the copy. */
export function withChangedJson(
  from: string,
  to: string,
  file: string,
  // biome-ignore lint/suspicious/noExplicitAny: it is whatever the file holds
  change: (json: any) => void,
): string {
  cpSync(from, to, { recursive: true });
  const json = JSON.parse(readFileSync(join(to, file), 'utf8'));
  change(json);
  writeFileSync(join(to, file), JSON.stringify(json));
  return to;
}
