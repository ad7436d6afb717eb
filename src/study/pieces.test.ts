import { describe, expect, test } from 'vitest';
import { type LlavaRecipe, parseRecipe } from '../train/recipe.ts';
import { type StudySettings, studyDifference } from './folder.ts';
import { type Piece, piecesOf, runsOf, scenesKey, stagesKey } from './pieces.ts';
import { makespan, shareOut } from './plan.ts';
import type { Study, StudyRun, Variant } from './variants.ts';

const contentOf = (path: string) => path;

const recipe = (changes: object = {}, stages: readonly [string, object?][] = [['one'], ['two']]): LlavaRecipe =>
  parseRecipe(
    {
      task: 'llava',
      model: { vision_tower: 'tower', language_model: 'language' },
      data: { generate: 'emoji', seed: 1 },
      stages: stages.map(([name, fields]) => ({ name, train: ['multi_modal_projector'], data: 'captions', steps: 4, ...fields })),
      ...changes,
    },
    'recipe',
  ) as LlavaRecipe;

function studyOf(recipes: readonly LlavaRecipe[], seeds: readonly number[]): Study {
  const variants = recipes.map((each, index): Variant => ({ index, levels: [index], label: `cell ${index}`, recipe: each }));
  const runs = variants.flatMap((variant) =>
    seeds.map((seed): StudyRun => ({ id: `${variant.index}-seed-${seed}`, variant, seed, recipe: { ...variant.recipe, seed } })),
  );
  return { variants, seeds: [...seeds], runs, factors: [] } as unknown as Study;
}

describe('keys of shared stages', () => {
  test('change with all that the stages depend on, and with nothing else', () => {
    const key = stagesKey(recipe(), 1, contentOf);
    expect(stagesKey(recipe({}, [['one'], ['two', { lr: 1 }]]), 1, contentOf)).toBe(key);
    expect(stagesKey(recipe({ evaluate: {} }), 1, contentOf)).toBe(key);
    for (const other of [
      recipe({ seed: 7 }),
      recipe({}, [['one', { lr: 1 }], ['two']]),
      recipe({ model: { vision_tower: 'tower', language_model: 'other' } }),
      recipe({ model: { vision_tower: 'tower', language_model: 'language', connector: 'linear' } }),
      recipe({ data: { generate: 'emoji', seed: 2 } }),
      recipe({ data: { generate: 'emoji', seed: 1, train_scenes: 9 } }),
    ])
      expect(stagesKey(other, 1, contentOf)).not.toBe(key);
    // what lies at a path counts, not what it is called
    expect(stagesKey(recipe(), 1, (path) => (path === 'tower' ? 'retrained' : path))).not.toBe(key);
  });

  test('scenes have one key wherever they are drawn', () => {
    expect(scenesKey(recipe({ data: { generate: 'emoji', seed: 1, folder: 'elsewhere' } }))).toBe(scenesKey(recipe()));
  });
});

describe('pieces', () => {
  test('what several runs begin with is computed once, in chains', () => {
    const three = (second: object, third: object) => recipe({}, [['one'], ['two', second], ['three', third]]);
    const study = studyOf([three({ lr: 1 }, { lr: 1 }), three({ lr: 1 }, { lr: 2 }), three({ lr: 2 }, { lr: 1 })], [1, 2]);
    const pieces = piecesOf(study.runs, 'folder', contentOf);
    expect(pieces.filter(({ kind }) => kind === 'features')).toHaveLength(1);
    const shared = pieces.filter(({ kind }) => kind === 'stages');
    // for each seed: stage one for all, and stage two on it for the first two variants
    expect(shared.map(({ recipe: { stages }, base }) => [stages.length, base?.stages])).toEqual([
      [1, undefined],
      [1, undefined],
      [2, 1],
      [2, 1],
    ]);
    expect(pieces.filter(({ kind }) => kind === 'run').map(({ base }) => base?.stages)).toEqual([2, 2, 2, 2, 1, 1]);
    expect(shared[0].recipe).not.toHaveProperty('evaluate');
  });

  test('stages that always occur together are one piece', () => {
    const stages = (lr: number): [string, object?][] => [['one'], ['two'], ['three', { lr }]];
    const pieces = piecesOf(studyOf([recipe({}, stages(1)), recipe({}, stages(2))], [1]).runs, 'folder', contentOf);
    expect(pieces.filter(({ kind }) => kind === 'stages').map(({ recipe: { stages: own } }) => own.length)).toEqual([2]);
  });

  test('a share keeps runs together that begin with the same, and all shares have every run once', () => {
    const study = studyOf(
      [recipe({}, [['one'], ['two', { lr: 1 }]]), recipe({}, [['one'], ['two', { lr: 2 }]]), recipe({}, [['two']])],
      [1, 2, 3],
    );
    const shares = [1, 2].map((index) => runsOf(study, { index, count: 2 }, contentOf).map(({ id }) => id));
    expect(shares.flat().sort()).toEqual(study.runs.map(({ id }) => id).sort());
    for (const seed of study.seeds)
      for (const share of shares) expect(share.includes(`0-seed-${seed}`)).toBe(share.includes(`1-seed-${seed}`));
    expect(Math.abs(shares[0].length - shares[1].length)).toBeLessThanOrEqual(1);
  });
});

test('a study that kept the ends of large weights goes on with the same models, and with no others', () => {
  const settings = (content: string): StudySettings =>
    ({ study: {}, recipes: {}, contents: { tower: content }, threads: 1, shard: null }) as unknown as StudySettings;
  const now = settings('ends; whole all');
  expect(studyDifference(settings('ends'), now)).toBeUndefined();
  expect(studyDifference(now, now)).toBeUndefined();
  for (const other of ['end', 'others', 'ends; whole others'])
    expect(studyDifference(settings(other), now)).toBe('another content of tower');
});

test('the time of a study is that of its pieces, so many at a time, after what they wait for', () => {
  const piece = (id: string, after: string[] = []) => ({ id, after }) as Piece;
  const pieces = [piece('shared'), piece('a', ['shared']), piece('b', ['shared']), piece('c')];
  const seconds: Record<string, number> = { shared: 5, a: 3, b: 3, c: 4 };
  expect(makespan(pieces, ({ id }) => seconds[id], 1)).toBe(15);
  expect(makespan(pieces, ({ id }) => seconds[id], 2)).toBe(8);
  expect(makespan(pieces, ({ id }) => seconds[id], 9)).toBe(8);
});

test('runs share cores and memory', () => {
  expect(shareOut(1e9, 40, {}, 16e9, 8)).toEqual({ jobs: 8, threads: 1 });
  expect(shareOut(1e9, 2, {}, 16e9, 8)).toEqual({ jobs: 2, threads: 4 });
  expect(shareOut(6e9, 40, {}, 16e9, 8)).toEqual({ jobs: 2, threads: 4 });
  expect(shareOut(15e9, 40, {}, 16e9, 8)).toEqual({ jobs: 1, threads: 8 });
  expect(shareOut(1e9, 40, { threads: 4 }, 16e9, 8)).toEqual({ jobs: 2, threads: 4 });
  expect(() => shareOut(20e9, 40, {}, 16e9, 8)).toThrow('needs 20.0 GB of memory, and the machine has 16.0 GB');
});
