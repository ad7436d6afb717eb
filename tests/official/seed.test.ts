import { expect, it } from 'vitest';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { seed } from '../../src/benchmarks/seed.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of SEED-Bench', () => {
  it.each([undefined, [official('seed', 'image_even.tsv')]])('give the shares of exact letters', async (questions) => {
    const { questions: n, ...systems } = expectedOf('seed').even;
    const { score } = await scoreAnswers(seed, { answers: official('seed', 'image_even.tsv'), questions });
    expect(score.n).toBe(n);
    for (const [name, { correct, accuracy }] of Object.entries<Record<string, number>>(systems)) {
      expect(score.groups.system[name]).toMatchObject({ n, correct });
      expect(score.groups.system[name].accuracy).toBeCloseTo(accuracy, 12);
    }
    expect(score.scores.correct).toBe(systems['llava-v1.5-13b'].correct);
  });
});
