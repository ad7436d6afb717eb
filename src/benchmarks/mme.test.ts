import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { writeParquet } from '../../tests/parquet.ts';
import { mme } from './mme.ts';
import { COGNITION, TASKS } from './mme-files.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'mme-'));
const file = (name: string, ...lines: string[]) => {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), lines.join('\n'));
  return join(folder, name);
};
const score = async (answers: string, questions?: string[], harness?: string) =>
  (await scoreAnswers(mme, { answers, questions, harness })).score;

/** Two pictures of a task, with the answers to their four questions. */
const text = (...answers: string[]) =>
  answers.map((answer, i) => `000${(i >> 1) + 1}.png\tIs it "${i % 2}"? Please answer yes or no.\t${i % 2 ? 'No' : 'Yes'}\t${answer}`);
const results = (name: string, of: Record<string, string[]>, tasks = TASKS) => {
  for (const task of tasks) file(`${name}/${task}.txt`, ...text(...(of[task] ?? ['Yes', 'No', 'Yes', 'No'])), '');
  return join(folder, name);
};

// both layouts of the release
const release = join(folder, 'MME_Benchmark_release_version');
file(
  'MME_Benchmark_release_version/count/0001.txt',
  'Are there two?  Please answer yes or no.\tYes\r',
  'Is there "one"? Please answer yes or no.\tNo\r',
  '',
);
file('MME_Benchmark_release_version/count/0001.jpg', 'count picture');
file(
  'MME_Benchmark_release_version/landmark/questions_answers_YN/abc.txt',
  'Is this Rome Please answer yes or no.\tNo',
  'Is this Köln?\tYes',
);
file('MME_Benchmark_release_version/landmark/images/abc.png', 'landmark picture');

