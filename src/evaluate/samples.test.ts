import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { beatsBaselines, judgeSample, openLines, readSamples, scoreSamples, writeSamples } from './samples.ts';

function sample(task: string, expected: string, answer: string, blindAnswer?: string, split = 'unseen-artist') {
  const prompt = task === 'category' ? 'Which?\nA. fruit\nB. animal' : 'Question?';
  return judgeSample({ id: `${task}-${expected}-${answer}`, image: 'a.png', task, split, prompt, expected, answer, blindAnswer });
}

describe('samples', () => {
  it('are judged by the scorer of their task', () => {
    expect(sample('count', '2', 'two', '3')).toMatchObject({ correct: true, blindCorrect: false });
    expect(sample('place', 'cat', 'Cat.')).toMatchObject({ correct: true });
    expect(sample('place', 'cat', 'Cat.').blindCorrect).toBeUndefined();
  });

  it('survive a round trip through a file', () => {
    const path = join(mkdtempSync(join(tmpdir(), 'samples-')), 'run', 'samples', 'unseen-artist.jsonl');
    const samples = [sample('count', '2', 'two', '3'), sample('place', 'cat', 'line\nbreak "quoted"')];
    writeSamples(path, samples);
    expect(readSamples(path)).toEqual(JSON.parse(JSON.stringify(samples)));
    // a file put together by hand
    writeFileSync(path, `\n${JSON.stringify(samples[0])}\n \t\n`);
    expect(readSamples(path)).toHaveLength(1);
  });

  it('name file and line of what is not a sample', () => {
    const path = join(mkdtempSync(join(tmpdir(), 'samples-')), 'bad.jsonl');
    writeFileSync(path, '{"id":"1"}\n');
    expect(() => readSamples(path)).toThrow(UserError);
    expect(() => readSamples(path)).toThrow(/bad\.jsonl:1: not a sample/);
    expect(() => readSamples(path)).toThrow(/^[^\n]*expected string, received undefined {3}→ at image[^\n]*$/);
    writeFileSync(path, '\n{"id"');
    expect(() => readSamples(path)).toThrow(/bad\.jsonl:2/);
  });
});

describe('a file of lines', () => {
  const folder = mkdtempSync(join(tmpdir(), 'lines-'));

  it('holds what came so far, in place of what it held before', () => {
    const path = join(folder, 'deep', 'out.jsonl');
    const first = openLines(path);
    first.append([{ a: 1 }, { a: 2 }]);
    expect(readFileSync(path, 'utf8')).toBe('{"a":1}\n{"a":2}\n');
    first.append([{ a: 3 }]);
    first.close();
    const second = openLines(path);
    expect(readFileSync(path, 'utf8')).toBe('{"a":1}\n{"a":2}\n{"a":3}\n');
    second.append([7]);
    second.close();
    expect(readFileSync(path, 'utf8')).toBe('7\n');
  });

  it('stays as it was where nothing came', () => {
    const old = join(folder, 'old.jsonl');
    writeFileSync(old, 'old\n');
    openLines(old).close();
    expect(readFileSync(old, 'utf8')).toBe('old\n');
    openLines(join(folder, 'new.jsonl')).close();
    expect(existsSync(join(folder, 'new.jsonl'))).toBe(false);
  });

  it('that cannot be written is named with the reason', () => {
    writeFileSync(join(folder, 'file'), '');
    mkdirSync(join(folder, 'sub'));
    expect(() => openLines(join(folder, 'sub'))).toThrow(/sub: it is a folder/);
    expect(() => openLines(join(folder, 'file', 'out.jsonl'))).toThrow(UserError);
    expect(() => openLines(join(folder, 'a'.repeat(300)))).toThrow(/aaa: the name is too long/);
  });
});

