import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import type { Judged } from '../../src/benchmarks/benchmark.ts';
import { mathVista } from '../../src/benchmarks/mathvista.ts';
import { type QueryFields, queryOf } from '../../src/benchmarks/mathvista-files.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

const answers = official('mathvista', 'output_llava_llama_2_13b.json');

/** What this benchmark says of an answer beside its credit. */
type ByScorer = Judged & { extraction: unknown; prediction?: string; stored: { prediction?: unknown; trueFalse?: boolean } };

describeOfficial('official outputs of MathVista', () => {
  it('give the scores of calculate_score.py, and the published ones', async () => {
    const { published, current_scorer, differences_stored_vs_current } = expectedOf('mathvista').llava_llama_2_13b;
    const { score, judged } = await scoreAnswers(mathVista, { answers });
    const { correct, total, accuracy } = current_scorer;
    expect(score).toMatchObject({ n: 1000, scores: { correct, total, accuracy }, judge: { judge: 'extractions of the file' } });
    expect(score.scores).toMatchObject({ stored_correct: published.average.correct, changed_verdicts: 0, changed_predictions: 4 });
    expect((score.scores.stored_accuracy * 100).toFixed(1)).toBe(published.average.accuracy);

    for (const [grouping, expected] of Object.entries<Record<string, { correct: number; total: number }>>(current_scorer.by)) {
      const found = Object.entries(score.groups[grouping]).map(([name, of]) => [name, { correct: of.correct, total: of.n }]);
      expect(Object.fromEntries(found), grouping).toEqual(expected);
      for (const { n, correct, accuracy } of Object.values(score.groups[grouping])) expect(accuracy).toBeCloseTo(correct / n, 12);
    }

    const differing = judged.flatMap((one) => {
      const { question, extraction, stored, prediction, credit } = one as ByScorer;
      if ((stored.prediction ?? undefined) === prediction) return [];
      return [
        {
          pid: question.id,
          extraction,
          answer: question.references[0],
          stored_prediction: stored.prediction,
          current_prediction: prediction,
          stored_true_false: stored.trueFalse,
          current_true_false: credit === 1,
        },
      ];
    });
    expect(differing).toEqual(differences_stored_vs_current);
    expect(score.notes).toEqual([expect.stringMatching(/for 4 problems \(246, 835, 983, 987\), and other verdicts for 0\.$/)]);
  });

  it('ask as the data set words it, also where its query is missing', () => {
    const problems = Object.values<QueryFields & { query: string }>(JSON.parse(readFileSync(answers, 'utf8')));
    const built = problems.map(({ unit, choices, ...problem }) => queryOf({ ...problem, unit: unit ?? undefined, choices: choices ?? [] }));
    // the others were reworded, or their options shuffled, after this file was written
    expect(problems.filter(({ query }, i) => built[i] === query).length).toBe(928);
  });

  it('are found by folder', async () => {
    const { score } = await scoreAnswers(mathVista, { answers, data: official() });
    expect(score.scores.correct).toBe(261);
  });
});
