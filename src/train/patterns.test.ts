import { describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { byPattern, checkPatterns, pathOf, patternOf } from './patterns.ts';

const query = 'language_model.model.layers.0.self_attn.q_proj.weight';
const paths = [query, query.replace('0', '1'), 'language_model.model.norm.weight', 'multi_modal_projector.linear_1.weight'];

test('a star stands for any text, and nothing else for anything but itself', () => {
  expect(patternOf('a.*.c').test('a.b.b.c')).toBe(true);
  expect(patternOf('a.*.c').test('a.c')).toBe(false);
  expect(patternOf('a.c').test('abc')).toBe(false);
  expect(patternOf('a*').test('xab')).toBe(false);
});

test('a path begins with the module', () => {
  expect(pathOf('language_model', 'language_model.x')).toBe('language_model.x');
  expect(pathOf('vision_model', 'visual_projection.weight')).toBe('vision_model.visual_projection.weight');
});

describe('of several patterns', () => {
  const choose = byPattern({ 'language_model.*.q_proj': 2, language_model: 1, '*norm*': 3 }, 0, 'stage s: lr_by_module');

  test('the one that says most decides, wherever it stands', () => {
    expect(choose(query)).toEqual({ value: 2, pattern: 'language_model.*.q_proj' });
    // a name is that of all that lies in it
    expect(choose('language_model.model.embed_tokens.weight')).toEqual({ value: 1, pattern: 'language_model' });
    expect(choose('vision_tower.post_layernorm.bias')).toEqual({ value: 3, pattern: '*norm*' });
    expect(choose('language_models.x')).toEqual({ value: 0 });
  });

  test('two that say as much, and something else, are refused', () => {
    const of = (first: number, second: number) => byPattern({ '*.q_proj': first, 'layers.*': second }, 0, 'stage s: lr_by_module');
    expect(of(1, 2)('layers.k_proj').value).toBe(2);
    expect(of(1, 1)('layers.q_proj').value).toBe(1);
    expect(() => of(1, 2)('layers.q_proj')).toThrow(UserError);
    expect(() => of(1, 2)('layers.q_proj')).toThrow(
      'stage s: lr_by_module: *.q_proj and layers.* both name layers.q_proj, and neither says more than the other: add a longer pattern for it',
    );
  });
});

describe('a pattern without a parameter', () => {
  const check = (values: Record<string, number>) => checkPatterns(values, paths, 'stage s: lr_by_module');

  test('is refused with the names that are most like it', () => {
    expect(() => check({ 'language_model.*.q_proj': 1 })).not.toThrow();
    expect(() => check({ 'language_model.*.query': 1 })).toThrow(
      'stage s: lr_by_module: nothing that is trained is called language_model.*.query: there are language_model.*.q_proj, language_model.*.norm, multi_modal_projector.linear_1',
    );
  });

  test('is refused where others decide for all that it names', () => {
    expect(() => check({ multi_modal_projector: 1, 'multi_modal_projector.linear_1': 2 })).toThrow(
      'other patterns say more of all that multi_modal_projector names: take it out',
    );
  });
});
