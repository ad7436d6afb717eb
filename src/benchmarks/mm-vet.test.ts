import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetWriteFile } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import { downloadsOf, isReady } from './downloads.ts';
import type { Judge, JudgeRequest } from './judge.ts';
import { mmVet, numpyRound } from './mm-vet.ts';
import { gradeByWords, gradingPrompt, parseGrade } from './mm-vet-grading.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'mm-vet-'));
const save = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value, null, 2));
  return join(folder, name);
};

const entries = {
  v1_0: { imagename: 'v1_0.png', question: 'What is x?', answer: '-1<AND>-5', capability: ['ocr', 'math'] },
  v1_1: { imagename: 'v1_1.jpg', question: 'Which lamp?', answer: 'table lamp<OR>desk lamp', capability: ['rec', 'spat'] },
  v1_2: { imagename: 'v1_1.jpg', question: 'Where?', answer: 'left', capability: ['spat', 'rec'] },
};
const questions = save('mm-vet.json', entries);
const graded = (...scores: number[][]) =>
  Object.fromEntries(scores.map((score, i) => [`v1_${i}`, { model: score.map(() => 'gpt-4'), content: score.map(String), score }]));
const said = save('answers.json', { v1_0: 'x = -1', v1_1: 'the desk lamp', v1_2: 'right' });
const score = async (answers: string, options: { questions?: string[]; judge?: Judge } = {}) =>
  (await scoreAnswers(mmVet, { answers, questions: [questions], ...options })).score;

/** A judge that gives these replies in turn, and keeps what it was asked. */
function scripted(...replies: string[]) {
  const asked: (JudgeRequest & { prompt: string })[] = [];
  const judge: Judge = {
    name: 'tester',
    runs: 1,
    reply: async (prompt, request) => {
      asked.push({ prompt, ...request });
      return { text: replies[asked.length - 1] ?? '0.5', model: 'tester-1' };
    },
  };
  return { judge, asked };
}

describe('grades of MM-Vet', () => {
  it('are averaged over runs, capabilities and sets of them, whatever their order', async () => {
    const answers = save('graded.json', graded([0, 0.4], [1, 1], [0.5, 0.4]));
    const { scores, groups, unparsed, judge, notes } = await score(answers);
    expect(scores.total).toBeCloseTo(55, 12);
    expect(scores.std).toBeCloseTo(5, 12);
    expect(scores).toMatchObject({ total_rounded: 55, std_rounded: 5, rec: 72.5, spat: 72.5, ocr: 20, math: 20 });
    expect(groups.integration).toEqual({ rec_spat: { n: 2, score: 72.5, rounded: 72.5 }, math_ocr: { n: 1, score: 20, rounded: 20 } });
    expect(Object.entries(groups.run)).toEqual([
      ['1', { n: 3, score: 50, rounded: 50 }],
      ['2', { n: 3, score: expect.closeTo(60, 12), rounded: 60 }],
    ]);
    expect(unparsed).toBe(0);
    expect(judge).toEqual({ judge: 'grades of the file, by gpt-4', rule: 'as they are' });
    expect(notes).toEqual(['MM-Vet has 218 questions; these are 3.']);
  });

  it('are rounded as the published tables are', () => {
    expect([46.25, 46.35, 0.05, 37.00000000000003, 15, 12.5].map((value) => numpyRound(value))).toEqual([46.2, 46.4, 0, 37, 15, 12.5]);
    expect([0.5, 1.5, 2.5].map((value) => numpyRound(value, 0))).toEqual([0, 2, 2]);
  });

  it('give a total without question files, and say what is missing', async () => {
    const answers = save('graded.json', graded([0], [1]));
    const { scores, groups, notes } = (await scoreAnswers(mmVet, { answers })).score;
    expect(scores).toEqual({ total: 50, std: 0, total_rounded: 50, std_rounded: 0 });
    expect(Object.keys(groups)).toEqual(['run']);
    expect(notes?.[1]).toMatch(/capabilities of the questions are not known/);
    await expect(scoreAnswers(mmVet, { answers: said })).rejects.toThrow(/answers that are not graded yet; give the questions/);
  });

  it('must be whole', async () => {
    const bad: [unknown, RegExp][] = [
      [graded([0], [1]), /1 of 3 questions have no answer: v1_2/],
      [graded([0], [1], [1], [1]), /1 answers are to questions that are not in the question file: v1_3 \(bad.json:\d+\)/],
      [graded([0, 1], [1], [1, 1]), /question v1_1 has 1 grades where v1_0 has 2: it was not graded to the end/],
      [{ ...graded([0], [1]), v1_2: 'text' }, /question v1_2 has no grades where v1_0 has 1/],
      [graded([0], [1.5], [1]), /bad.json:\d+: .*(<=1|less|maximum)/i],
      [graded([0], [], [1]), /bad.json:\d+: .*score: has no grade/],
      [
        '{"v1_0": {"score": [1]},\n "v1_0": {"score": [0]}, "v1_1": {"score": [0]}}',
        /v1_0 comes twice among the answers \(bad.json:1 and bad.json:2\)/,
      ],
      ['{"v1_0": {"score": [1]', /bad.json/],
      ['[1, 2]', /should be answers to MM-Vet/],
      ['{}', /is empty/],
    ];
    for (const [value, message] of bad) await expect(score(save('bad.json', value))).rejects.toThrow(message);
    writeFileSync(join(folder, 'latin.json'), Buffer.from('{"v1_0": "caf\xe9"}', 'latin1'));
    await expect(score(join(folder, 'latin.json'))).rejects.toThrow(/latin.json.*UTF-8/);
  });
});

