import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { scoreAnswers, uploadOf } from './score.ts';
import { vizwiz } from './vizwiz.ts';

const folder = mkdtempSync(join(tmpdir(), 'vizwiz-'));
const write = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value));
  return join(folder, name);
};
const lines = (values: readonly object[]) => values.map((value) => JSON.stringify(value)).join('\n');
const image = (i: number) => `VizWiz_val_${String(i).padStart(8, '0')}.jpg`;
/** `yes` by the first ones, whose confidence differs after the second. */
const annotators = (count: number) =>
  Array.from({ length: 10 }, (_, i) => ({ answer: i < count ? 'yes' : 'other', answer_confidence: i < 2 ? 'yes' : 'maybe' }));
const records = [4, 1].map((count, i) => ({
  image: image(i),
  question: 'Is this  milk?',
  answers: annotators(count),
  answer_type: i === 0 ? 'yes/no' : 'other',
  answerable: 1,
}));
const questions = write('val.json', records);
const score = async (answers: string, files = [questions], harness?: string) =>
  (await scoreAnswers(vizwiz, { answers, questions: files, harness })).score;

describe('VizWiz', () => {
  const results = write(
    'results.json',
    [1, 0].map((i) => ({ image: image(i), answer: 'Yes' })),
  );

  it('is scored in both readings of the VQA scorer', async () => {
    const { scores, groups } = await score(results);
    // by position: 4 of 10 gave it, then 1 of 10. Taken as one: without (yes, yes) 2 remain, without (yes,
    // maybe) 2, without (other, maybe) 4; then without (yes, yes) none, without the nine others 1
    const apart = [1, 0.3];
    const asOne = [(4 * (2 / 3) + 6) / 10, 0.3];
    expect(scores.answers_told_apart_by_position).toBeCloseTo((apart[0] + apart[1]) * 50, 9);
    expect(scores.identical_answers_taken_as_one).toBeCloseTo((asOne[0] + asOne[1]) * 50, 9);
    expect(scores.overall).toBe(scores.answers_told_apart_by_position);
    expect(groups.per_answer_type['yes/no']).toEqual({
      answers_told_apart_by_position: 100,
      identical_answers_taken_as_one: expect.closeTo(asOne[0] * 100, 9),
      n: 1,
    });
  });

  it('is read in the form of VQA, whose type is the question type', async () => {
    const vqa = write('vqa.json', {
      questions: records.map(({ image, question }, i) => ({ image_id: image, question, question_id: 100 + i })),
      annotations: records.map(({ image, answers, answer_type }, i) => ({
        question_id: 100 + i,
        image_id: image,
        question_type: answer_type,
        answers,
      })),
    });
    const expected = await score(results);
    expect(await score(results, [vqa])).toEqual(expected);
    const numbered = write('numbered.jsonl', lines([100, 101].map((question_id) => ({ question_id, text: 'Yes.' }))));
    expect(await score(numbered, [vqa])).toEqual(expected);
  });

  it("reads LLaVA's answers by whatever names a question", async () => {
    const expected = await score(results);
    for (const ids of [
      [image(0), image(1)],
      ['VizWiz_val_00000000', 'VizWiz_val_00000001'],
      [0, 1],
    ]) {
      const llava = write('answers.jsonl', lines(ids.map((question_id) => ({ question_id, prompt: 'p', text: 'YES' }))));
      expect(await score(llava)).toEqual(expected);
    }
    const own = write('llava_val.jsonl', lines([0, 1].map((i) => ({ question_id: `q${i}`, image: image(i), text: 'Is this?' }))));
    const named = write('answers.jsonl', lines(['q1', 'q0'].map((question_id) => ({ question_id, text: 'YES' }))));
    expect(await score(named, [questions, own])).toEqual(expected);
    // vqa: the capitals are minded where all ten agree
    const agreed = write('agreed.json', [{ ...records[0], answers: annotators(10) }]);
    const one = write('one.jsonl', lines([{ question_id: 0, text: 'YES' }]));
    expect((await score(one, [agreed])).scores.overall).toBe(100);
    expect((await score(one, [agreed], 'vqa')).scores.overall).toBe(0);
    expect((await score(one, [agreed], 'lmms-eval')).scores.overall).toBe(100);
  });

  it('hands in the answers to the test split, by picture', async () => {
    const test = write('test.json', [{ image: 'VizWiz_test_00000000.jpg', question: 'What is this?' }]);
    const llava = write('answers.jsonl', lines([{ question_id: 0, text: 'The Milk.' }]));
    await expect(score(llava, [test])).rejects.toThrow(/no annotations/);
    expect(JSON.parse((await uploadOf(vizwiz, { answers: llava, questions: [test] })).text)).toEqual([
      { image: 'VizWiz_test_00000000.jpg', answer: 'milk' },
    ]);
    const [asked] = await vizwiz.questions({ files: [test], folder, harness: 'llava' });
    expect(asked.prompt).toBe(
      "<image>\nWhat is this?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\nAnswer the question using a single word or phrase.",
    );
    expect(await asked.pictures[0].read()).toBe(join(folder, 'test', 'VizWiz_test_00000000.jpg'));
  });

  it('names what is malformed', async () => {
    await expect(score(results, [write('bad.json', [{ image: image(0) }])])).rejects.toThrow(/bad.json, entry 1: question: /);
    await expect(score(results, [write('bad.json', [records[0], records[0]])])).rejects.toThrow(/comes twice \(bad.json, entry 2\)/);
    await expect(score(results, [write('half.json', [records[0], { image: image(1), question: 'What?' }])])).rejects.toThrow(
      /question VizWiz_val_00000001.jpg has no annotation, and 1 questions have/,
    );
    await expect(score(write('one.json', [{ image: image(1), answer: 'yes' }]))).rejects.toThrow(/1 of 2 questions have no answer/);
  });
});
