import { expect, it } from 'vitest';
import { scenesIn } from '../train/scenes.ts';
import { trialRecipe } from './trial-recipe.ts';

const place = 'emoji';
const text = `
task: llava
model: { vision_tower: a, language_model: b }
data: { generate: emoji, folder: ${place}, train_scenes: 8 }
stages: [{ name: only, train: [multi_modal_projector], data: captions }]
evaluate: { splits: [unseen-artist] }
`;

it('a trial of a search has a folder of its own for scenes that the base recipe does not ask for', () => {
  const search = { set: [], objective: { accuracy: 'unseen-artist' as const }, budget: {}, space: {} } as unknown as Parameters<
    typeof trialRecipe
  >[1];
  const folderOf = (set: string[], seed?: number) => {
    const trial = trialRecipe({ name: 'base', text }, search, { set, values: {}, share: 1, seed });
    return scenesIn(trial)!.folder;
  };
  expect(folderOf([])).toBe(place);
  const folders = [folderOf(['data.train_scenes=9']), folderOf(['data.train_scenes=10']), folderOf([], 7), folderOf([], 8)];
  for (const each of folders) expect(each.startsWith(`${place}-`)).toBe(true);
  expect(new Set(folders).size).toBe(4);
});
