import { expect, test } from 'vitest';
import { loadRecipe } from '../train/recipe.ts';
import { rehearsed } from './plan.ts';

test('a rehearsal has samples to train on beside those that are held out', () => {
  const base = loadRecipe('recipes/emoji-tiny.yaml', ['data.train_scenes=1600', 'stages.0.held_out={samples: 128, every: 100}']);
  if (base.task !== 'llava') throw new Error('of another task');
  const recipe = rehearsed(base, { stages: [{ steps: 900 }, { steps: 3 }] });
  expect(recipe.stages.map(({ steps }) => steps)).toEqual([8, 3]);
  expect(recipe.data!.train_scenes).toBeGreaterThan(128);
  expect(recipe.data!.train_scenes).toBeLessThan(1600);
});
