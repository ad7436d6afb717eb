import { expect, it } from 'vitest';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { vizwiz } from '../../src/benchmarks/vizwiz.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of VizWiz', () => {
  it('give the two numbers that the VQA scorer can give', async () => {
    const { score } = await scoreAnswers(vizwiz, { answers: official('vizwiz', 'fifth_annotator_0-499.json'), data: official() });
    expect(score.n).toBe(500);
    for (const [reading, { overall, per_answer_type }] of Object.entries<{ overall: number; per_answer_type: Record<string, number> }>(
      expectedOf('vizwiz')['0-499'],
    )) {
      expect(score.scores[reading]).toBeCloseTo(overall, 9);
      expect(Object.keys(score.groups.per_answer_type).sort()).toEqual(Object.keys(per_answer_type).sort());
      for (const [type, value] of Object.entries(per_answer_type))
        expect(score.groups.per_answer_type[type][reading]).toBeCloseTo(value, 9);
    }
    expect(score.scores.overall).toBe(score.scores.answers_told_apart_by_position);
  });
});
