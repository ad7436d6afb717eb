import { expect, it } from 'vitest';
import { mmvp } from '../../src/benchmarks/mmvp.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial("replies of a grader to MMVP's answers", () => {
  it('are counted as gpt_grader.py counts them', async () => {
    const { score } = await scoreAnswers(mmvp, { answers: official('mmvp', 'grader_replies.json') });
    const { replies, pairs_right, pairs, accuracy } = expectedOf('mmvp');
    expect(score).toMatchObject({ n: replies, scores: { replies, pairs_right, pairs, accuracy } });
  });
});
