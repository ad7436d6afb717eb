import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { indexData, subset } from '../../data/data-set.ts';
import type { LlavaStage } from '../recipe.ts';
import { pictureCount, stepsOfStage } from './llava-outline.ts';

const folder = mkdtempSync(join(tmpdir(), 'outline-'));
afterAll(() => rmSync(folder, { recursive: true }));
for (const name of 'abcdefgh') writeFileSync(join(folder, name), '');

describe('the number of pictures', () => {
  const indexOf = (lists: readonly (readonly string[])[]) => {
    const samples = lists.map((image) => ({
      ...(image.length > 0 ? { image } : {}),
      conversations: [
        { from: 'human', value: `${'<image>'.repeat(image.length)} what?` },
        { from: 'gpt', value: 'that' },
      ],
    }));
    const path = join(folder, 'data.json');
    writeFileSync(path, JSON.stringify(samples));
    return indexData([{ path, imageFolder: folder, share: 1 }]);
  };

  it('is that of all lists of pictures, each once', async () => {
    const index = await indexOf([['a', 'b', 'c', 'd'], [], ['e', 'f', 'g', 'h'], ['a', 'b', 'c', 'd'], [], ['e']]);
    expect(pictureCount(index)).toBe(9);
    expect(pictureCount(subset(index, (number) => number !== 0 && number !== 2))).toBe(5);
    expect(pictureCount(subset(index, (number) => number === 1))).toBe(0);
  });
});

describe('the steps of a stage', () => {
  const stepsOf = (samples: number, settings: Pick<LlavaStage, 'batch_size' | 'accumulation'> & Partial<LlavaStage>) => {
    const files = [{ path: '', imageFolder: '', share: 1, samples, stamp: '' }];
    return stepsOfStage(settings as LlavaStage, { files });
  };

  it('are as many as the passes take, whatever a step accumulates', () => {
    expect(stepsOf(10, { batch_size: 2, accumulation: 1, epochs: 3 })).toEqual({ stepsPerEpoch: 5, totalSteps: 15 });
    // 5 batches an epoch: 3 epochs are 15 batches, not 4 x 4 x 3
    expect(stepsOf(10, { batch_size: 2, accumulation: 4, epochs: 3 })).toEqual({ stepsPerEpoch: 1.25, totalSteps: 4 });
    expect(stepsOf(10, { batch_size: 2, accumulation: 4, epochs: 4 }).totalSteps).toBe(5);
    // of half a step there is one
    expect(stepsOf(2, { batch_size: 2, accumulation: 4 }).totalSteps).toBe(1);
    expect(stepsOf(10, { batch_size: 2, accumulation: 4, steps: 7 })).toEqual({ stepsPerEpoch: 1.25, totalSteps: 7 });
  });
});
