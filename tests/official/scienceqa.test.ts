import { expect, it } from 'vitest';
import { scienceqa } from '../../src/benchmarks/scienceqa.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of ScienceQA', () => {
  it('give the accuracy of eval_science_qa.py, and the answer that an older script drew', async () => {
    const { gold, llava_13b_v0: expected } = expectedOf('scienceqa');
    const { score, judged } = await scoreAnswers(scienceqa, {
      answers: official('scienceqa', 'test_sqa_llava_13b_v0.json'),
      questions: [official('scienceqa', gold)],
    });
    for (const [name, value] of Object.entries<number>(expected.from_outputs)) expect(score.scores[name], name).toBeCloseTo(value, 12);
    const { accuracy, correct, count } = expected.published;
    expect(score).toMatchObject({ n: count, scores: { correct, accuracy } });
    expect(judged.filter(({ parsed }) => parsed === undefined).map(({ question }) => question.id)).toEqual(expected.unparsed_ids);
    expect(score.notes).toHaveLength(1);
    const [id] = expected.ids_where_stored_differs_from_parsed;
    expect(score.notes![0]).toMatch(new RegExp(`for 1 questions, 1 of them right only so: ${id} `));
  });
});
