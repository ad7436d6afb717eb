import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { scoreAnswers, uploadOf } from './score.ts';
import { vqav2 } from './vqav2.ts';

const folder = mkdtempSync(join(tmpdir(), 'vqav2-'));
const write = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value));
  return join(folder, name);
};
const lines = (values: readonly object[]) => values.map((value) => JSON.stringify(value)).join('\r\n');
const annotation = (question_id: number, answers: readonly string[], answer_type: string, question_type: string) => ({
  question_type,
  multiple_choice_answer: answers[0],
  answers: answers.map((answer, i) => ({ answer, answer_confidence: 'yes', answer_id: i + 1 })),
  image_id: 42,
  answer_type,
  question_id,
});
const ten = (answer: string, count: number, other = 'other') => [...Array(count).fill(answer), ...Array(10 - count).fill(other)];
const questions = write('v2_OpenEnded_mscoco_val2014_questions.json', {
  info: { description: 'a test' },
  data_subtype: 'val2014',
  questions: [42000, 42001, 42002].map((question_id) => ({ image_id: 42, question: `Which ${question_id}?`, question_id })),
  license: {},
});
const annotations = write('v2_mscoco_val2014_annotations.json', {
  annotations: [
    annotation(42002, ten('net', 10), 'other', 'what is'),
    annotation(42000, ten('2', 3, 'two dogs'), 'number', 'how many'),
    annotation(42001, ten('yes', 9), 'yes/no', 'is the'),
  ],
});
const score = async (answers: string, files: string[] = [questions, annotations], harness?: string) =>
  (await scoreAnswers(vqav2, { answers, questions: files, harness })).score;

describe('VQAv2', () => {
  const given = ['Two.', 'Yes', 'Net'];
  const results = write(
    'results.json',
    given.map((answer, i) => ({ question_id: 42000 + i, answer })),
  );
  const llava = write('merge.jsonl', lines(given.map((text, i) => ({ question_id: 42000 + i, prompt: 'p', text, answer_id: 'a' }))));

  it('is scored by type as vqaEval.py does: results as they are, answers of LLaVA as LLaVA hands them in', async () => {
    const { scores, groups, n } = await score(results);
    // "Net" is not "net" where all ten agree
    expect(scores.overall).toBeCloseTo((90 + 100 + 0) / 3, 9);
    expect(n).toBe(3);
    expect(groups.per_answer_type).toEqual({
      number: { accuracy: expect.closeTo(90, 9), n: 1 },
      other: { accuracy: 0, n: 1 },
      'yes/no': { accuracy: 100, n: 1 },
    });
    expect(groups.per_question_type['how many'].accuracy).toBeCloseTo(90, 9);
    expect((await score(llava)).scores.overall).toBeCloseTo((90 + 100 + 100) / 3, 9);
    expect((await score(llava, undefined, 'vqa')).scores.overall).toBeCloseTo(190 / 3, 9);
    expect((await score(results, undefined, 'lmms-eval')).scores.overall).toBeCloseTo(290 / 3, 9);
  });

  it('needs the annotations alone, in any order, and finds the files in a folder', async () => {
    expect((await score(results, [annotations])).scores.overall).toBeCloseTo(190 / 3, 9);
    expect((await scoreAnswers(vqav2, { answers: results, data: folder })).score.n).toBe(3);
    const [asked] = await vqav2.questions({ folder, harness: 'llava' });
    expect(asked).toMatchObject({
      id: '42000',
      prompt: '<image>\nWhich 42000?\nAnswer the question using a single word or phrase.',
      cluster: '42',
    });
    expect(await asked.pictures[0].read()).toBe(join(folder, 'val2014', 'COCO_val2014_000000000042.jpg'));
  });

  it('is handed in where the answers are secret', async () => {
    const test = write(
      'llava_vqav2_mscoco_test-dev2015.jsonl',
      [
        lines(
          [42000, 42001, 42002].map((question_id) => ({ question_id, image: 'COCO_test2015_000000000042.jpg', text: 'Which?\nAnswer' })),
        ),
      ].join(),
    );
    await expect(score(llava, [test])).rejects.toThrow(/these questions have no annotations.*--upload/);
    const { text } = await uploadOf(vqav2, { answers: llava, questions: [test] });
    expect(JSON.parse(text)).toEqual([
      { question_id: 42000, answer: '2' },
      { question_id: 42001, answer: 'yes' },
      { question_id: 42002, answer: 'net' },
    ]);
    const [asked] = await vqav2.questions({ files: [test], folder, harness: 'llava' });
    expect(await asked.pictures[0].read()).toBe(join(folder, 'test2015', 'COCO_test2015_000000000042.jpg'));
  });

  it('refuses what does not fit together, with its place', async () => {
    const twice = write(
      'twice.json',
      [42000, 42001, 42001, 42002].map((question_id) => ({ question_id, answer: 'yes' })),
    );
    await expect(score(twice)).rejects.toThrow(/twice.json: question 42001 comes twice among the answers \(twice.json, entry 2 and/);
    await expect(score(write('few.json', [{ question_id: 42000, answer: 'a' }]))).rejects.toThrow(/2 of 3 questions have no answer: 42001/);
    const other = write(
      'other.json',
      [42000, 42001, 42002, 9].map((question_id) => ({ question_id, answer: 'yes' })),
    );
    await expect(score(other)).rejects.toThrow(/1 answers are to questions that are not in the question file: 9/);
    const part = write('part.json', { annotations: [annotation(42000, ten('a', 9), 'other', 'what')] });
    await expect(score(results, [questions, part])).rejects.toThrow(/question 42001 has no annotation, and 1 questions have/);
    await expect(score(results, [annotations, annotations])).rejects.toThrow(/question 42002 has a second annotation/);
    await expect(score(results, [write('bad.json', { annotations: [{ question_id: 1, image_id: 2 }] })])).rejects.toThrow(
      /bad.json: bad.json, entry 1: answers: /,
    );
    await expect(score(results, [results])).rejects.toThrow(/results.json: is not questions or annotations of VQA/);
    await expect(scoreAnswers(vqav2, { answers: results })).rejects.toThrow(/answers are in its annotations/);
  });
});
