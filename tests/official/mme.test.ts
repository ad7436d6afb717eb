import { expect, it } from 'vitest';
import { mme } from '../../src/benchmarks/mme.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of MME', () => {
  it.each([undefined, official('mme')])('give the scores of calculation.py', async (data) => {
    const { score } = await scoreAnswers(mme, { answers: official('mme', 'LaVIN'), data });
    const { source, ...parts } = expectedOf('mme').LaVIN;
    for (const [part, { tasks, total }] of Object.entries<{ tasks: Record<string, number>; total: number }>(parts)) {
      expect(score.scores[part]).toBeCloseTo(total, 10);
      for (const [task, value] of Object.entries(tasks)) {
        expect(score.scores[task], task).toBeCloseTo(value, 10);
        expect(score.groups.task[task].score).toBe(score.scores[task]);
      }
    }
    expect(score.n).toBe(2374);
  });
});
