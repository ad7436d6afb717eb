import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bestFolder, keepCheckpoint, keptFolder, recoverKept } from './kept-folders.ts';

/** A checkpoint of a stage, with a folder in it. */
function made() {
  const checkpoints = mkdtempSync(join(tmpdir(), 'kept-'));
  const dir = join(checkpoints, 'stage');
  mkdirSync(join(dir, 'adapter'), { recursive: true });
  writeFileSync(join(dir, 'a'), 'one');
  writeFileSync(join(dir, 'adapter', 'b'), 'two');
  return { checkpoints, dir, names: () => readdirSync(checkpoints).sort() };
}

describe('a kept checkpoint', () => {
  it('has the files of the newest, whatever becomes of that', async () => {
    const { dir } = made();
    await keepCheckpoint(dir, 7, 2);
    const kept = keptFolder(dir, 7);
    expect(kept).toBe(`${dir}-step-000007`);
    if (process.platform !== 'win32') expect(statSync(join(kept, 'a')).ino).toBe(statSync(join(dir, 'a')).ino);
    expect(readFileSync(join(kept, 'adapter', 'b'), 'utf8')).toBe('two');
  });

  it('is one of the last so many, and those of a way that was given up stay', async () => {
    const { dir, names } = made();
    for (const step of [5, 10, 1_000_000, 15, 20]) await keepCheckpoint(dir, step, 2);
    expect(names()).toEqual(['stage', 'stage-step-000015', 'stage-step-000020', 'stage-step-1000000']);
    await keepCheckpoint(dir, 25, 0);
    expect(names()).toHaveLength(4);
    // that of another stage is none of this one
    mkdirSync(`${dir}-2-step-000001`);
    mkdirSync(bestFolder(dir));
    await keepCheckpoint(dir, 26, 1);
    expect(names()).toEqual(['stage', 'stage-2-step-000001', 'stage-best', 'stage-step-000026', 'stage-step-1000000']);
  });

  it('takes the place of one that a run which was taken back has kept of the same step', async () => {
    const { dir, names } = made();
    await keepCheckpoint(dir, 300, 3);
    rmSync(join(dir, 'a'));
    writeFileSync(join(dir, 'a'), 'another way');
    await keepCheckpoint(dir, 300, 3, { isSaved: true });
    expect(readFileSync(join(keptFolder(dir, 300), 'a'), 'utf8')).toBe('one');
    await keepCheckpoint(dir, 300, 3);
    expect(readFileSync(join(keptFolder(dir, 300), 'a'), 'utf8')).toBe('another way');
    expect(names()).toEqual(['stage', 'stage-step-000300']);
  });

  it('is whole or not there after a kill', async () => {
    const { dir, names } = made();
    for (const name of ['-step-000001.incomplete', '-best.replaced', '-step-000002', '-step-000002.incomplete', '-2-best.incomplete'])
      mkdirSync(`${dir}${name}`);
    await recoverKept(dir);
    expect(names()).toEqual(['stage', 'stage-2-best.incomplete', 'stage-best', 'stage-step-000002']);
    await recoverKept(join(dir, 'nowhere', 'stage'));
    expect(existsSync(join(dir, 'nowhere'))).toBe(false);
  });
});
