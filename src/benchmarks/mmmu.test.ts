import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeParquet } from '../../tests/parquet.ts';
import { mmmu } from './mmmu.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'mmmu-'));
const json = (name: string, value: unknown) => {
  mkdirSync(join(folder, name, '..'), { recursive: true });
  writeFileSync(join(folder, name), JSON.stringify(value, null, 1));
  return join(folder, name);
};
const choice = (id: string, answer: string, response: unknown) => ({
  id,
  question_type: 'multiple-choice',
  answer,
  all_choices: ['A', 'B', 'C', 'D'],
  index2ans: { A: 'one', B: 'two', C: 'three', D: 'four' },
  response,
});
const open = (id: string, answer: string | string[], response: string) => ({ id, question_type: 'short-answer', answer, response });
const art = [choice('validation_Art_2', 'A', 'nothing'), choice('validation_Art_1', 'B', '(B)')];
const math = [choice('validation_Math_1', 'B', 'no idea'), open('validation_Math_2', ['24/7', '3.43'], 'x = 3.43')];
const key = json('answer_dict_val.json', {
  validation_Art_1: { question_type: 'multiple-choice', ground_truth: 'B' },
  validation_Art_2: { question_type: 'multiple-choice', ground_truth: 'A' },
  validation_Math_1: { question_type: 'multiple-choice', ground_truth: 'B' },
  validation_Math_2: { question_type: 'short-answer', ground_truth: ['24/7', '3.43'] },
});
const score = async (path: string, questions?: string[]) => (await scoreAnswers(mmmu, { answers: path, questions })).score;

/** Bytes that name a picture. */
const picture = (name: string) => ({ bytes: Buffer.from(name), path: `${name}.png` });

