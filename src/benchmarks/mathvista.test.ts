import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetWriteFile } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import type { Judge } from './judge.ts';
import { mathVista } from './mathvista.ts';
import { editDistance, extractByRules, normalizeExtraction } from './mathvista-answers.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'mathvista-'));
const save = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value, null, 2));
  return join(folder, name);
};

const choice = (choices: string[]) => ({ questionType: 'multi_choice', answerType: 'text', choices, precision: undefined });
const free = (answerType: string, precision?: number) => ({ questionType: 'free_form', answerType, choices: undefined, precision });

const problem = (pid: number, answer: string, more: object) => ({
  question: `What is ${pid}?`,
  image: `images/${pid}.jpg`,
  choices: null,
  unit: null,
  precision: null,
  answer,
  question_type: 'free_form',
  answer_type: 'integer',
  pid: String(pid),
  metadata: {
    split: 'testmini',
    language: 'english',
    source: 'IconQA',
    skills: ['arithmetic reasoning', 'logical reasoning'],
    grade: 'college',
  },
  ...more,
});
const problems = {
  1: problem(1, '1.2', { answer_type: 'float', precision: 1 }),
  2: problem(2, '145°', { question_type: 'multi_choice', answer_type: 'text', choices: ['135°', '145°', '5°'] }),
  3: problem(3, '14', { unit: 'cm' }),
  4: problem(4, '[1, 2]', { answer_type: 'list' }),
};
const testmini = save('testmini.json', problems);
const output = (fields: Record<string, object>) =>
  Object.fromEntries(Object.entries(problems).map(([pid, of]) => [pid, { ...of, response: 'r', ...fields[pid] }]));
const score = async (answers: string, options: { judge?: Judge; questions?: string[]; data?: string } = { questions: [testmini] }) =>
  scoreAnswers(mathVista, { answers, ...options });

