import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeParquet } from '../../tests/parquet.ts';
import { scoreAnswers } from './score.ts';
import { seed } from './seed.ts';

const folder = mkdtempSync(join(tmpdir(), 'seed-'));
const file = (name: string, content: string) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const lines = (name: string, ...values: object[]) => file(name, values.map((value) => JSON.stringify(value)).join('\n'));
const question = (question_id: string, answer: string, data_type: string, question_type_id: number) => ({
  question_id,
  answer,
  data_type,
  question_type_id,
  data_id: `${question_id}.x`,
  question: 'Which?',
  choice_a: 'one',
  choice_b: 'two',
  choice_c: 'three',
  choice_d: 'four',
});
const all = (...questions: object[]) => ({ questions, question_type: { 'Scene Understanding': 1, 'Action Recognition': 10 } });
const questions = file(
  'SEED-Bench.json',
  JSON.stringify(all(question('101', 'A', 'image', 1), question('102', 'B', 'image', 1), question('v1', 'C', 'video', 10)), null, 1),
);
const answers = lines('answers.jsonl', { question_id: 102, text: 'B' }, { question_id: 'v1', text: 'C' }, { question_id: 101, text: 'A.' });
const score = async (path: string, files?: string[], harness?: string) =>
  (await scoreAnswers(seed, { answers: path, questions: files, harness })).score;

describe('SEED-Bench', () => {
  it('asks in the words of LLaVA', async () => {
    const [first, ...others] = await seed.questions({ files: [questions], folder, harness: 'llava' });
    expect(first).toMatchObject({
      id: '101',
      prompt: "<image>\nWhich?\nA. one\nB. two\nC. three\nD. four\nAnswer with the option's letter from the given choices directly.",
      groups: { question_type: 'Scene Understanding', data_type: 'image' },
    });
    expect(others).toHaveLength(1);
    expect(await first.pictures[0].read()).toBe(join(folder, 'SEED-Bench-image', '101.x'));
    const frames = await seed.questions({ files: [questions], folder, harness: 'llava-all' });
    expect(await frames[2].pictures[0].read()).toBe(join(folder, 'SEED-Bench-video-image', '10_v1.png'));
    const given = mkdtempSync(join(tmpdir(), 'seed-llava-'));
    mkdirSync(join(given, 'SEED-Bench-image'));
    writeFileSync(join(given, 'SEED-Bench.json'), JSON.stringify(all(question('101', 'A', 'image', 1))));
    const line = { question_id: '101', image: 'SEED-Bench-image/a b', text: 'Words' };
    writeFileSync(join(given, 'llava-seed-bench.jsonl'), JSON.stringify(line));
    const [llava] = await seed.questions({ folder: given, harness: 'llava' });
    expect([llava.prompt, await llava.pictures[0].read()]).toEqual(['<image>\nWords', join(given, 'SEED-Bench-image', 'a b')]);
  });

  it('takes nothing but the letter, and answers about videos only where these are scored', async () => {
    expect(await score(answers, [questions])).toMatchObject({
      n: 2,
      unparsed: 1,
      scores: { accuracy: 50, correct: 1, questions: 2 },
      groups: { question_type: { 'Scene Understanding': { accuracy: 50, n: 2 } } },
      bounds: { low: 50, high: 100 },
    });
    const everything = await score(answers, [questions], 'llava-all');
    expect(everything).toMatchObject({ n: 3, groups: { data_type: { image: { correct: 1 }, video: { accuracy: 100 } } } });
    expect((await score(answers, [questions], 'lmms-eval')).scores.accuracy).toBe(100);
    const upload = lines('upload.jsonl', { question_id: '101', prediction: 'A' }, { question_id: '102', prediction: 'C' });
    expect((await score(upload, [questions])).scores.correct).toBe(1);
  });

  it('scores each system of a table', async () => {
    const table = file('systems.tsv', 'question_id\tanswer\tmine\tyours\n1\tA\tA\tA\n2\tB\tA\tB\n3\tD\tx\tD\n');
    expect(await score(table)).toMatchObject({
      n: 3,
      unparsed: 1,
      scores: { correct: 1 },
      groups: { system: { mine: { correct: 1, n: 3 }, yours: { accuracy: 100 } } },
      notes: ['The table has answers of mine, yours; the scores are those of mine.'],
    });
  });

  it('reads Parquet files, whose pictures are lists', async () => {
    const path = join(folder, 'a.parquet');
    const columns = {
      question_id: ['1'],
      question: ['Which?'],
      choice_a: ['x'],
      choice_b: ['y'],
      choice_c: ['z'],
      choice_d: ['w'],
      answer: ['B'],
    };
    writeParquet(path, { ...columns, data_type: ['image'], image: [{ bytes: Buffer.from('abc'), path: 'a' }] }, { pictures: ['image'] });
    const [found] = await seed.questions({ files: [path], harness: 'llava' });
    expect(found.prompt).toMatch(/^<image>\nWhich\?\nA. x\nB. y\nC. z\nD. w\nAnswer/);
    expect(Buffer.from((await found.pictures[0].read()) as Uint8Array).toString()).toBe('abc');
  });

  it('names what is malformed', async () => {
    const other = (...of: object[]) => [file('other.json', JSON.stringify(all(...of), null, 1))];
    await expect(score(answers, other(question('101', 'E', 'image', 1)))).rejects.toThrow(/other.json:3: answer: must be A, B, C or D/);
    await expect(score(answers, other(question('1', 'A', 'image', 1), question('1', 'A', 'image', 1)))).rejects.toThrow(
      /question 1 comes twice/,
    );
    await expect(score(answers, other(question('101', 'A', 'image', 1)))).rejects.toThrow(/2 answers are to questions that are not/);
    await expect(score(lines('short.jsonl', { question_id: 101, text: 'A' }), [questions])).rejects.toThrow(
      /1 of 2 questions have no answer: 102/,
    );
    await expect(score(answers, [lines('q.jsonl', { question_id: 1, image: 'a', text: 'b' })])).rejects.toThrow(/give SEED-Bench.json/);
    await expect(score(answers)).rejects.toThrow(/right letters are in SEED-Bench.json/);
    await expect(score(file('x.tsv', 'question_id\tanswer\tme\n1\tE\tA\n'))).rejects.toThrow(
      /x.tsv:2: the answer "E" must be A, B, C or D/,
    );
  });
});
