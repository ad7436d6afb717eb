import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { scienceqa } from './scienceqa.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'scienceqa-'));
const file = (name: string, content: string) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const json = (name: string, value: unknown) => file(name, JSON.stringify(value, null, 2));
const answers = (name: string, texts: Record<string, string>, more: object = {}) => {
  const lines = Object.entries(texts).map(([question_id, text]) => JSON.stringify({ question_id, prompt: 'x', text, ...more }));
  return file(name, `\ufeff${lines.join('\r\n')}\r\n`);
};
const turns = (value: string, answer: string) => [
  { from: 'human', value },
  { from: 'gpt', value: answer },
];
const questions = json('llava_test_CQM-A.json', [
  { id: '4', conversations: turns('Which?\nA. one\nB. two', 'B') },
  { id: '5', image: '5/image.png', conversations: turns('<image>\nContext: Look.\nWhich?\nA. one\nB. two\nC. three', 'C') },
  { id: '11', image: '11/image.png', conversations: turns('Which?\nA. one\nB. two\n<image>', 'A') },
]);
const problem = (choices: string[], answer: number, more: object) => ({
  question: 'Which?',
  choices,
  answer,
  hint: '',
  image: null,
  ...more,
});
const problems = json('problems.json', {
  1: problem(['one', 'two'], 9, { split: 'train' }),
  11: problem(['one', 'two'], 0, { image: 'image.png', subject: 'social science', grade: 'grade6', split: 'test' }),
  4: problem(['one', 'two'], 1, { subject: 'language science', grade: 'grade7', split: 'test' }),
  5: problem(['one', 'two', 'three'], 2, {
    hint: 'Look.',
    image: 'image.png',
    subject: 'natural science',
    grade: 'grade12',
    split: 'test',
  }),
});
const splits = json('pid_splits.json', { train: ['1'], test: ['4', '5', '11'] });
const score = async (path: string, files = [questions], harness?: string) =>
  (await scoreAnswers(scienceqa, { answers: path, questions: files, harness })).score;