describe('scoreSamples', () => {
  it('counts a question that could not be asked as wrong, whatever its task makes of no answer', () => {
    const unasked = (task: string, expected: string) =>
      judgeSample({ id: expected, image: 'a.png', task, split: 's', prompt: 'q', expected, answer: '', blindAnswer: '', problem: 'no' });
    const { existence, count } = scoreSamples([
      unasked('existence', 'yes'),
      unasked('existence', 'no'),
      sample('existence', 'yes', 'yes', 'yes', 's'),
      sample('existence', 'no', 'no', 'no', 's'),
      sample('count', '1', '1', '1', 's'),
    ]).s;
    expect(existence).toMatchObject({ accuracy: 0.5, blind: 0.5, unasked: 2, precision: 0.5, recall: 0.5, yesRate: 0.25 });
    expect(count).not.toHaveProperty('unasked');
  });

  it('groups by split and task, with intervals and baselines', () => {
    const scores = scoreSamples(
      [
        sample('existence', 'yes', 'yes', 'yes'),
        sample('existence', 'yes', 'no', 'yes'),
        sample('existence', 'no', 'no', 'yes'),
        sample('existence', 'no', 'no', 'yes'),
        sample('category', 'A', 'A', 'B'),
        sample('count', '3', '3', '1', 'unseen-scenes'),
      ],
      { count: ['1', '1', '3'] },
    );
    expect(Object.keys(scores)).toEqual(['unseen-artist', 'unseen-scenes']);
    const existence = scores['unseen-artist'].existence;
    expect(existence).toMatchObject({
      accuracy: 0.75,
      n: 4,
      correct: 3,
      blind: 0.5,
      majority: 0.5,
      random: 0.5,
      precision: 1,
      recall: 0.5,
    });
    expect(existence.majorityFrom).toBe('evaluation');
    expect(existence.yesRate).toBe(0.25);
    expect(existence.ciLow).toBeGreaterThan(0.3);
    expect(existence.ciHigh).toBeLessThan(0.96);
    expect(scores['unseen-artist'].category).toMatchObject({ accuracy: 1, random: 0.5 });
    expect(scores['unseen-artist'].category.f1).toBeUndefined();
    expect(scores['unseen-scenes'].count).toMatchObject({ accuracy: 1, majority: 0, majorityFrom: 'training', blind: 0 });
  });

  it('keeps splits and tasks in the order in which they come, and their samples together', () => {
    const scores = scoreSamples([
      sample('place', 'cat', 'cat', 'dog', 'z'),
      sample('count', '1', '1', '1', 'a'),
      sample('count', '1', '2', '1', 'z'),
      sample('place', 'cat', 'dog', 'cat', 'z'),
      sample('count', '2', '2', '1', 'a'),
    ]);
    expect(Object.entries(scores).map(([split, tasks]) => [split, Object.keys(tasks)])).toEqual([
      ['z', ['place', 'count']],
      ['a', ['count']],
    ]);
    expect(scores.z.place).toMatchObject({ n: 2, correct: 1, accuracy: 0.5, blind: 0.5 });
    expect(scores.a.count).toMatchObject({ n: 2, correct: 2, accuracy: 1, blind: 0.5 });
    const { place } = scores.z;
    expect([place.blindCiLow, place.blindCiHigh]).toEqual([place.ciLow, place.ciHigh]);
    expect(scores.a.count.blindCiHigh).toBeLessThan(scores.a.count.ciHigh);
  });

  it('gives precision, recall and the share of yes to yes/no tasks alone', () => {
    const { existence, count } = scoreSamples([sample('existence', 'yes', 'yes'), sample('count', '1', '1')])['unseen-artist'];
    expect(existence).toMatchObject({ precision: 1, recall: 1, f1: 1, yesRate: 1 });
    for (const key of ['precision', 'recall', 'f1', 'yesRate']) expect(count).not.toHaveProperty(key);
  });

  it('leaves blind out where it was not measured for every sample', () => {
    const scores = scoreSamples([sample('count', '1', '1', '1'), sample('count', '1', '1')]);
    expect(scores['unseen-artist'].count.blind).toBeUndefined();
  });
});

describe('beatsBaselines', () => {
  const score = {
    accuracy: 0.87,
    ciLow: 0.83,
    ciHigh: 0.9,
    n: 400,
    correct: 348,
    majority: 0.5,
    majorityFrom: 'training',
    random: 0.5,
  } as const;

  it('wants intervals that do not touch', () => {
    expect(beatsBaselines(score)).toBe(true);
    expect(beatsBaselines({ ...score, blind: 0.8, blindCiHigh: 0.84 })).toBe(false);
    expect(beatsBaselines({ ...score, blind: 0.7, blindCiHigh: 0.75 })).toBe(true);
    expect(beatsBaselines({ ...score, majority: 0.84 })).toBe(false);
    expect(beatsBaselines({ ...score, majority: 0.83 })).toBe(false);
    expect(beatsBaselines({ ...score, majority: 0.2, blindCiHigh: 0.83 })).toBe(false);
    expect(beatsBaselines({ ...score, majority: 0.82, blindCiHigh: 0.1 })).toBe(true);
  });
});
