import { expect, it } from 'vitest';
import { mmmu } from '../../src/benchmarks/mmmu.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of MMMU', () => {
  const answers = (...path: string[]) => official('mmmu', 'llava1.5_13b', ...path);
  const questions = [official('mmmu', 'answer_dict_val.json')];

  it.each([undefined, questions])('give the scores of main_parse_and_eval.py, and what it draws', async (questions) => {
    const expected = expectedOf('mmmu');
    const { score, judged } = await scoreAnswers(mmmu, { answers: answers(), questions });
    const { correct, total, accuracy, random_fallbacks, random_fallbacks_right, correct_without_fallbacks, rounded, subject_order } =
      expected.parse_and_eval;
    expect(score.scores).toEqual({ correct, total, accuracy, random_fallbacks, random_fallbacks_right, correct_without_fallbacks });
    expect(score.groups.printed.Overall).toEqual({ num: total, acc: rounded });
    expect(Object.keys(score.groups.subject)).toEqual(subject_order);
    for (const [grouping, groups] of [['subject', expected.subjects] as const, ['domain', expected.domains] as const])
      for (const [name, { total: n, accuracy, ...counts }] of Object.entries<Record<string, number>>(groups)) {
        expect(score.groups[grouping][name]).toMatchObject({ n, ...counts });
        expect(score.groups[grouping][name].accuracy).toBeCloseTo(accuracy, 12);
      }
    const drawn = judged.filter(({ parsed }) => parsed === undefined) as ((typeof judged)[number] & { drawn?: string })[];
    expect(drawn.map(({ question }) => question.id)).toEqual(Object.keys(expected.fallbacks));
    for (const { question, drawn: letter } of drawn)
      expect({ python_choice: letter, answer: question.references[0] }).toEqual(expected.fallbacks[question.id]);
    expect(score).toMatchObject({ unparsed: random_fallbacks, bounds: { low: correct_without_fallbacks / total } });
  });

  it('give the table of main_eval_only.py', async () => {
    const { correct, total, accuracy, printed } = expectedOf('mmmu').eval_only_total_val_output;
    const { score } = await scoreAnswers(mmmu, { answers: answers('total_val_output.json'), questions });
    expect(score.scores).toMatchObject({ correct, total, accuracy });
    expect(Object.entries(score.groups.printed)).toEqual(Object.entries(printed));
  });
});