describe('ScienceQA', () => {
  it('asks in the words of LLaVA, from either kind of files', async () => {
    const all = await scienceqa.questions({ files: [questions], harness: 'llava' });
    expect(all.map(({ prompt }) => prompt)).toEqual([
      "Which?\nA. one\nB. two\nAnswer with the option's letter from the given choices directly.",
      "<image>\nContext: Look.\nWhich?\nA. one\nB. two\nC. three\nAnswer with the option's letter from the given choices directly.",
      "<image>\nWhich?\nA. one\nB. two\nAnswer with the option's letter from the given choices directly.",
    ]);
    const made = await scienceqa.questions({ files: [splits, problems], harness: 'llava' });
    const shape = (of: typeof made) => of.map(({ id, prompt, references, options }) => ({ id, prompt, references, options }));
    expect(shape(made)).toEqual(shape(all));
    expect(made[1].groups).toEqual({ picture: 'with', subject: 'NAT', context: ['TXT', 'IMG'], grade: 'G7-12' });
    mkdirSync(join(folder, 'images', 'test', '5'), { recursive: true });
    const [, shown] = await scienceqa.questions({ folder, harness: 'llava' });
    expect(await shown.pictures[0].read()).toBe(join(folder, 'images', 'test', '5/image.png'));
    expect(shown.groups.subject).toBe('NAT');
  });

  it('reads letters as its scorer does, and takes one beyond the options for wrong', async () => {
    const given = answers('a.jsonl', { 11: 'The answer is A.', 4: 'D', 5: 'I think C' });
    expect(await score(given)).toMatchObject({
      n: 3,
      unparsed: 1,
      scores: { accuracy: (1 / 3) * 100, correct: 1, total: 3, image_accuracy: 50, image_correct: 1, image_total: 2 },
      bounds: { low: 50, high: 100 },
      groups: { picture: { with: { n: 2, correct: 1 }, without: { n: 1, correct: 0 } } },
    });
    expect(await score(given, [questions], 'lmms-eval')).toMatchObject({ scores: { correct: 0 }, unparsed: 2 });
    expect((await score(given, [problems, splits])).groups.grade).toMatchObject({ 'G1-6': { correct: 1 }, 'G7-12': { n: 2 } });
  });

  it('scores the outputs of a result file, and names what its results say else', async () => {
    const outputs = { 4: 'The answer is D.', 5: 'C', 11: 'A' };
    const stored = json('result.json', { acc: 66.6, correct: 2, count: 3, results: { 4: 1, 5: 2, 11: 0 }, outputs });
    const { scores, notes } = await score(stored);
    expect(scores).toMatchObject({ correct: 2, total: 3 });
    expect(notes).toEqual([expect.stringMatching(/for 1 questions, 1 of them right only so: 4 \(B; its text says D\)/)]);
    expect((await score(json('results.json', { results: { 4: 1, 5: 0, 11: -1 } }))).scores.correct).toBe(1);
    const listed = { correct: [{ question_id: '4', pred: 'B' }], incorrect: [5, 11].map((question_id) => ({ question_id, pred: 'A' })) };
    expect((await score(json('output.jsonl', listed))).scores.correct).toBe(2);
  });

  it('scores answers to the questions with a picture alone', async () => {
    const { n, scores, notes } = await score(answers('images.jsonl', { 5: 'C', 11: 'A' }));
    expect({ n, scores }).toMatchObject({ n: 2, scores: { image_accuracy: 100, image_total: 2 } });
    expect(notes).toEqual(['Only the questions with a picture were answered.']);
    await expect(score(answers('half.jsonl', { 5: 'C', 4: 'A' }))).rejects.toThrow(/1 of 3 questions have no answer: 11/);
  });

  it('finds the answers of a folder', async () => {
    const other = mkdtempSync(join(tmpdir(), 'scienceqa-answers-'));
    writeFileSync(join(other, 'merge.jsonl'), JSON.stringify({ question_id: 5, text: 'C' }));
    writeFileSync(join(other, '2_0.jsonl'), '');
    await expect(score(other)).rejects.toThrow(/merge.jsonl: 2 of 3 questions have no answer: 4, 11/);
    await expect(score(mkdtempSync(join(tmpdir(), 'scienceqa-none-')))).rejects.toThrow(/is a folder with no files .jsonl or .json/);
  });

  it('names what is malformed', async () => {
    const good = answers('good.jsonl', { 4: 'A', 5: 'A', 11: 'A' });
    const wrong = json('wrong.json', [{ id: '4', conversations: turns('Which?\nA. one\nB. two', 'C') }]);
    await expect(score(good, [wrong])).rejects.toThrow(/wrong.json:2: the answer to 4 is none of its options: "C"/);
    await expect(score(good, [json('p.json', { 4: problem(['a', 'b'], 2, { split: 'test' }) })])).rejects.toThrow(/number 2 of 2 choices/);
    await expect(score(good, [problems, json('s.json', { test: ['4', '99'] })])).rejects.toThrow(/problem 99 is missing/);
    await expect(score(good, [json('bad.json', { 4: { choices: 1, split: 'test' } })])).rejects.toThrow(/bad.json: bad.json:2: question/);
    await expect(score(json('twice.json', { outputs: {}, results: {} }), [questions, questions])).rejects.toThrow(
      /second file of the same form/,
    );
    const repeated = file('repeated.json', '{"results": {}, "outputs": {"4": "A",\n"5": "A", "11": "B",\n"4": "B"}}');
    await expect(score(repeated)).rejects.toThrow(/question 4 comes twice among the answers/);
    await expect(scoreAnswers(scienceqa, { answers: good })).rejects.toThrow(/ScienceQA's right answers are in its question files/);
  });
});
