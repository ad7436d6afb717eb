import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { pope } from './pope.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'pope-'));
const lines = (name: string, values: readonly object[]) => {
  writeFileSync(join(folder, name), values.map((value) => JSON.stringify(value)).join('\n'));
  return join(folder, name);
};
const labels = (category: string, ...of: ('yes' | 'no')[]) =>
  lines(
    `coco_pope_${category}.json`,
    of.map((label, i) => ({ question_id: i + 1, image: `${i >> 1}.jpg`, text: 'Is there a dog?', label })),
  );
const answers = (name: string, base: number, ...of: string[]) =>
  lines(
    name,
    of.map((text, i) => ({ question_id: base + i + 1, text })),
  );
const score = async (path: string, questions: string[], harness?: string) =>
  (await scoreAnswers(pope, { answers: path, questions, harness })).score;

describe('POPE', () => {
  const random = labels('random', 'yes', 'no', 'yes', 'no');

  it('reads no out of the first sentence, and takes all else for yes, but says so', async () => {
    const given = answers('said.jsonl', 10_000_000, 'Yes, there is. No cat.', 'There is not, no', 'I see a dog', 'perhaps');
    const { scores, unparsed, bounds, n } = await score(given, [random]);
    expect(scores).toMatchObject({ accuracy: 0.75, precision: 2 / 3, recall: 1, f1: 0.8, yes_ratio: 0.75 });
    expect({ n, unparsed, bounds }).toEqual({ n: 4, unparsed: 2, bounds: { low: 0.5, high: 1 } });
    expect(await score(given, [random], 'lmms-eval')).toMatchObject({ unparsed: 4, scores: { accuracy: 0, yes_ratio: 0 } });
  });

  it('matches answers by id, whatever their order', async () => {
    const given = lines('mixed.jsonl', [
      { question_id: 10_000_004, text: 'No' },
      { question_id: 20_000_001, text: 'Yes' },
      { question_id: 10_000_001, text: 'Yes' },
      { question_id: 10_000_003, text: 'Yes' },
      { question_id: 10_000_002, text: 'No' },
    ]);
    expect((await score(given, [random])).scores.accuracy).toBe(1);
    const both = await score(given, [random, labels('popular', 'no')]);
    expect(both).toMatchObject({
      n: 5,
      scores: { accuracy: 0.5 },
      groups: { category: { popular: { FP: 1, n: 1 }, random: { TP: 2, TN: 2 } } },
    });
    expect((await score(answers('own.jsonl', 0, 'Yes', 'No', 'Yes', 'Yes'), [random])).scores.accuracy).toBe(0.75);
  });

  it('does not score answers to the file of another date', async () => {
    const given = answers('short.jsonl', 10_000_000, 'Yes', 'No', 'Yes');
    await expect(score(given, [random])).rejects.toThrow(/short.jsonl: 1 of 4 questions have no answer: 10000004; .*2,910/);
    await expect(score(answers('long.jsonl', 10_000_000, 'a', 'b', 'c', 'd', 'e'), [random])).rejects.toThrow(/1 answers are to questions/);
    const twice = lines(
      'twice.jsonl',
      [1, 2, 3, 4, 4].map((id) => ({ question_id: 10_000_000 + id, text: 'No' })),
    );
    await expect(score(twice, [random])).rejects.toThrow(/10000004 comes twice among the answers \(twice.jsonl:4 and twice.jsonl:5\)/);
  });

  it('names what is malformed, with its line', async () => {
    const bad = lines('coco_pope_popular.json', [{ question_id: 1, image: 'a.jpg', text: 'Is there?', label: 'maybe' }]);
    await expect(score(random, [bad])).rejects.toThrow(/coco_pope_popular.json:1: .*label: must be yes or no/);
    await expect(score(random, [lines('mine.json', [])])).rejects.toThrow(/mine.json: its name does not say/);
    await expect(score(random, [random])).rejects.toThrow(/random.json:1: .*this is a question, not an answer/);
    await expect(score(random, [random, random])).rejects.toThrow(/two files of POPE's random/);
    await expect(scoreAnswers(pope, { answers: random })).rejects.toThrow(/POPE's labels are in its question files/);
    await expect(scoreAnswers(pope, { answers: random, data: mkdtempSync(join(tmpdir(), 'none-')) })).rejects.toThrow(
      /there are no questions of POPE/,
    );
    await expect(score(random, [random], 'mine')).rejects.toThrow(/not scored as mine: there are llava, lmms-eval/);
  });
});