describe('an extraction from an answer to MathVista', () => {
  it('is an option by its letter, by its text, or by the fewest edits', () => {
    const form = choice(['135°', '145°', '5°']);
    const read = (extraction: unknown) => normalizeExtraction(extraction, form);
    for (const said of ['B', ' B ', '(B)', '(b) 5°', 'It is (B), not (A)']) expect(read(said)).toEqual({ text: '145°', reading: 'letter' });
    expect(read('145°')).toEqual({ text: '145°', reading: 'option' });
    for (const said of ['145', '145 °', 'B.45']) expect(read(said)).toEqual({ text: '145°', reading: 'nearest' });
    // no letter of an option, so a text like any other: the shortest has the fewest edits
    for (const said of ['D', 'b', 'B.', 145.5]) expect(read(said).reading).toBe('nearest');
    expect(read('')).toEqual({ text: '5°', reading: 'empty' });
    expect(read(null)).toMatchObject({ reading: 'empty' });
  });

  it('is an integer that is cut off, not rounded', () => {
    const read = (extraction: unknown) => normalizeExtraction(extraction, free('integer')).text;
    expect(['66.67', '99.99', '-0.9', '0.0034', '1e3', ' 5\n', '1_000', '１２', '٣', '1e20'].map(read)).toEqual([
      ...['66', '99', '0', '0', '1000', '5', '1000', '12', '3', '100000000000000000000'],
    ]);
    expect([5, 5.9, true].map(read)).toEqual(['5', '5', '1']);
    for (const said of ['five', '1,000', '5 cm', '12%', 'inf', 'nan', '', null, [5]]) expect(read(said)).toBeUndefined();
  });

  it('is a float as Python rounds and writes it', () => {
    const read = (extraction: unknown, digits?: number) => normalizeExtraction(extraction, free('float', digits)).text;
    expect(read('1.25', 1)).toBe('1.2');
    expect(read('1.35', 1)).toBe('1.4');
    expect(read('2.675', 2)).toBe('2.67');
    expect(read('1', 2)).toBe('1.0');
    expect(read('2.5', 0)).toBe('2.0');
    expect(read('1e16', 1)).toBe('1e+16');
    expect(read('0.00001', 5)).toBe('1e-05');
    expect(read('0.00012', 5)).toBe('0.00012');
    expect(read('-0.04', 1)).toBe('-0.0');
    expect(read('-0', 1)).toBe('-0.0');
    expect(read('inf', 1)).toBe('inf');
    expect([read('1.2', undefined), read('x', 1)]).toEqual([undefined, undefined]);
  });

  it('is a list as it is written', () => {
    const read = (extraction: unknown) => normalizeExtraction(extraction, free('list'));
    expect(read('[1, 2]')).toEqual({ text: '[1, 2]', reading: 'list' });
    expect(read([1, 'a', null])).toEqual({ text: "[1, 'a', None]", reading: 'list' });
    expect(read(' ')).toEqual({ text: ' ', reading: 'empty' });
  });

  it('is compared in characters', () => {
    expect([editDistance('kitten', 'sitting'), editDistance('', 'abc'), editDistance('😀é', '😀e'), editDistance('', '')]).toEqual([
      3, 3, 1, 0,
    ]);
  });

  it('is read by rules where they can', () => {
    const form = choice(['135°', '145°', '5°']);
    const quick = (answer: string, of: Parameters<typeof extractByRules>[1] = form) => extractByRules(answer, of, true);
    for (const said of ['B', '(B)', 'B.', '(B).', ' B: ', 'So it is (B) 145°, (B)!']) expect(quick(said)).toBe('B');
    expect(quick('145°')).toBe('145°');
    expect(quick('The answer is "5°". Sure "x".')).toBe('5°". Sure "x');
    for (const said of ['(A) or (B)', 'D', '(D)', 'Because', 'A is B', '']) expect(quick(said)).toBeUndefined();
    expect([quick('014', free('integer')), quick('14.0', free('integer')), quick('B', free('integer'))]).toEqual([
      '14',
      undefined,
      undefined,
    ]);
    expect([quick('1.25', free('float', 1)), quick('7', free('float', 1))]).toEqual(['1.25', '7.0']);
    expect([extractByRules('B', form, false), extractByRules('145°', form, false)]).toEqual([undefined, '145°']);
  });
});

