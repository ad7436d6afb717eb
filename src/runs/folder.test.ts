import { existsSync, mkdirSync, mkdtempSync, readdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { findRunFolder, openRunFolder, readSummary, writeSummary } from './folder.ts';

const fresh = () => join(mkdtempSync(join(tmpdir(), 'run-')), 'runs', 'demo');

/** A folder as a killed run leaves it. */
function earlierRun(): string {
  const path = fresh();
  const folder = openRunFolder(path, 'new');
  writeFileSync(folder.recipe, 'task: llava\n');
  writeFileSync(folder.metrics, '');
  mkdirSync(folder.checkpoint('pretrain'), { recursive: true });
  return path;
}

describe('openRunFolder', () => {
  it('makes the folder with its parents', () => {
    const path = fresh();
    expect(openRunFolder(path, 'new').recipe).toBe(join(path, 'recipe.yaml'));
    expect(readdirSync(path)).toEqual([]);
  });

  it('refuses to write over a run, and says what can be done', () => {
    expect(() => openRunFolder(earlierRun(), 'new')).toThrow(/is not empty: give --resume .* --overwrite/);
  });

  it('removes an earlier run only when asked to', () => {
    const path = earlierRun();
    openRunFolder(path, 'overwrite');
    expect(readdirSync(path)).toEqual([]);
  });

  it('never removes what is not from a run', () => {
    const path = earlierRun();
    writeFileSync(join(path, 'thesis.tex'), '');
    expect(() => openRunFolder(path, 'overwrite')).toThrow(/thesis\.tex/);
    expect(existsSync(join(path, 'recipe.yaml'))).toBe(true);
  });

  it('resumes only where there is something to resume', () => {
    const path = earlierRun();
    openRunFolder(path, 'resume');
    expect(existsSync(join(path, 'checkpoints', 'pretrain'))).toBe(true);
    expect(() => openRunFolder(fresh(), 'resume')).toThrow(/no run to resume/);
  });

  it('refuses a file', () => {
    const path = join(mkdtempSync(join(tmpdir(), 'run-')), 'file');
    writeFileSync(path, '');
    expect(() => openRunFolder(path, 'new')).toThrow(/is a file/);
  });
});

it('keeps the summary', () => {
  const folder = findRunFolder(earlierRun());
  expect(() => readSummary(folder)).toThrow(/has not ended yet/);
  const summary = { wallSeconds: 12, peakRssMb: 900, stages: [], scores: {} };
  writeSummary(folder, summary);
  expect(readSummary(folder)).toEqual(summary);
  expect(readdirSync(folder.path)).not.toContain('summary.json.tmp');
});
