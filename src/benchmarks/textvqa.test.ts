import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { scoreAnswers, uploadOf } from './score.ts';
import { textvqa } from './textvqa.ts';

const folder = mkdtempSync(join(tmpdir(), 'textvqa-'));
const write = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value));
  return join(folder, name);
};
const lines = (values: readonly object[]) => values.map((value) => JSON.stringify(value)).join('\n');
const SUFFIX = 'Answer the question using a single word or phrase.';
const ten = (answer: string, count: number, other = 'other') => [...Array(count).fill(answer), ...Array(10 - count).fill(other)];
const entry = (question_id: number, image_id: string, question: string, answers: string[]) => ({
  question_id,
  image_id,
  question,
  answers,
});
const questions = write('TextVQA_0.5.1_val.json', {
  dataset_type: 'val',
  data: [
    entry(34602, '00ab', 'what is the Brand?', ten('Dakota', 10)),
    entry(34603, '00ab', 'how many?', ten('2', 2, 'two dogs')),
    entry(34604, '1234567890123456', 'who?', ten("bob's", 9)),
  ],
});
const answer = (question_id: string | number, prompt: string, text: string) => ({
  question_id,
  prompt,
  text,
  answer_id: 'a',
  model_id: 'm',
});
const score = async (answers: string, harness?: string) =>
  (await scoreAnswers(textvqa, { answers, questions: [questions], harness })).score;

describe('TextVQA', () => {
  const llava = write(
    'answers.jsonl',
    lines([
      answer('1234567890123456', `Who?\nReference OCR token: Bob, THE\n${SUFFIX}`, "Bob's"),
      answer('00ab', `How many?\nReference OCR token: \n${SUFFIX}`, 'Two'),
      answer('00ab', `What is the brand?\n${SUFFIX}`, 'DAKOTA'),
    ]),
  );

  it('finds the question of an answer in its prompt, as eval_textvqa.py does', async () => {
    expect((await score(llava)).scores).toEqual({ textvqa_accuracy: expect.closeTo((100 + 60 + 100) / 3, 9) });
    const forms = write(
      'forms.jsonl',
      lines([
        answer('1234567890123456', 'OCR tokens: Bob, THE. Question: Who? Short answer:', 'bob'),
        answer('00ab', `Reference OCR token: a\nHow many?\n${SUFFIX}`, '2'),
        answer('00ab', `<image>\nWhat is the brand?\n${SUFFIX}`, 'dakota'),
      ]),
    );
    expect((await score(forms)).scores.textvqa_accuracy).toBeCloseTo((0 + 60 + 100) / 3, 9);
    const bad = write('bad.jsonl', lines([answer('00ab', 'How many?', '2')]));
    await expect(score(bad)).rejects.toThrow(/bad.jsonl: bad.jsonl:1: its prompt does not tell the question/);
    const strange = write('strange.jsonl', lines([answer('00ab', `Why?\n${SUFFIX}`, '2')]));
    await expect(score(strange)).rejects.toThrow(/no question of picture 00ab is "why\?"/);
    const twice = write('twice.jsonl', lines([1, 2].map(() => answer('00ab', `How many?\n${SUFFIX}`, '2'))));
    await expect(score(twice)).rejects.toThrow(/34603 comes twice among the answers \(twice.jsonl:1 and twice.jsonl:2\)/);
  });

  it('is scored by the VQA scorer in three readings', async () => {
    const expected = {
      answers_as_they_are: (0 + 60 + 100) / 3,
      answers_lowercased: (0 + 60 + 100) / 3,
      answers_through_the_EvalAI_processor: (0 + 60 + 0) / 3,
    };
    for (const [harness, name] of [
      ['vqa', 'answers_as_they_are'],
      ['vqa-lowercase', 'answers_lowercased'],
      ['vqa-evalai', 'answers_through_the_EvalAI_processor'],
    ] as const) {
      const { scores } = await score(llava, harness);
      expect(scores.textvqa_accuracy).toBeCloseTo(expected[name], 9);
      for (const [reading, value] of Object.entries(expected)) expect(scores[reading], reading).toBeCloseTo(value, 9);
    }
  });

  it('reads results by question id, and writes them', async () => {
    const results = write(
      'results.json',
      [34604, 34602, 34603].map((question_id) => ({ question_id, answer: 'Two', pred_source: 'OCR' })),
    );
    expect((await score(results)).scores.textvqa_accuracy).toBeCloseTo(20, 9);
    expect(JSON.parse((await uploadOf(textvqa, { answers: llava, questions: [questions] })).text)[2]).toEqual({
      question_id: 34604,
      answer: "bob 's",
    });
  });

  it('asks with OCR tokens and without', async () => {
    const prompts = async (files: string[], harness: string) =>
      (await textvqa.questions({ files, folder, harness })).map(({ prompt }) => prompt.replace(`\n${SUFFIX}`, ''));
    const rosetta = write('TextVQA_Rosetta_OCR_v0.2_val.json', { data: [{ image_id: '00ab', ocr_tokens: ['DAKOTA', '2'] }] });
    const llavaFile = write(
      'llava_textvqa_val_v051_ocr.jsonl',
      lines([{ question_id: '00ab', image: '00ab.jpg', text: `How many?\nReference OCR token: X\n${SUFFIX}`, category: 'default' }]),
    );
    const bare = ['<image>\nWhat is the brand?', '<image>\nHow many?', '<image>\nWho?'];
    expect(await prompts([questions], 'llava-no-ocr')).toEqual(bare);
    expect(await prompts([questions, rosetta, llavaFile], 'llava')).toEqual([
      '<image>\nWhat is the brand?\nReference OCR token: DAKOTA, 2',
      '<image>\nHow many?\nReference OCR token: X',
      '<image>\nWho?',
    ]);
    expect(await prompts([questions, rosetta], 'lmms-eval')).toEqual(bare);
    await expect(textvqa.questions({ files: [llavaFile.replace('llava_textvqa', 'none')], harness: 'llava' })).rejects.toThrow(
      /no such file/,
    );
  });
});
