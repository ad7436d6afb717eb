import { expect, it } from 'vitest';
import { gqa } from '../../src/benchmarks/gqa.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

type Groups = Record<string, { accuracy: number; questions: number }>;

describeOfficial('official outputs of GQA', () => {
  it('give the numbers of eval.py', async () => {
    const { questions, accuracy, binary, open, distribution, source: _, printed: __, ...groupings } = expectedOf('gqa').head;
    const { score } = await scoreAnswers(gqa, {
      answers: official('gqa', 'llava-v1.5-13b_head.jsonl'),
      questions: [official('gqa', 'ood_testdev_head.json')],
    });
    expect(score.n).toBe(questions);
    for (const [name, value] of Object.entries({ accuracy, binary, open, distribution }))
      expect(score.scores[name], name).toBeCloseTo(value as number, 9);
    expect(Object.keys(score.groups).sort()).toEqual(Object.keys(groupings).sort());
    for (const [grouping, groups] of Object.entries(groupings as Record<string, Groups>)) {
      expect(Object.keys(score.groups[grouping]).sort()).toEqual(Object.keys(groups).sort());
      for (const [group, expected] of Object.entries(groups)) {
        expect(score.groups[grouping][group].n).toBe(expected.questions);
        expect(score.groups[grouping][group].accuracy, `${grouping} ${group}`).toBeCloseTo(expected.accuracy, 9);
      }
    }
  });

  it('are found in the folder of all benchmarks', async () => {
    const { score } = await scoreAnswers(gqa, { answers: official('gqa', 'llava-v1.5-13b_head.jsonl'), data: official() });
    expect(score.n).toBe(1733);
  });
});
