import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeParquet } from '../../tests/parquet.ts';
import { mmbench, mmbenchCn } from './mmbench.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'mmbench-'));
const file = (name: string, ...lines: string[]) => {
  writeFileSync(join(folder, name), lines.join('\n'));
  return join(folder, name);
};
const picture = Buffer.from('picture'.repeat(30));
const base64 = picture.toString('base64');
const header = 'index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage\tl2-category\tsplit';
const dev = file(
  'mmbench_dev_20230712.tsv',
  header,
  `1\tWhich?\t\tcat\tdog\t\t\tA\tanimals\t${base64}\tcoarse\tdev`,
  `2\t"Say ""one"""\tA hint.\tone\ttwo\tthree\tfour\tC\tnumbers\t${base64}\tfine\tdev`,
  '1000001\tWhich?\t\tdog\tcat\t\t\tB\tanimals\t1\tcoarse\tdev',
  `1000002\t"Say ""one"""\tA hint.\ttwo\tthree\tfour\tone\tB\tnumbers\t${base64}\tfine\tdev`,
);
const score = async (path: string, questions?: string[], harness?: string) =>
  (await scoreAnswers(mmbench, { answers: path, questions, harness })).score;

describe('MMBench', () => {
  it('asks in the words of LLaVA', async () => {
    const questions = await mmbench.questions({ files: [dev], harness: 'mmbench' });
    expect(questions.map(({ prompt }) => prompt).slice(0, 2)).toEqual([
      "<image>\nWhich?\nA. cat\nB. dog\nAnswer with the option's letter from the given choices directly.",
      '<image>\nA hint.\nSay "one"\nA. one\nB. two\nC. three\nD. four\nAnswer with the option\'s letter from the given choices directly.',
    ]);
    expect(questions[2]).toMatchObject({
      id: '1000001',
      cluster: '1',
      references: ['B'],
      options: ['A', 'B'],
      groups: { category: 'animals' },
    });
    // a pass may have the number of the row that has its picture
    for (const { pictures } of questions) expect(await pictures[0].read()).toEqual(picture);
    const [chinese] = await mmbenchCn.questions({ files: [dev], harness: 'mmbench' });
    expect(chinese.prompt).toMatch(/B. dog\n请直接回答选项字母。$/);
  });

  it('reads Parquet files of the Hugging Face data sets', async () => {
    const path = join(folder, 'dev.parquet');
    const image = [{ bytes: picture, path: 'a.jpg' }];
    const columns = { index: [7], question: ['Which?'], hint: ['nan'], A: ['x'], B: ['y'], C: ['nan'], D: ['nan'], answer: ['B'], image };
    writeParquet(path, { ...columns, 'L2-category': ['fine'] }, { pictures: ['image'] });
    const [question] = await mmbench.questions({ files: [path], harness: 'mmbench' });
    expect(question).toMatchObject({ id: '7', references: ['B'], groups: { 'l2-category': 'fine' } });
    expect(question.prompt).toMatch(/^<image>\nWhich\?\nA. x\nB. y\nAnswer/);
    expect([...((await question.pictures[0].read()) as Uint8Array)]).toEqual([...picture]);
  });

  it('takes a question for right when all its passes are', async () => {
    const given = file('sheet.csv', 'index,prediction', '1000002,B', '2,C', '1,A', '1000001,A dog');
    expect(await score(given, [dev])).toMatchObject({
      n: 4,
      unparsed: 0,
      scores: { questions: 2, circular_correct: 1, circular_accuracy: 50, passes: 4, passes_correct: 3, first_pass_correct: 2 },
      groups: { category: { animals: { accuracy: 0, n: 1 }, numbers: { accuracy: 100 } }, 'l2-category': { fine: { correct: 1 } } },
    });
    expect(await score(given, [dev], 'exact')).toMatchObject({
      unparsed: 1,
      scores: { circular_correct: 1 },
      bounds: { low: 50, high: 100 },
    });
  });

  it('reads letters and texts of options, and counts apart what is neither', async () => {
    const answers = [
      { question_id: 1, text: 'The answer is A.' },
      { question_id: 1000001, text: 'a cat' },
      { question_id: 2, text: 'three' },
      { question_id: 1000002, text: 'maybe' },
    ];
    const given = file('answers.jsonl', ...answers.map((line) => JSON.stringify(line)));
    expect(await score(given, [dev])).toMatchObject({ unparsed: 1, scores: { circular_correct: 1 }, bounds: { low: 50, high: 100 } });
  });

  it('scores a sheet that has the right letters itself', async () => {
    const sheet = file('sheet.tsv', 'index\tanswer\tprediction', '1.0\tA\tA', '1000001.0\tB\tC', '2.0\tD\t');
    const { scores, unparsed, n } = await score(sheet);
    expect({ n, unparsed, scores }).toMatchObject({
      n: 3,
      unparsed: 1,
      scores: { questions: 2, circular_correct: 0, first_pass_correct: 1 },
    });
    const [{ pictures }] = await mmbench.questions({ files: [sheet], harness: 'mmbench' });
    await expect(pictures[0].read()).rejects.toThrow(/has no pictures; to ask, give MMBench's own file/);
    expect((await score(file('once.tsv', 'index\tanswer\tprediction', '1\tA\tA'))).notes).toEqual([
      expect.stringMatching(/asked once only/),
    ]);
  });

  it('names what is malformed, with its line', async () => {
    const good = file('good.tsv', 'index\tprediction', '1\tA');
    const questions = (...rows: string[]) => [file('questions.tsv', header, ...rows)];
    await expect(score(good, questions('1\tq\t\ta\tb\t\t\tC\t\tx'))).rejects.toThrow(
      /questions.tsv:2: the answer "C" is none of the options A, B/,
    );
    await expect(score(good, questions('x\tq\t\ta\tb\t\t\tA\t\tx'))).rejects.toThrow(/questions.tsv:2: the index "x" is no whole number/);
    await expect(score(good, questions('1\tq\t\ta\tb\t\t\t\t\tx'))).rejects.toThrow(/has no answer; the test split is scored by/);
    await expect(score(good, [dev])).rejects.toThrow(/3 of 4 questions have no answer: 2, 1000001, 1000002/);
    const twice = file('twice.tsv', 'index\tprediction', '1\tA', '2\tA', '1\tB');
    await expect(score(twice, [dev])).rejects.toThrow(/question 1 comes twice among the answers \(twice.tsv:2 and twice.tsv:4\)/);
    await expect(score(file('two.tsv', 'index\tx\ty', '1\tA\tA'), [dev])).rejects.toThrow(/which of its columns are the answers\? x, y/);
    await expect(score(file('none.tsv', 'index\tanswer', '1\tA'), [dev])).rejects.toThrow(/has no column prediction/);
    await expect(score(file('a.xlsx', 'PK\x03\x04'), [dev])).rejects.toThrow(/is a workbook of Excel; export/);
    const broken = await mmbench.questions({ files: questions(`1\tq\t\ta\tb\t\t\tA\t\t${base64.slice(0, 70)}*`), harness: 'mmbench' });
    await expect(broken[0].pictures[0].read()).rejects.toThrow(/questions.tsv:2: the picture's base64 is broken/);
    await expect(score(file('a.jsonl', '{"question_id": 1, "text": "A"}'))).rejects.toThrow(/right answers are in its TSV file/);
  });
});
