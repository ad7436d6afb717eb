import { expect, it } from 'vitest';
import { pope } from '../../src/benchmarks/pope.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of POPE', () => {
  it('give the counts and ratios of eval_pope.py', async () => {
    const { labels, mean_f1, source, ...categories } = { ...expectedOf('pope')['llava-v1.5-13b'] };
    const questions = Object.values<string>(labels).map((file) => official('pope', file));
    const { score } = await scoreAnswers(pope, { answers: official('pope', 'llava-v1.5-13b.jsonl'), questions });
    expect(score.scores.f1).toBeCloseTo(mean_f1, 12);
    for (const [category, { samples, ...expected }] of Object.entries<Record<string, number>>(categories)) {
      const found = score.groups.category[category];
      expect(found.n).toBe(samples);
      for (const [name, value] of Object.entries(expected)) expect(found[name], `${category} ${name}`).toBeCloseTo(value, 12);
    }
  });
});
