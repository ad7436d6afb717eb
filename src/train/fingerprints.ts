// What the stages of a run read, so that a run is not resumed over other data without a word. Pictures are
// not looked at: a damaged one may be put right, and their features are kept by content.

import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import type { StageSummary } from '../runs/folder.ts';
import type { Recipe } from './recipe.ts';
import type { Task } from './task.ts';

/**
 * What a stage reads, in an order that is always the same: what it is called, and what stands for its
 * content.
 */
type Inputs = { name: string; content: string }[];

/** By stage. */
export type Fingerprints = Record<string, Inputs>;

/** Bytes at either end of a weights file that stand for all of it. */
const ENDS = 1 << 20;

/** Size and SHA-256 of a file; of weights, which may be large, of both ends. */
async function contentOf(path: string): Promise<string> {
  const { size } = onDisk(path, () => statSync(path));
  const hash = createHash('sha256');
  const isLarge = path.endsWith('.safetensors') && size > 2 * ENDS;
  const parts = isLarge ? [{ end: ENDS - 1 }, { start: size - ENDS }] : [{}];
  for (const part of parts) for await (const bytes of createReadStream(path, part)) hash.update(bytes);
  return `${size} bytes, sha256 ${hash.digest('hex')}`;
}

/** The files that define a model or a tokenizer. */
function modelFiles(folder: string): string[] {
  const names = onDisk(folder, () => readdirSync(folder)).filter((name) => /\.(json|jinja|safetensors)$/.test(name));
  return names.sort().map((name) => join(folder, name));
}

/** Folders that the model of a recipe comes from. */
function modelFolders({ model }: Recipe): string[] {
  const fields = ['llava', 'vision_tower', 'language_model', 'tokenizer'];
  return Object.entries(model).flatMap(([field, value]) =>
    fields.includes(field) && typeof value === 'string' ? [resolvePath(value, `model.${field}`)] : [],
  );
}

/** The adapter that a stage trains further. */
function adapterFolders({ stages }: Recipe, index: number): string[] {
  const stage = stages[index];
  return 'lora' in stage && stage.lora && 'adapter' in stage.lora ? [resolvePath(stage.lora.adapter, 'lora.adapter')] : [];
}

/** Of all stages of a run. */
export async function fingerprintsOf(recipe: Recipe, task: Task): Promise<Fingerprints> {
  const known = new Map<string, string>();
  const prints: Fingerprints = {};
  for (const [index, { name, batch_size, accumulation, steps, epochs }] of task.stages.entries()) {
    const files = [...(task.dataFiles?.(index) ?? []), ...[...modelFolders(recipe), ...adapterFolders(recipe, index)].flatMap(modelFiles)];
    for (const path of files) if (!known.has(path)) known.set(path, await contentOf(path));
    prints[name] = [
      { name: 'which samples a step takes', content: JSON.stringify({ seed: recipe.seed, batch_size, accumulation, steps, epochs }) },
      ...files.map((path) => ({ name: path, content: known.get(path)! })),
    ];
  }
  return prints;
}

function firstChange(before: Inputs | undefined, now: Inputs): string | undefined {
  if (before === undefined) return undefined;
  // a file may have been moved: what counts is what is in it
  const index = now.findIndex(({ content }, i) => content !== before[i]?.content);
  return now[index]?.name ?? (before.length > now.length ? before[now.length].name : undefined);
}

/**
 * Compares what stages read with what they read when the run was saved last. UserError, naming the file, for
 * the stage in progress; of stages that have not begun, `note` is told.
 */
export function checkUnchanged(
  {
    finished,
    state,
    inputs: before,
  }: { finished: readonly StageSummary[]; state?: { stage: string; step: number }; inputs?: Fingerprints },
  inputs: Fingerprints,
  note: (text: string) => void,
): void {
  if (before === undefined) return;
  for (const [stage, now] of Object.entries(inputs).slice(finished.length)) {
    const changed = firstChange(before[stage], now);
    if (changed === undefined) continue;
    if (stage === state?.stage)
      throw new UserError(
        `${changed} has changed since stage ${stage} began, of which ${state.step} steps are done: put it back as it was, or start another run`,
      );
    note(`${changed} has changed since the run began: stage ${stage} will read it as it is now`);
  }
}