describe('MME', () => {
  it('asks in the words of LLaVA, from both layouts of the release', async () => {
    const questions = await mme.questions({ folder, harness: 'mme' });
    expect(questions.map(({ id, prompt, references }) => [id, prompt, references[0]])).toEqual([
      ['count/0001.jpg#1', '<image>\nAre there two?\nAnswer the question using a single word or phrase.', 'yes'],
      ['count/0001.jpg#2', '<image>\nIs there "one"?\nAnswer the question using a single word or phrase.', 'no'],
      ['landmark/abc.png#1', '<image>\nIs this Rome\nAnswer the question using a single word or phrase.', 'no'],
      ['landmark/abc.png#2', '<image>\nIs this Köln?\nAnswer the question using a single word or phrase.', 'yes'],
    ]);
    expect(await questions[2].pictures[0].read()).toBe(join(release, 'landmark', 'images', 'abc.png'));
  });

  it('adds accuracy and that of pairs, and counts apart what is neither yes nor no', async () => {
    const path = results('mine', {
      count: ['yes, it is', 'no', ' Yes', '🙂🙂 I do not know'],
      scene: ['Know', 'NO', '', 'yes'],
      OCR: ['no', 'no', 'yes', 'yes'],
    });
    const { n, unparsed, scores, groups, bounds } = await score(path);
    expect({ n, unparsed }).toEqual({ n: 56, unparsed: 2 });
    expect(scores).toMatchObject({ cognition: 800, existence: 200, count: 125, scene: 25, OCR: 50, perception: 1600 });
    expect(groups.task.count).toMatchObject({ score: 125, acc: 0.75, acc_plus: 0.5, other: 1, TP: 2, TN: 1, FP: 0, FN: 0, images: 2 });
    // "Know" has no in it: the official rule takes it for that
    expect(groups.task.scene).toMatchObject({ other: 1, TN: 1, FN: 1, FP: 1 });
    expect(bounds).toEqual({ low: 1600, high: 1700 });
  });

  it('reads y and n, and answers with full stops, as lmms-eval does', async () => {
    const path = results('short', { count: ['y', 'n', '  yes.', 'N.'], color: ['🙂yes', 'x🙂no', 'yes', 'no'] });
    // characters are counted as Python counts them
    expect((await score(path)).scores.color).toBe(200);
    expect((await score(path)).scores.count).toBe(0);
    expect((await score(path, undefined, 'lmms-eval')).scores.count).toBe(200);
  });

  it('finds the question of an answer by its words', async () => {
    const line = (question_id: string, prompt: string, text: string) => JSON.stringify({ question_id, prompt, text });
    const ask = 'Answer the question using a single word or phrase.';
    const path = file(
      'llava.jsonl',
      line('landmark/images/abc.png', `Is this Köln?\n${ask}`, 'Yes'),
      line('count/0001.jpg', 'Is there "one"? Please answer yes or no.', 'No'),
      line('count/0001.jpg', `<image>\nAre there two?\n${ask}`, 'No'),
      line('landmark/abc.txt', 'Look at it. is this rome please answer with one word.', 'No'),
    );
    const { scores, notes } = await score(path, [release]);
    expect(scores).toEqual({ perception: 250, count: 50, landmark: 200 });
    expect(notes).toEqual([
      expect.stringMatching(/^Without 8 of the 10 tasks of perception: existence, position, /),
      expect.stringMatching(/cognition/),
    ]);
    const ours = ['count/0001.jpg#1', 'count/0001.jpg#2', 'landmark/abc.png#1', 'landmark/abc.png#2'];
    expect((await score(file('ours.jsonl', ...ours.map((id) => line(id, '', 'No'))), [release])).scores).toMatchObject({
      count: 50,
      landmark: 50,
    });
  });

  it('takes the questions of a text file, or of a data set, where that is all there is', async () => {
    const path = join(folder, 'mme.parquet');
    const image = [0, 1].map(() => ({ bytes: Buffer.from('x'), path: 'x.png' }));
    const columns = {
      question_id: ['OCR/0001.png', 'OCR/0001.png'],
      question: ['a?', 'b?'],
      answer: ['Yes', 'No'],
      category: ['OCR', 'OCR'],
    };
    writeParquet(path, { ...columns, image }, { pictures: ['image'] });
    const [first] = await mme.questions({ files: [path], harness: 'mme' });
    expect(first).toMatchObject({ id: 'OCR/0001.png#1', cluster: 'OCR/0001.png', groups: { task: 'OCR' } });
    expect(await first.pictures[0].read()).toHaveLength(1);
    const [named] = await mme.questions({
      files: [file('Your_Results/OCR.txt', ...text('', '').map((line) => line.replace(/\t$/, '')))],
      harness: 'mme',
    });
    await expect(named.pictures[0].read()).rejects.toThrow(/OCR.txt: has no pictures; to ask, give the folders/);
  });

  it('scores one of the two totals, but none without one of its tasks', async () => {
    const path = results('cognition', {}, COGNITION);
    expect((await score(path)).scores).toMatchObject({ cognition: 800 });
    await expect(score(results('half', {}, TASKS.slice(1, -1)))).rejects.toThrow(
      /tasks are missing: existence.txt, code_reasoning.txt; nothing/,
    );
  });

  it('names what is malformed, with its line', async () => {
    const only = (...lines: string[]) => {
      const path = results(`bad-${Math.random()}`, {});
      writeFileSync(join(path, 'count.txt'), lines.join('\n'));
      return path;
    };
    const [yes, no] = text('Yes', 'No');
    await expect(score(only(yes))).rejects.toThrow(/count.txt:1: count\/0001.png has 1 questions; each picture of MME has two/);
    await expect(score(only(yes, yes))).rejects.toThrow(/count.txt:2: count\/0001.png has the same question twice/);
    await expect(score(only(yes, no.replace('\tNo\t', '\tMaybe\t')))).rejects.toThrow(
      /count.txt:2: the right answer must be Yes or No, not "Maybe"/,
    );
    await expect(score(only(yes, no.replace(/\tNo$/, '')))).rejects.toThrow(/count.txt:2: has no answer behind the right one/);
    await expect(score(only(yes, `${no} is what\nthe picture shows`))).rejects.toThrow(
      /count.txt:3: should be picture, question, right answer/,
    );
    const line = (question_id: string, prompt: string) => file('x.jsonl', JSON.stringify({ question_id, prompt, text: 'Yes' }));
    await expect(score(line('count/0009.jpg', 'x'), [release])).rejects.toThrow(
      /x.jsonl:1: count\/0009.jpg is no picture of the questions/,
    );
    await expect(score(line('count/0001.jpg', 'x'), [release])).rejects.toThrow(/count\/0001.jpg has no such question: x/);
    await expect(score(line('count/0001.jpg', ''), [release])).rejects.toThrow(/has no prompt, which tells to which of the two questions/);
    await expect(score(line('count/0001.jpg#1', ''), [release])).rejects.toThrow(/3 of 4 questions have no answer/);
    await expect(score(line('count/0001.jpg', 'x'))).rejects.toThrow(/MME's right answers are in its question files/);
    const mine = results('other-gold', {});
    const other = file(
      'gold/count.txt',
      ...text('', '', '', '').map((row) => row.replace(/\t(Yes|No)\t/, (_, gold) => `\t${gold === 'Yes' ? 'No' : 'Yes'}\t`)),
    );
    await expect(score(mine, [other])).rejects.toThrow(/right answer to count\/0001.png#1 is yes, but its question file says no/);
    writeFileSync(join(release, 'count', '0002.txt'), 'a\tYes\nb\tNo');
    await expect(mme.questions({ folder, harness: 'mme' })).rejects.toThrow(/0002.txt: its picture is missing/);
  });
});
