import { describe, expect, it } from 'vitest';
import { bundledModel } from '../paths.ts';
import { evaluateOptionsOf } from './run/eval.ts';

// a folder that is there, so that the model is found
const flags = { model: 'recipes', split: [], scenes: 200, seed: 42, batchSize: 64, maxNewTokens: 24, blind: true };

describe('what an evaluation asks for', () => {
  it('is every held-out split of the emoji scenes, unless some are named', async () => {
    const { data } = await evaluateOptionsOf({ ...flags, heldOutArtist: 'noto' });
    expect(data).toEqual({
      generate: 'emoji',
      splits: ['unseen-scenes', 'unseen-artist', 'unseen-concepts'],
      scenes: 200,
      seed: 42,
      heldOutArtist: 'noto',
    });
    const named = await evaluateOptionsOf({ ...flags, split: ['unseen-artist'] });
    expect(named.data).toMatchObject({ splits: ['unseen-artist'] });
  });

  it('is a file of questions where one is given', async () => {
    const options = await evaluateOptionsOf({ ...flags, data: 'mine.json', imageFolder: 'pictures', limit: 3, blind: false });
    expect(options).toEqual({
      model: 'recipes',
      data: { dataPath: 'mine.json', imageFolder: 'pictures' },
      limit: 3,
      batchSize: 64,
      maxNewTokens: 24,
      blind: false,
    });
  });

  it.each([
    [{ data: 'mine.json' }, '--data needs --image-folder'],
    [{ data: 'mine.json', imageFolder: 'x', split: ['unseen-artist'] }, '--split names splits of the emoji scenes'],
    [{ split: ['unseen-artist', 'dev'] }, '--split dev: the splits are unseen-scenes, unseen-artist, unseen-concepts'],
    [{ model: 'nowhere' }, '--model: there is nothing at nowhere'],
  ])('%j is refused', async (wrong, message) => {
    await expect(evaluateOptionsOf({ ...flags, ...wrong })).rejects.toThrow(message);
  });

  it('the bundled model lies in the package', () => {
    expect(bundledModel).toMatch(/^assets\//);
  });
});
