import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeParquet } from '../../tests/parquet.ts';
import { mmvp } from './mmvp.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'mmvp-'));
const file = (name: string, ...lines: string[]) => {
  writeFileSync(join(folder, name), lines.join('\n'));
  return join(folder, name);
};
const csv = (name: string, ids: number[], ...golds: string[]) =>
  file(
    name,
    '\ufefflndex,Question,Options,Correct Answer',
    ...ids.map((id, i) => `${id},"Is it, then?",(a) Open (b) Closed,(${golds[i]})`),
  );
const questions = csv('Questions.csv', [1, 2, 3, 4], 'a', 'b', 'b', 'a');
const answers = (name: string, of: Record<number, string>) =>
  file(name, ...Object.entries(of).map(([id, text]) => JSON.stringify({ question_id: Number(id), prompt: 'x', text })));
const score = async (path: string, files?: string[], harness?: string) =>
  (await scoreAnswers(mmvp, { answers: path, questions: files, harness })).score;

describe('MMVP', () => {
  it('asks in the words of its own script, or of lmms-eval', async () => {
    const [first] = await mmvp.questions({ folder, harness: 'mmvp' });
    expect(first).toMatchObject({ id: '1', prompt: '<image>\nIs it, then? (a) Open (b) Closed', references: ['A'], cluster: 'pair 1' });
    expect(await first.pictures[0].read()).toBe(join(folder, 'MMVP Images', '1.jpg'));
    const [other] = await mmvp.questions({ files: [questions], harness: 'lmms-eval' });
    expect(other.prompt).toBe(
      "<image>\nIs it, then?\nA. Open\nB. Closed\nAnswer with the option's letter from the given choices directly.",
    );
  });

  it('reads options by letter and by text, and takes pairs for right whose two answers are', async () => {
    const given = answers('a.jsonl', { 2: 'The door is closed.', 1: ' (a) Open', 4: 'A.', 3: 'I think (a) or (b)' });
    expect(await score(given, [questions])).toMatchObject({
      n: 4,
      unparsed: 1,
      scores: { accuracy: 0.5, pairs_right: 1, pairs: 2, question_accuracy: 0.75, questions: 4 },
      bounds: { low: 0.5, high: 1 },
      notes: [expect.stringMatching(/read out of the answers by rules/)],
    });
    const texts = { 1: 'a', 2: 'B) Closed', 3: 'The answer is B', 4: 'a person sees nothing' };
    expect(await score(answers('b.jsonl', texts), [questions])).toMatchObject({ unparsed: 1, scores: { questions_right: 3 } });
    // lmms-eval takes the article for an option
    expect(await score(answers('b.jsonl', texts), [questions], 'lmms-eval')).toMatchObject({ unparsed: 0, scores: { questions_right: 4 } });
  });

  it('counts replies of a grader that are yes and nothing else', async () => {
    const replies = file('replies.json', JSON.stringify(['yes', 'Yes', 'yes', 'Yes.', 'no', 'YES', 'yes\n', 'yes']));
    expect(await score(replies)).toMatchObject({
      n: 8,
      unparsed: 2,
      scores: { accuracy: 0.25, pairs_right: 1, pairs: 4, replies: 8 },
      bounds: { low: 0.25, high: 0.75 },
    });
    await expect(score(file('odd.json', '["yes", "no", "yes"]'))).rejects.toThrow(/question 3 has no other of its pair/);
    await expect(score(file('mixed.json', '["yes",\n1]'))).rejects.toThrow(/mixed.json:2: is no text/);
  });

  it("scores the benchmark's own answers without a question file, in any order", async () => {
    const line = (question_id: number, answer: string, response: string) =>
      JSON.stringify({ question_id, prompt: 'Is it? (a) Open (b) Closed', answer, response, answer_id: 'x', model_id: 'y' });
    const own = file('own.jsonl', line(2, '(b)', 'Closed'), line(1, '(a)', 'open'));
    expect((await score(own)).scores).toMatchObject({ pairs_right: 1, pairs: 1 });
    expect((await score(own, [csv('two.csv', [1, 2], 'b', 'a')])).scores).toMatchObject({ pairs_right: 0 });
  });

  it('exchanges four labels only where asked', async () => {
    const file = csv('labels.csv', [99, 100, 279, 280], 'a', 'b', 'a', 'b');
    const given = answers('labels.jsonl', { 99: 'b', 100: 'a', 279: 'b', 280: 'a' });
    expect((await score(given, [file])).scores.pairs_right).toBe(0);
    expect((await score(given, [file], 'lmms-eval')).scores.pairs_right).toBe(2);
  });

  it('reads Parquet files', async () => {
    const path = join(folder, 'mmvp.parquet');
    const image = ['one', 'two'].map((name) => ({ bytes: Buffer.from(name), path: name }));
    const columns = {
      Index: [1, 2],
      Question: ['q', 'q'],
      Options: ['(a) x (b) y', '(a) x (b) y'],
      'Correct Answer': ['(a)', '(b)'],
      image,
    };
    writeParquet(path, columns, { pictures: ['image'] });
    const [, second] = await mmvp.questions({ files: [path], harness: 'mmvp' });
    expect(second).toMatchObject({ id: '2', references: ['B'] });
    expect(Buffer.from((await second.pictures[0].read()) as Uint8Array).toString()).toBe('two');
  });

  it('names what is malformed', async () => {
    const given = answers('c.jsonl', { 1: 'a', 2: 'b' });
    await expect(score(given, [csv('c.csv', [1, 2], 'a', 'c')])).rejects.toThrow(
      /c.csv:3: the right answer must be \(a\) or \(b\), not "\(c\)"/,
    );
    await expect(score(given, [csv('d.csv', [1, 3], 'a', 'b')])).rejects.toThrow(/question 1 has no other of its pair/);
    await expect(score(given, [csv('e.csv', [1, 1], 'a', 'b')])).rejects.toThrow(/question 1 comes twice/);
    await expect(score(given, [csv('f.csv', [0, 1], 'a', 'b')])).rejects.toThrow(/"0" is no number of a question/);
    await expect(score(given, [questions])).rejects.toThrow(/2 of 4 questions have no answer: 3, 4/);
    await expect(score(given)).rejects.toThrow(/right answers are in Questions.csv/);
    await expect(score(given, [file('g.csv', 'Index,Question,Options', '1,q,(a) x (b) y')])).rejects.toThrow(
      /g.csv:2: has no correct answer/,
    );
  });
});
