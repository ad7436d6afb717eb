import { expect, it } from 'vitest';
import { mmbench } from '../../src/benchmarks/mmbench.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of MMBench', () => {
  it.each(['mmbench', 'exact'])('give the circular accuracy (%s)', async (harness) => {
    const { score } = await scoreAnswers(mmbench, { answers: official('mmbench', 'dev_20230712_llava-v1.5-13b_even.tsv'), harness });
    for (const [name, value] of Object.entries<number>(expectedOf('mmbench').even)) expect(score.scores[name], name).toBeCloseTo(value, 12);
    expect(score.unparsed).toBe(0);
  });
});