describe('answers to MM-Vet', () => {
  it('are graded by the judge, with the official prompt', async () => {
    const { judge, asked } = scripted('0.5', '1.0', '0.0');
    const { scores, judge: report } = await score(said, { judge });
    expect(scores.total).toBe(50);
    expect(report).toMatchObject({ judge: 'tester, tester-1', prompt: 'the few-shot prompt of mm-vet_evaluator.py' });
    expect(asked.map(({ prompt }) => prompt.split('\n').at(-1))).toEqual([
      'What is x? | -1 <AND> -5 | x = -1 | ',
      'Which lamp? | table lamp <OR> desk lamp | the desk lamp | ',
      'Where? | left | right | ',
    ]);
    expect(asked[0]).toMatchObject({ maxTokens: 3, run: 1 });
    expect(asked[0].prompt).toMatch(/^Compare the ground truth and prediction from AI models, to give a correctness score/);
  });

  it('are graded several times where that is asked', async () => {
    const { judge, asked } = scripted('0.0', '0.0', '0.0', '1.0', '1.0', '1.0');
    const { scores, groups } = await score(said, { judge: { ...judge, runs: 2 } });
    expect(asked.map(({ run }) => run).sort()).toEqual([1, 1, 1, 2, 2, 2]);
    expect(scores).toMatchObject({ total: 50, std: 50 });
    expect(groups.run).toMatchObject({ 1: { score: 0 }, 2: { score: 100 } });
  });

  it('are asked for again, ever warmer, where the reply is no grade, and count as 0 in the end', async () => {
    const single = save('single.json', { v1_0: entries.v1_0 });
    const answers = save('one.json', { v1_0: 'x' });
    const found = scripted('good', '1.5', '', '0.7 because');
    expect((await score(answers, { questions: [single], judge: found.judge })).scores.total).toBe(70);
    expect(found.asked.map(({ temperature }) => temperature)).toEqual([undefined, 0, 0.5, 1]);
    expect(found.asked[1].prompt.slice(gradingPrompt({ question: '', reference: '', answer: '' }).length)).toMatch(
      /\nPredict the correctness of the answer \(digit\): $/,
    );

    const never = scripted('a', 'b', 'c', 'd', 'e', '1.0');
    const { scores, unparsed, bounds } = await score(answers, { questions: [single], judge: never.judge });
    expect(never.asked.length).toBe(5);
    expect({ total: scores.total, unparsed, bounds }).toEqual({ total: 0, unparsed: 1, bounds: { low: 0, high: 100 } });
  });

  it('give a grade as Python reads it', () => {
    const replies = ['0.5', ' 0.5', '1.0\n', '1', '.5', '0.5/1.0', 'nan', '-0.1', '1.1', '0.7 of 1', '0.8.', ''];
    expect(replies.map(parseGrade)).toEqual([
      0.5,
      undefined,
      1,
      1,
      0.5,
      undefined,
      undefined,
      undefined,
      undefined,
      0.7,
      undefined,
      undefined,
    ]);
  });

  it('can be graded by words alone, which is said', async () => {
    const { scores, judge, notes } = await score(said, { judge: { name: 'rules', runs: 1 } });
    expect(scores.total).toBe(50);
    expect(judge).toMatchObject({ judge: 'rules', rule: expect.stringMatching(/not the official grade/) });
    expect(notes?.at(-1)).toMatch(/not the scores that others report/);
    const grade = (reference: string, answer: string) => gradeByWords({ question: '', reference, answer }).score;
    expect(grade('5', 'There are 15 of them')).toBe(0);
    expect(grade('a<AND>b<AND>c', 'A, and c')).toBe(0.7);
    expect(grade('New York<OR>NYC', 'new york!')).toBe(1);
    await expect(score(said)).rejects.toThrow(/graded by a judge: --judge ADDRESS/);
  });

  it("may be LLaVA's, numbers, or nothing", async () => {
    const { judge, asked } = scripted();
    const lines = [2, 0, 1].map((id) => JSON.stringify({ question_id: id, prompt: 'p', text: `t${id}`, answer_id: 'a' }));
    await score(save('llava.jsonl', `${lines.join('\r\n')}\r\n`), { judge });
    await score(save('other.json', '\ufeff{"v1_0": 5, "v1_1": null, "v1_2": "ü"}'), { judge });
    const ends = asked.map(({ prompt }) => prompt.split(' | ').at(-2));
    expect(ends).toEqual(['t0', 't1', 't2', '5', '', 'ü']);
  });
});

