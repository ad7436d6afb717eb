import { expect, test } from 'vitest';
import { checkStageRates } from './rates.ts';
import type { Stage } from './recipe.ts';

test('a pattern that names only weights that are not trained is refused', () => {
  const stage = (fields: object) =>
    ({
      name: 's',
      lr: 1,
      weight_decay: 0,
      lr_by_module: {},
      weight_decay_by_module: {},
      train: ['vision_tower'],
      ...fields,
    }) as unknown as Stage;
  const check = (fields: object) => () =>
    checkStageRates(stage(fields), ['vision_tower.layers.0.weight', 'head.weight'], (name) => name.split('.')[0]);
  expect(check({ lr_by_module: { 'vision_tower.*.0.*': 2 } })).not.toThrow();
  expect(check({ lr_by_module: { 'vision_tower.*.1.*': 2 } })).toThrow(/stage s: lr_by_module.*vision_tower\.\*\.1/);
  expect(check({ weight_decay_by_module: { head: 1 } })).toThrow('stage s: weight_decay_by_module');
});