describe('outputs of MathVista', () => {
  it('are scored by what was extracted, in every grouping, beside what the file says', async () => {
    const stored = { 1: '1.24', 2: 'A', 3: '14.9', 4: '[1, 2]' };
    const fields = Object.fromEntries(
      Object.entries(stored).map(([pid, extraction]) => [pid, { extraction, prediction: null, true_false: pid === '2' }]),
    );
    const { score: found } = await score(save('output.json', output(fields)), {});
    expect(found.scores).toEqual({
      ...{ accuracy: 0.75, correct: 3, total: 4, stored_accuracy: 0.25, stored_correct: 1, changed_predictions: 4, changed_verdicts: 4 },
    });
    expect(found.groups).toMatchObject({
      answer_type: { float: { n: 1, correct: 1, accuracy: 1 }, text: { n: 1, correct: 0, accuracy: 0 } },
      skills: { 'arithmetic reasoning': { n: 4, correct: 3 }, 'logical reasoning': { n: 4 } },
      grade: { college: { n: 4, accuracy: 0.75 } },
      extracted_by: { file: { n: 4 } },
      read_as: { letter: { n: 1 }, number: { n: 2 }, list: { n: 1 } },
    });
    expect(found.judge).toEqual({ judge: 'extractions of the file', rule: 'as they are' });
    expect(found.notes?.[1]).toMatch(/for 4 problems \(1, 2, 3, 4\), and other verdicts for 4 \(1, 2, 3, 4\)/);
  });

  it('without extractions are read by rules, and what these cannot read is counted apart', async () => {
    const path = save(
      'responses.json',
      output({ 1: { response: 1.2 }, 2: { response: '(B) 145°' }, 3: { response: 'it is 14' }, 4: { response: null } }),
    );
    const { score: found, judged } = await score(path);
    expect(found).toMatchObject({
      scores: { accuracy: 0.5, correct: 2 },
      unparsed: 2,
      bounds: { low: 0.5, high: 1 },
      groups: { extracted_by: { rules: { n: 4 } }, read_as: { unread: { n: 1 }, empty: { n: 1 } } },
      judge: { judge: 'rules' },
    });
    expect(judged.map(({ parsed }) => parsed)).toEqual(['1.2', '145°', undefined, undefined]);
    expect(found.notes?.at(-1)).toMatch(/Rules read nothing out of 1 answers/);
  });

  it('whose extraction is empty get the shortest option, as officially, and say so', async () => {
    const path = save('empty.json', { 2: { ...problems[2], answer: '5°', response: 'x', extraction: '' } });
    const { score: found } = await score(path, {});
    expect(found).toMatchObject({ scores: { correct: 1 }, unparsed: 1, bounds: { low: 0, high: 1 } });
    expect(found.notes?.at(-1)).toMatch(/Nothing was extracted from 1 answers; .*takes the shortest one/);
  });

  it('are extracted by a judge, with the official examples where they are there', async () => {
    const asked: string[] = [];
    const reply = async (prompt: string, { maxTokens }: { maxTokens: number }) => {
      asked.push(prompt);
      expect(maxTokens).toBe(1024);
      return { text: ' 14\n' };
    };
    const judge: Judge = { name: 'tester', runs: 1, reply };
    const fields = { 1: { response: '1.2' }, 2: { response: '145°' }, 3: { response: 'fourteen' }, 4: { extraction: '[1, 2]' } };
    const path = save('output.json', output(fields));
    const { score: found } = await score(path, { judge, questions: [testmini] });
    expect(found.scores.correct).toBe(4);
    expect(found.judge).toEqual({
      judge: 'rules, then tester, then extractions of the file',
      prompt: expect.stringMatching(/not the official one$/),
      rule: expect.stringMatching(/else what the judge replies/),
    });
    expect(asked).toEqual([expect.stringMatching(/\nQuestion: What is 3\? \(Unit: cm\)\n\nfourteen\n\nExtracted answer: $/)]);

    const root = mkdtempSync(join(tmpdir(), 'data-'));
    mkdirSync(join(root, 'mathvista'));
    writeFileSync(join(root, 'mathvista', 'ext_ans.py'), '# pids\n\ndemo_prompt = """\nRead.\\nThen \\"type\\" it.\n"""\n');
    writeFileSync(join(root, 'mathvista', 'testmini.json'), JSON.stringify(problems));
    const official = await score(path, { judge, data: root });
    expect(asked[1].startsWith('Read.\nThen "type" it.\n\nHint: ')).toBe(true);
    expect(official.score.judge?.prompt).toMatch(/^demo_prompt of .*ext_ans.py \(sha256 [0-9a-f]{12}\)$/);

    const again = await score(save('void.json', output({ ...fields, 4: { extraction: ' ' } })), { judge, data: root });
    expect(again.score.scores.correct).toBe(3);
  });

  it("may be LLaVA's, plain texts, a list, or have another label", async () => {
    const correct = async (name: string, value: unknown) => (await score(save(name, value))).score.scores.correct;
    const texts = { 1: '1.2', 2: 'B', 3: '14', 4: 'The answer is "[1, 2]".' };
    const lines = Object.entries(texts).map(([id, text]) => JSON.stringify({ question_id: Number(id), text }));
    expect(await correct('llava.jsonl', lines.reverse().join('\n'))).toBe(4);
    expect(await correct('texts.json', texts)).toBe(4);
    expect(
      await correct(
        'list.json',
        Object.entries(texts).map(([pid, response]) => ({ pid, response })),
      ),
    ).toBe(4);
    expect(await correct('label.json', Object.fromEntries(Object.entries(texts).map(([pid, text]) => [pid, { 'response:0': text }])))).toBe(
      4,
    );
  });

  it('that are malformed are named', async () => {
    const bad: [unknown, RegExp][] = [
      [{ 1: '1.2' }, /3 of 4 questions have no answer: 2, 3, 4/],
      [{ 1: '', 2: '', 3: '', 4: '', 5: '' }, /1 answers are to questions that are not in the question file: 5/],
      ['{"1": "a",\n"1": "b"}', /1 comes twice among the answers \(bad.json:1 and bad.json:2\)/],
      [{ 1: { pid: '1' } }, /bad.json:2: has neither a response nor an extraction/],
      [output({ 2: { choices: [] } }), /bad.json:\d+: .*choices: there are none/],
      [output({ 2: { answer_type: 'word' } }), /bad.json:\d+: .*answer_type/],
      [
        output({ 3: { answer: '15' } }),
        /right answer to problem 3 is "15" here \(bad.json:\d+\) and "14" in the questions: are they of another date/,
      ],
      [[{ response: 'x' }], /bad.json:2: has no pid/],
    ];
    for (const [value, message] of bad) await expect(score(save('bad.json', value))).rejects.toThrow(message);
    await expect(score(save('texts.json', { 1: 'x' }), {})).rejects.toThrow(
      /does not hold the problems themselves; give them with --questions/,
    );
    await expect(score(save('hidden.json', output({ 3: { answer: '' } })), {})).rejects.toThrow(/right answer to problem 3 is not known/);
  });
});

