import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { FolderTakenError } from '../folder-lock.ts';
import { type Recipe, readRecipe } from './recipe.ts';
import { holdingScenes, scenesIn } from './scenes.ts';

const folder = mkdtempSync(join(tmpdir(), 'scenes-'));
afterAll(() => rmSync(folder, { recursive: true }));
const place = join(folder, 'emoji');
const text = `
task: llava
model: { vision_tower: a, language_model: b }
data: { generate: emoji, folder: ${JSON.stringify(place)}, train_scenes: 8 }
stages: [{ name: only, train: [multi_modal_projector], data: captions }]
`;
const recipe = (...set: string[]) => readRecipe(text, 'recipe.yaml', set);
const quiet = { note: () => {}, patience: 0.2 };
const hold = (held: Recipe, work: () => Promise<unknown> = async () => 'done') => holdingScenes(held, quiet, work);

it('scenes are named by all that they depend on, and by nothing else', () => {
  const { digest } = scenesIn(recipe())!;
  for (const same of ['data.folder=elsewhere', 'stages.0.lr=1', 'data.seed=42'])
    expect(scenesIn(recipe('seed=42', same))!.digest === scenesIn(recipe('seed=42'))!.digest, same).toBe(true);
  for (const other of ['seed=7', 'data.train_scenes=9', 'data.evaluation_scenes=9', 'data.scene_size=32', 'data.held_out_artist=noto'])
    expect(scenesIn(recipe(other))!.digest, other).not.toBe(digest);
});

it('a folder of scenes is shared by runs with the same, and by no others at a time', async () => {
  await hold(recipe(), async () => {
    expect(await hold(recipe('stages.0.lr=1'))).toBe('done');
    const other = hold(recipe('seed=7'));
    await expect(other).rejects.toThrow(/emoji: a run is going on with other scenes there.*--set data\.folder=/);
    await expect(hold(recipe('data.train_scenes=9'))).rejects.toThrow('other scenes');
    expect(await hold(recipe('seed=7', `data.folder=${place}-7`))).toBe('done');
    // the refused ones have left nothing
    expect(readdirSync(place).length).toBe(1);
  });
  expect(readdirSync(folder)).toEqual([]);
  expect(await hold(recipe('seed=7'))).toBe('done');
});

it('a folder that cannot be written is held by nobody, and other scenes there are a fault of this machine', async () => {
  const closed = join(folder, 'closed');
  mkdirSync(closed);
  // no hindrance to root, for whom it is held as any other
  chmodSync(closed, 0o555);
  expect(await hold(recipe(`data.folder=${closed}`))).toBe('done');
  rmSync(closed, { recursive: true });
  await hold(recipe(), async () => {
    await expect(hold(recipe('seed=7'))).rejects.toThrow(FolderTakenError);
  });
});

it('what a killed run has left keeps nobody out', async () => {
  const left = join(place, `.read-${'0'.repeat(16)}-killed`);
  mkdirSync(left, { recursive: true });
  writeFileSync(join(left, 'run.lock.1'), JSON.stringify({ pid: 2 ** 22 + 1, host: hostname(), since: '', token: 'a', beat: 1 }));
  expect(await hold(recipe())).toBe('done');
  expect(readdirSync(place)).toEqual([]);
});
