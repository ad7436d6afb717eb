import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { gqa } from './gqa.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'gqa-'));
const write = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), typeof value === 'string' ? value : JSON.stringify(value));
  return join(folder, name);
};
const question = (answer: string, structural: string, more: object = {}) => ({
  semantic: [
    { operation: 'select', argument: 'dog (1)' },
    { operation: 'filter color', argument: 'red' },
    { operation: structural === 'query' ? 'query' : 'exist', argument: structural === 'query' ? 'name' : '?' },
  ],
  entailed: [],
  equivalent: [],
  question: 'What is the red animal?',
  imageId: 'n12',
  isBalanced: true,
  groups: { global: 'animal', local: '1-dog' },
  answer,
  types: { detailed: 'categoryThat', semantic: 'cat', structural },
  ...more,
});
const balanced = {
  '07': question('dog', 'query'),
  '08': question('cat', 'query', { question: 'Which one?' }),
  '09': question('yes', 'verify', {
    groups: { global: null, local: null },
    types: { detailed: 'existC', semantic: 'obj', structural: 'verify' },
  }),
};
const llava = (texts: Record<string, string>) =>
  Object.entries(texts)
    .map(([question_id, text]) => JSON.stringify({ question_id, prompt: 'p', text, answer_id: 'a', model_id: 'm', metadata: {} }))
    .join('\n');
const predictions = (texts: Record<string, string>) =>
  Object.entries(texts).map(([questionId, prediction]) => ({ questionId, prediction }));
const score = async (answers: string, questions: string[], harness?: string) =>
  (await scoreAnswers(gqa, { answers, questions, harness })).score;

describe('GQA', () => {
  const file = write('testdev_balanced_questions.json', balanced);

  it("reads LLaVA's answers without final full stops, in lower case, and predictions as they are", async () => {
    const texts = { '09': 'Yes..', '08': 'Dog', '07': 'Dog.' };
    const { scores, groups, n, unparsed } = await score(write('a.jsonl', llava(texts)), [file]);
    expect(scores).toMatchObject({ accuracy: (2 / 3) * 100, binary: 100, open: 50 });
    // of two animals, a dog and a cat, two dogs were said: (1 + 1) for a group of 2
    expect(scores.distribution).toBeCloseTo(2 / 100, 12);
    expect({ n, unparsed }).toEqual({ n: 3, unparsed: 0 });
    expect(groups.accuracyPerSteps).toEqual({ 2: { accuracy: expect.closeTo(200 / 3, 9), n: 3, correct: 2 } });
    expect(groups.accuracyPerLength).toMatchObject({ 2: { n: 1, accuracy: 0 }, 5: { n: 2, accuracy: 100 } });
    expect(groups.accuracyPerSemanticType).toMatchObject({ cat: { accuracy: 50 }, obj: { accuracy: 100 } });
    const uploaded = write('p.json', predictions({ ...texts, '07': 'dog' }));
    expect((await score(uploaded, [file])).scores.accuracy).toBeCloseTo(100 / 3, 9);
    expect((await score(join(folder, 'a.jsonl'), [file], 'gqa')).scores.accuracy).toBe(0);
    expect((await score(uploaded, [file], 'lmms-eval')).scores.accuracy).toBeCloseTo(200 / 3, 9);
  });

  it('measures validity, plausibility and consistency where the files for them are there, and says so where not', async () => {
    const third = expect.closeTo(100 / 3, 9);
    const all = {
      ...balanced,
      '07': question('dog', 'query', { entailed: ['07', '10', '11'] }),
      '10': question('yes', 'verify', { isBalanced: false }),
      '11': question('no', 'verify', { isBalanced: false }),
    };
    const answers = write('p.json', predictions({ '07': 'dog', '08': 'pig', '09': 'maybe', '10': 'yes', '11': 'yes' }));
    const choices = write(
      'testdev_choices.json',
      Object.fromEntries(Object.keys(all).map((id) => [id, { valid: ['dog', 'pig', 'yes'], plausible: ['dog', 'yes'] }])),
    );
    const { scores, notes, n } = await score(answers, [write('testdev_all_questions.json', all), choices]);
    expect(scores).toMatchObject({ accuracy: third, consistency: 50, validity: expect.closeTo(200 / 3, 9), plausibility: third });
    expect(n).toBe(5);
    expect(notes).toEqual([expect.stringMatching(/3 balanced questions among the 5/)]);
    const without = await score(answers, [file]);
    expect(Object.keys(without.scores)).toEqual(['accuracy', 'binary', 'open', 'distribution']);
    expect(without.notes).toEqual([expect.stringMatching(/^Not measured: validity, plausibility, consistency/)]);
    await expect(score(answers, [file, write('choices.json', { '07': { valid: [], plausible: [] } })])).rejects.toThrow(
      /choices.json: has no choices for question 08/,
    );
  });

  it('scores a part of the questions by answers to all, but never a part of the answers', async () => {
    const head = write('ood_testdev_head.json', { '07': balanced['07'] });
    const answers = write('a.jsonl', llava({ '09': 'yes', '08': 'cat', '07': 'dog' }));
    expect(await score(answers, [head])).toMatchObject({ n: 1, scores: { accuracy: 100 } });
    await expect(score(write('b.jsonl', llava({ '07': 'dog' })), [file])).rejects.toThrow(/2 of 3 questions have no answer: 08, 09/);
    await expect(score(write('c.jsonl', `${llava({ '07': 'a' })}\n${llava({ '07': 'b' })}`), [head])).rejects.toThrow(
      /07 comes twice among the answers \(c.jsonl:1 and c.jsonl:2\)/,
    );
    await expect(score(answers, [file, head])).rejects.toThrow(/question 07 comes twice among the questions/);
  });

  it('names what is wrong with a question file', async () => {
    const answers = write('a.jsonl', llava({ '07': 'dog' }));
    const { answer: _, ...asked } = balanced['07'];
    await expect(score(answers, [write('submission_all.json', { '07': asked })])).rejects.toThrow(
      /submission_all.json, entry 1, question 07: answer: answer is missing: questions of the test/,
    );
    const own = '{"question_id": "07", "image": "n12.jpg", "text": "What?"}\n';
    await expect(score(answers, [write('llava_gqa.jsonl', own + own)])).rejects.toThrow(/is not one object.*has no right answers/);
    await expect(scoreAnswers(gqa, { answers })).rejects.toThrow(/right answers are in its question files/);
  });

  it('asks as LLaVA does', async () => {
    mkdirSync(join(folder, 'data', 'images'), { recursive: true });
    const [asked] = await gqa.questions({ folder, harness: 'llava' });
    expect(asked.prompt).toBe('<image>\nWhat is the red animal?\nAnswer the question using a single word or phrase.');
    expect(await asked.pictures[0].read()).toBe(join(folder, 'data', 'images', 'n12.jpg'));
    expect((await gqa.questions({ folder, harness: 'llava' })).length).toBe(3);
    const answers = write('whole.jsonl', llava({ '07': 'dog', '08': 'cat', '09': 'yes' }));
    expect((await score(answers, [folder])).scores.accuracy).toBe(100);
    expect(asked).toMatchObject({ id: '07', cluster: 'n12', references: ['dog'] });
  });
});