describe('problems of MathVista', () => {
  it('are asked by their query, which is built where it is missing', async () => {
    const queries = { ...problems, 3: { ...problems[3], query: 'Q' } };
    const [first, second, third, fourth] = await mathVista.questions({
      files: [save('queries.json', queries)],
      folder,
      harness: 'mathvista',
    });
    expect(first.prompt).toMatch(/^<image>\nHint: .* floating-point number with one decimal place .*\nQuestion: What is 1\?$/);
    expect(second.prompt).toMatch(/option letter, .*\nQuestion: What is 2\?\nChoices:\n\(A\) 135°\n\(B\) 145°\n\(C\) 5°$/);
    expect([third.prompt, fourth.prompt]).toEqual(['<image>\nQ', expect.stringMatching(/requiring a Python list/)]);
    expect(second).toMatchObject({ options: ['135°', '145°', '5°'], references: ['145°'], cluster: 'images/2.jpg' });
    expect(await second.pictures[0].read()).toBe(join(folder, 'images', '2.jpg'));
  });

  it('may be the Parquet file of Hugging Face', async () => {
    const root = mkdtempSync(join(tmpdir(), 'parquet-'));
    const file = join(root, 'testmini-00000-of-00001-725687bf7a18d64b.parquet');
    const all = Object.values(problems) as unknown as Record<string, unknown>[];
    const text = (name: string) => ({ name, data: all.map((of) => of[name]), type: 'STRING' as const, nullable: true });
    const json = (name: string, data: unknown[]) => ({ name, data, type: 'JSON' as const, nullable: true });
    parquetWriteFile({
      filename: file,
      columnData: [
        ...['pid', 'question', 'image', 'unit', 'answer', 'question_type', 'answer_type'].map(text),
        { name: 'precision', data: all.map(({ precision }) => precision), type: 'DOUBLE', nullable: true },
        json(
          'choices',
          all.map(({ choices }) => choices),
        ),
        json(
          'metadata',
          all.map(({ metadata }) => metadata),
        ),
        text('query'),
        { name: 'decoded_image', data: all.map((_, i) => new Uint8Array([i])), type: 'BYTE_ARRAY' },
      ],
    });
    const { score: found } = await score(save('texts.json', { 1: '1.2', 2: 'B', 3: '14', 4: '[1, 2]' }), { data: root });
    expect(found).toMatchObject({ scores: { correct: 3 }, groups: { grade: { college: { n: 4 } } } });
    const [, second] = await mathVista.questions({ folder: root, harness: 'mathvista' });
    expect([...((await second.pictures[0].read()) as Uint8Array)]).toEqual([1]);
  });
});