describe('MMMU', () => {
  it('draws as Python does where no option is named, and says so', async () => {
    json('flat/Math.json', math);
    json('flat/Art.json', art);
    json('flat/total_val_output.json', {});
    // drawn with seed 42, in the order of subjects and of their files: A, then A
    expect(await score(join(folder, 'flat'))).toMatchObject({
      n: 4,
      unparsed: 2,
      scores: { accuracy: 0.75, correct: 3, total: 4, random_fallbacks: 2, random_fallbacks_right: 1, correct_without_fallbacks: 2 },
      groups: {
        subject: { Art: { accuracy: 1, n: 2, random_fallbacks: 1 }, Math: { correct: 1, random_fallbacks_right: 0 } },
        domain: { 'Art and Design': { correct: 2 }, Science: { accuracy: 0.5 } },
        printed: { 'Overall-Science': { num: 2, acc: 0.5 }, Math: { num: 2, acc: 0.5 }, Overall: { num: 4, acc: 0.75 } },
      },
      bounds: { low: 0.5, high: 1 },
      notes: [
        'The official rule drew an option for 2 answers that name none: validation_Art_2 (A, right), validation_Math_1 (A, wrong).',
        expect.stringMatching(/^Without 28 of the 30 subjects: Accounting, /),
      ],
    });
  });

  it('reads a folder for each subject, in the order of its questions', async () => {
    json('nested/Math/output.json', math);
    json('nested/Math/parsed_output.json', []);
    json('nested/Art/output.json', art);
    const { score: found, judged } = await scoreAnswers(mmmu, { answers: join(folder, 'nested'), questions: [key] });
    expect(found.scores).toMatchObject({ correct: 3, random_fallbacks_right: 1 });
    expect(judged.map(({ question }) => question.id)).toEqual([
      'validation_Art_1',
      'validation_Art_2',
      'validation_Math_1',
      'validation_Math_2',
    ]);
    expect((await scoreAnswers(mmmu, { answers: join(folder, 'nested'), data: folder })).score.scores.correct).toBe(3);
    expect((await score(json('single.json', math))).scores).toMatchObject({ total: 2, correct: 1, random_fallbacks: 1 });
  });

  it('scores a dictionary of parsed answers, and draws nothing', async () => {
    const parsed = { validation_Math_1: 'B', validation_Math_2: 'It is 3.43', validation_Art_2: '', validation_Art_1: 'b' };
    const given = json('total_val_output.json', parsed);
    expect(Object.keys((await score(given, [key])).scores)).toEqual(['accuracy', 'correct', 'total']);
    expect(await score(given, [key])).toMatchObject({
      unparsed: 2,
      scores: { correct: 2, total: 4, accuracy: 0.5 },
      bounds: { low: 0.5, high: 1 },
    });
    await expect(score(json('total.json', parsed))).rejects.toThrow(/give the right ones, answer_dict_val.json or the Parquet files/);
  });

  it('asks with pictures where the words name them', async () => {
    const data = join(folder, 'data-set');
    mkdirSync(join(data, 'Art'), { recursive: true });
    const columns = {
      id: ['validation_Art_1', 'validation_Art_2', 'validation_Art_3'],
      question: ['What is <image 2> to <image 1>?', 'Which?', 'How many?'],
      options: [`['$6', "it's <image 2>"]`, "['x', 'y', 'z']", '[]'],
      answer: ['B', 'C', "['3', 'three']"],
      question_type: ['multiple-choice', 'multiple-choice', 'open'],
      image_1: [picture('1a'), picture('2a'), picture('3a')],
      image_2: [picture('1b'), null, null],
    };
    writeParquet(join(data, 'Art', 'validation-00000-of-00001.parquet'), columns, { pictures: ['image_1', 'image_2'] });
    const questions = await mmmu.questions({ folder: data, harness: 'mmmu' });
    expect(questions.map(({ prompt }) => prompt)).toEqual([
      "What is <image> to <image>?\n(A) $6\n(B) it's <image>\n\nAnswer with the option's letter from the given choices directly.",
      "<image>\nWhich?\n(A) x\n(B) y\n(C) z\n\nAnswer with the option's letter from the given choices directly.",
      '<image>\nHow many?\nAnswer the question using a single word or phrase.',
    ]);
    const shown = await Promise.all(questions.map(({ pictures }) => Promise.all(pictures.map((of) => of.read()))));
    expect(shown.map((of) => of.map((bytes) => Buffer.from(bytes as Uint8Array).toString()))).toEqual([['1b', '1a', '1b'], ['2a'], ['3a']]);
    expect(questions[2]).toMatchObject({ references: ['3', 'three'], isOpen: true });
    const lines = [
      { question_id: 'validation_Art_3', text: 'three' },
      { question_id: 'validation_Art_1', text: 'B' },
      { question_id: 'validation_Art_2', text: '?' },
    ];
    const answers = join(folder, 'answers.jsonl');
    writeFileSync(answers, lines.map((line) => JSON.stringify(line)).join('\n'));
    const { score } = await scoreAnswers(mmmu, { answers, data });
    expect(score).toMatchObject({
      scores: { correct: 3, random_fallbacks: 1, random_fallbacks_right: 1 },
      bounds: { low: 2 / 3, high: 1 },
    });
    await expect(scoreAnswers(mmmu, { answers, questions: [key] })).rejects.toThrow(/have no answer/);
    const few = json('few.json', { validation_Art_1: { question_type: 'multiple-choice', ground_truth: 'B' } });
    writeFileSync(answers, JSON.stringify(lines[1]));
    await expect(scoreAnswers(mmmu, { answers, questions: [few] })).rejects.toThrow(
      /the options are needed, which answer_dict_val.json has not/,
    );
  });

  it('names what is malformed', async () => {
    const other = json('other/Math.json', [choice('validation_Math_1', 'C', 'B'), math[1]]);
    json('other/Art.json', art);
    await expect(score(join(folder, 'other'), [key])).rejects.toThrow(/says that validation_Math_1 is C, but its question file says B/);
    await expect(score(other, [key])).rejects.toThrow(/2 of 4 questions have no answer: validation_Art_1, validation_Art_2/);
    const twice = json('twice/Math/output.json', [math[1], math[1]]);
    await expect(score(join(folder, 'twice'))).rejects.toThrow(
      /validation_Math_2 comes twice among the answers \(Math\/output.json:2 and Math\/output.json:11\)/,
    );
    await expect(score(twice)).rejects.toThrow(/comes twice/);
    await expect(score(json('bad.json', [{ ...math[0], index2ans: { A: 'x' } }]))).rejects.toThrow(
      /bad.json:2: all_choices and index2ans of validation_Math_1/,
    );
    await expect(score(json('mine.json', [open('validation_Magic_1', '1', '1')]))).rejects.toThrow(/"validation_Magic_1" names no subject/);
    await expect(score(json('none.json', [{ question_type: 'open', id: 'validation_Art_1' }]))).rejects.toThrow(/none.json:2: answer: /);
    mkdirSync(join(folder, 'empty'));
    await expect(score(join(folder, 'empty'))).rejects.toThrow(/is a folder without output of MMMU, which is Accounting\/output.json or/);
  });
});
