// Questions that could not be asked: some rules would take their empty answers for right ones.

import { describe, expect, it } from 'vitest';
import type { OpenAnswer } from '../evaluate/open-answers.ts';
import { assess } from './assess.ts';
import type { Benchmark, BenchmarkQuestion } from './benchmark.ts';
import { mmVet } from './mm-vet.ts';
import { mmmu } from './mmmu.ts';

const question = (id: number, more: object): BenchmarkQuestion => ({
  id: String(id),
  prompt: '<image>\nWhich?',
  pictures: [],
  references: ['A'],
  cluster: String(id),
  groups: {},
  ...more,
});

/** The first `asked` questions were answered with A, the others could not be asked. */
function assessed(benchmark: Benchmark, questions: readonly BenchmarkQuestion[], asked: number, harness: string) {
  const lines = questions.map(({ id, prompt }, i): [string, OpenAnswer] => {
    const metadata = i < asked ? {} : { problem: 'there is no picture' };
    return [id, { question_id: id, prompt, text: i < asked ? 'A' : '', answer_id: id, model_id: 'm', metadata } as OpenAnswer];
  });
  // a judge that is content with everything
  const judge = { name: 'judge', runs: 2, reply: async () => ({ text: '1.0' }) };
  return assess(benchmark, questions, { plain: new Map(lines) }, { harness, judge });
}

describe('questions that could not be asked', () => {
  it('have no option drawn for them by MMMU', async () => {
    const more = {
      texts: { A: 'one', B: 'two' },
      options: ['A', 'B'],
      isOpen: false,
      groups: { subject: 'Art', domain: 'Art and Design' },
    };
    const questions = Array.from({ length: 24 }, (_, i) => question(i, more));
    const { report, judged } = await assessed(mmmu as unknown as Benchmark, questions, 4, 'mmmu');
    expect(report.score.scores).toMatchObject({ accuracy: 4 / 24, correct: 4, random_fallbacks: 0, random_fallbacks_right: 0 });
    expect(report.score.unparsed).toBe(20);
    expect(report.unasked).toEqual({ count: 20, reason: 'there is no picture' });
    expect(judged.filter(({ credit }) => credit === 1)).toHaveLength(4);
  });

  it('have no grade of MM-Vet, whatever a judge says of nothing', async () => {
    const questions = Array.from({ length: 4 }, (_, i) => question(i, { question: 'Which?', capabilities: [] }));
    const { report } = await assessed(mmVet as unknown as Benchmark, questions, 1, 'mm-vet');
    expect(report.score.scores.total).toBe(25);
    expect(report.score.bounds).toEqual({ low: 25, high: 100 });
  });
});
