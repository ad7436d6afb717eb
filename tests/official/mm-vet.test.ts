import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { mmVet } from '../../src/benchmarks/mm-vet.ts';
import { scoreAnswers } from '../../src/benchmarks/score.ts';
import { describeOfficial, expectedOf, official } from './official.ts';

const file = (name: string) => official('mm-vet', name);
const sorted = (capabilities: string) => capabilities.split('_').sort().join('_');

/** The row of LLaVA-1.5-7B in a score table of mm-vet_evaluator.py, by column; `runs` is taken apart. */
function tableRow(name: string): Record<string, number | number[]> {
  const [head, ...rows] = readFileSync(file(name), 'utf8').trim().split('\n');
  const [, runs] = /"?\[([\d., ]+)\]"?$/.exec(rows.at(-1)!)!;
  const cells = rows.at(-1)!.split(',').slice(1);
  const columns = head.split(',').slice(1, -1);
  return { ...Object.fromEntries(columns.map((column, i) => [column, Number(cells[i])])), runs: runs.split(',').map(Number) };
}

describeOfficial('official grades of MM-Vet', () => {
  it.each(['1runs', '3runs'])('give the scores and tables of mm-vet_evaluator.py: %s', async (runs) => {
    const { rounded, integrations, unrounded } = expectedOf('mm-vet')[runs];
    const answers = file(`llava-v1.5-7b_gpt-4-grade-${runs}.json`);
    const { score } = await scoreAnswers(mmVet, { answers, data: official() });
    const { scores, groups } = score;
    expect(score).toMatchObject({ n: 218, unparsed: 0, notes: [], judge: { judge: 'grades of the file, by gpt-4' } });
    for (const [name, value] of Object.entries<number>(unrounded)) expect(scores[name], name).toBeCloseTo(value, 10);

    const roundedOf = (grouping: string) => Object.fromEntries(Object.entries(groups[grouping]).map(([name, of]) => [name, of.rounded]));
    const found = { ...roundedOf('capability'), total: scores.total_rounded, std: scores.std_rounded };
    expect({ ...found, runs: Object.values(roundedOf('run')) }).toEqual(rounded);
    expect(found).toMatchObject({ total: rounded.total });
    expect({ ...found, runs: rounded.runs }).toEqual(tableRow(`llava-v1.5-7b_gpt-4-cap-score-${runs}.csv`));

    const { total, std, runs: all, ...sets } = tableRow(`llava-v1.5-7b_gpt-4-cap-int-score-${runs}.csv`);
    const sums = Object.fromEntries(
      Object.entries(groups.integration).map(([name, { n, rounded }]) => [name, { questions: n, score: rounded }]),
    );
    expect(sums).toEqual(integrations);
    expect(roundedOf('integration')).toEqual(Object.fromEntries(Object.entries(sets).map(([name, value]) => [sorted(name), value])));
    expect([total, std, all]).toEqual([rounded.total, rounded.std, rounded.runs]);
  });

  it('need a judge where answers have no grades', async () => {
    await expect(scoreAnswers(mmVet, { answers: file('llava-v1.5-7b.json'), data: official() })).rejects.toThrow(
      /graded by a judge: --judge/,
    );
  });
});
