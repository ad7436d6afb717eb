import { existsSync, realpathSync } from 'node:fs';
import { isAbsolute, relative, sep } from 'node:path';
import { UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { contentOf, isSameContent, modelFiles } from '../pretrained/content.ts';
import type { StageSummary } from '../runs/folder.ts';
import type { LlavaStage, Recipe } from './recipe.ts';
import type { Task } from './task.ts';

/**
 * What a stage reads, in an order that is always the same: what it is called, and what stands for its
 * content.
 */
type Inputs = { name: string; content: string }[];

/** Stands for what the recipe says; its content is JSON, with null for fields that are left out. */
const SETTINGS = 'recipe';

/** By stage. */
export type Fingerprints = Record<string, Inputs>;

const folderFields = ['llava', 'vision_tower', 'language_model', 'tokenizer'];

/** Folders that the model of a recipe comes from. */
export function modelFolders({ model }: Recipe): string[] {
  return Object.entries(model).flatMap(([field, value]) =>
    folderFields.includes(field) && typeof value === 'string' ? [resolvePath(value, `model.${field}`)] : [],
  );
}

/** UserError where the folder `out`, which is to be emptied, holds a model or data that the run reads. */
export function checkOutside(out: string, recipe: Recipe, task: Task): void {
  if (!existsSync(out)) return;
  const folder = realpathSync(out);
  const read = task.stages.flatMap((_, index) => [...(task.dataFiles?.(index) ?? []), ...adapterFolders(recipe, index)]);
  const inside = [...modelFolders(recipe), ...read].find((path) => {
    const way = relative(folder, realpathSync(path));
    return !isAbsolute(way) && way.split(sep)[0] !== '..';
  });
  if (inside !== undefined)
    throw new UserError(`--overwrite would remove ${inside}, which the run reads; give another --out, or move it elsewhere first`);
}

/** Fields of a stage that may change in its middle: they decide no sample of a step, and no shape. */
const changeable =
  'name lr lr_by_module schedule warmup_ratio warmup_steps min_lr_ratio decay_ratio weight_decay weight_decay_by_module betas eps max_grad_norm save_every save_every_minutes keep_checkpoints keep_best log_every on_bad_sample picture_threads';

const without = (fields: object, names: readonly string[]) =>
  Object.fromEntries(Object.entries(fields).filter(([name]) => !names.includes(name)));

/** What a recipe says of a stage and its model, but for paths: what lies there is looked at by itself. */
function settingsOf({ seed, model, data, stages }: Recipe, index: number): Record<string, unknown> {
  const { data: files, lora, ...stage } = stages[index] as Recipe['stages'][number] & Partial<Pick<LlavaStage, 'data' | 'lora'>>;
  return {
    seed,
    ...without(stage, changeable.split(' ')),
    lora: lora && without(lora, ['adapter']),
    model: without(model, folderFields),
    generated: data && without(data, ['folder']),
    shares: [files ?? []]
      .flat()
      .map((file) => (typeof file === 'string' ? file : file.samples === undefined ? file.share : { samples: file.samples })),
  };
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
  for (const [index, { name }] of task.stages.entries()) {
    const files = [...(task.dataFiles?.(index) ?? []), ...[...modelFolders(recipe), ...adapterFolders(recipe, index)].flatMap(modelFiles)];
    for (const path of files) if (!known.has(path)) known.set(path, await contentOf(path));
    prints[name] = [
      { name: SETTINGS, content: JSON.stringify(settingsOf(recipe, index), (_, value) => value ?? null) },
      ...files.map((path) => ({ name: path, content: known.get(path)! })),
    ];
  }
  return prints;
}

/** The first field that differs. Fields that one of the two does not know are those of another version. */
function changedField(before: string, now: string): string | undefined {
  const [old, present] = [before, now].map((json) => JSON.parse(json) as Record<string, unknown>);
  return Object.keys(present).find((name) => name in old && JSON.stringify(old[name]) !== JSON.stringify(present[name]));
}

function firstChange([settings, ...before]: Inputs, [settingsNow, ...now]: Inputs): string | undefined {
  const field = changedField(settings.content, settingsNow.content);
  if (field !== undefined) return `${field} of the recipe`;
  // a file may have been moved: what counts is what is in it
  const index = now.findIndex(({ content }, i) => !isSameContent(before[i]?.content, content));
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
    const changed = before[stage] && firstChange(before[stage], now);
    if (changed === undefined) continue;
    if (stage === state?.stage)
      throw new UserError(
        `${changed} has changed since stage ${stage} began, of which ${state.step} steps are done: put it back as it was, or start another run`,
      );
    note(`${changed} has changed since the run began: stage ${stage} will read it as it is now`);
  }
}