describe('questions of MM-Vet', () => {
  const read = (files: string[]) => mmVet.questions({ files, harness: 'mm-vet', folder });

  it('are asked as they are, before their picture', async () => {
    const [first, , third] = await read([questions]);
    expect(first).toMatchObject({ id: 'v1_0', prompt: '<image>\nWhat is x?', references: ['-1<AND>-5'], cluster: 'v1_0.png' });
    expect(third).toMatchObject({ cluster: 'v1_1.jpg', groups: { capability: ['spat', 'rec'], integration: 'rec_spat' } });
    expect(await third.pictures[0].read()).toBe(join(folder, 'images', 'v1_1.jpg'));
  });

  it("may be LLaVA's, with the capabilities in another file", async () => {
    const llava = save(
      'llava-mm-vet.jsonl',
      Object.values(entries)
        .map(({ question, imagename }, i) => JSON.stringify({ image: imagename, text: question, category: 'conv', question_id: i }))
        .join('\n'),
    );
    const lists = Object.fromEntries(Object.entries(entries).map(([id, { capability }]) => [id, capability]));
    const both = await read([llava, save('capabilities.json', lists)]);
    expect(both.map(({ id, groups }) => [id, groups.integration])).toEqual([
      ['v1_0', 'math_ocr'],
      ['v1_1', 'rec_spat'],
      ['v1_2', 'rec_spat'],
    ]);
    expect((await read([llava])).map(({ capabilities }) => capabilities)).toEqual([[], [], []]);
    const { v1_0, ...fewer } = lists;
    await expect(read([llava, save('fewer.json', fewer)])).rejects.toThrow(
      /fewer.json: has no question v1_0, which .*llava-mm-vet.jsonl has/,
    );
    await expect(read([save('fewer.json', fewer), llava])).rejects.toThrow(/question v1_0 \(llava-mm-vet.jsonl:1\) is not in .*fewer.json/);
    await expect(scoreAnswers(mmVet, { answers: said, questions: [llava], judge: scripted().judge })).rejects.toThrow(
      /v1_0: its right answer is not known: grading needs mm-vet.json/,
    );
  });

  it('may be a Parquet file of Hugging Face, found in its folder', async () => {
    const root = mkdtempSync(join(tmpdir(), 'parquet-'));
    mkdirSync(join(root, 'mm-vet', 'data'), { recursive: true });
    const all = Object.entries(entries);
    const column = (name: string, data: unknown[]) => ({ name, data, type: 'STRING' as const });
    parquetWriteFile({
      filename: join(root, 'mm-vet', 'data', 'test-00000-of-00001.parquet'),
      columnData: [
        column(
          'question_id',
          all.map(([id]) => id),
        ),
        column(
          'question',
          all.map(([, { question }]) => question),
        ),
        column(
          'answer',
          all.map(([, { answer }]) => answer),
        ),
        column(
          'capability',
          all.map(([, { capability }]) => capability.join(',')),
        ),
        { name: 'image', data: all.map((_, i) => new Uint8Array([i, 255])), type: 'BYTE_ARRAY' },
      ],
    });
    const found = await mmVet.questions({ folder: join(root, 'mm-vet'), harness: 'mm-vet' });
    expect(found.map(({ id, groups }) => [id, groups.integration])).toEqual([
      ['v1_0', 'math_ocr'],
      ['v1_1', 'rec_spat'],
      ['v1_2', 'rec_spat'],
    ]);
    expect([...((await found[1].pictures[0].read()) as Uint8Array)]).toEqual([1, 255]);
    expect(isReady(downloadsOf(mmVet, root), 'ask')).toBe(true);
    const { score } = await scoreAnswers(mmVet, { answers: save('graded.json', graded([0], [1], [1])), data: root });
    expect(score.scores.rec).toBe(100);
  });

  it('that are malformed are named, with their line', async () => {
    const bad = save('bad.json', { v1_0: entries.v1_0, v1_1: { ...entries.v1_1, answer: 5 } });
    await expect(read([bad])).rejects.toThrow(/bad.json:11: .*answer.*it should be MM-Vet's questions/);
    await expect(scoreAnswers(mmVet, { answers: said, data: mkdtempSync(join(tmpdir(), 'none-')) })).rejects.toThrow(
      /there are no questions of MM-Vet.*expected mm-vet.json/,
    );
    await expect(score(mkdtempSync(join(tmpdir(), 'none-')))).rejects.toThrow(
      /is a folder with 0 files that may be it; name the one with answers/,
    );
  });
});
