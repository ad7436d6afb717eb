import { expect, it } from 'vitest';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { textvqa } from '../../src/benchmarks/textvqa.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

describeOfficial('official outputs of TextVQA', () => {
  const request = { answers: official('textvqa', 'llava-v1.5-13b_first2500.jsonl'), data: official() };
  const scoresOf = async (harness: string) => (await scoreAnswers(textvqa, { ...request, harness })).score;

  it('give the numbers of eval_textvqa.py, and of the VQA scorer', async () => {
    const { questions, textvqa_accuracy, vqa_scorer } = expectedOf('textvqa').first2500;
    for (const harness of ['llava', 'llava-no-ocr', 'lmms-eval']) {
      const { n, scores } = await scoresOf(harness);
      expect(n).toBe(questions);
      expect(scores.textvqa_accuracy).toBeCloseTo(textvqa_accuracy, 9);
    }
    const readings = {
      vqa: 'answers_as_they_are',
      'vqa-lowercase': 'answers_lowercased',
      'vqa-evalai': 'answers_through_the_EvalAI_processor',
    };
    for (const [harness, name] of Object.entries(readings)) {
      const { scores } = await scoresOf(harness);
      expect(scores.textvqa_accuracy).toBeCloseTo(vqa_scorer[name], 9);
      expect(Object.keys(vqa_scorer)).toContain(name);
      for (const [reading, value] of Object.entries<number>(vqa_scorer)) expect(scores[reading], reading).toBeCloseTo(value, 9);
    }
  });
});
