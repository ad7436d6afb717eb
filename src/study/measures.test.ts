import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { chooseBenchmarks, runEvaluation } from '../benchmarks/evaluation.ts';
import { pope } from '../benchmarks/pope.ts';
import type { Asker } from '../evaluate/asking.ts';
import { checkScores } from './checks.ts';
import { measures, refuseUnasked } from './measures.ts';
import type { Study } from './variants.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'measures-'));

/** Two questions about each of eight pictures: yes, then no. */
function popeFolder(): string {
  const data = folder();
  mkdirSync(join(data, 'pope', 'coco'), { recursive: true });
  const lines = Array.from({ length: 16 }, (_, i) => ({
    question_id: i + 1,
    image: `${i >> 1}.jpg`,
    text: `Is there a thing ${i % 2} in the image?`,
    label: i % 2 ? 'no' : 'yes',
  }));
  writeFileSync(join(data, 'pope', 'coco', 'coco_pope_random.json'), lines.map((line) => JSON.stringify(line)).join('\n'));
  return data;
}

/** Says no before the picture of a question, but to the first, and yes before a blank one. */
const asker: Asker = {
  blankPicture: async () => new Uint8Array([0]),
  async ask(prompts, { onAnswers }) {
    const answers = prompts.map(({ images = [] }, index) => {
      const [image] = images;
      const text = typeof image !== 'string' || image.endsWith('/0.jpg') ? 'yes' : 'no';
      return { index, text, tokens: 1, promptTokens: 1 };
    });
    onAnswers?.(answers);
    return answers;
  },
};

async function evaluated(out: string, ask = asker) {
  const chosen = await chooseBenchmarks([pope], popeFolder());
  const request = { out, model: 'model', content: 'content', chosen, conditions: ['plain', 'blind', 'exchanged'] as const };
  return runEvaluation(request, async () => ask, { batchSize: 4 });
}

describe('a benchmark in a study', () => {
  test('has baselines that its credit compares with, whatever its headline is', async () => {
    const out = folder();
    const report = await evaluated(join(out, 'benchmarks', 'pope'));
    const { scores } = measures.find(({ name }) => name === 'benchmarks')!;
    const files = { run: '', measures: out, recipe: {} as never, benchmarks: [{ name: 'pope', data: '' }] };
    const { questions, baselines: baselinesOf } = scores!(files).pope;
    const baselines = baselinesOf([...questions.keys()]);
    // of some questions alone nobody knows them
    expect(baselinesOf([0])).toEqual({});
    // F1 of always yes is 2/3; its mean credit, as that of any constant answer, is a half
    expect(report.benchmarks[0].blind!.score).toBeCloseTo(2 / 3, 12);
    expect(questions.reduce((sum, { credit }) => sum + credit, 0) / questions.length).toBe(0.5);
    expect(baselines).toMatchObject({ blind: 0.5, majority: 0.5 });
    expect(baselines.exchanged).toBeCloseTo(0.5, 12);
    expect(Math.abs(baselines.chance! - 0.5)).toBeLessThan(0.15);
    expect(() => refuseUnasked('pope', report)).not.toThrow();
  });

  test('is not measured where a question could not be asked', async () => {
    const broken: Asker = {
      ...asker,
      ask: async (prompts, options) => {
        const answers = prompts.map(({ images = [] }, index) =>
          String(images[0]).endsWith('/3.jpg') ? { index, text: '', problem: '3.jpg: is damaged' } : { index, text: 'no' },
        );
        options.onAnswers?.(answers);
        return answers;
      },
    };
    const report = await evaluated(join(folder(), 'out'), broken);
    expect(() => refuseUnasked('pope', report)).toThrow('pope: 2 questions could not be asked: 3.jpg: is damaged');
  });
});

describe('a study refuses, before its first run, a benchmark', () => {
  const study = (name: string, data: string) =>
    ({
      path: 's.yaml',
      factors: [],
      variants: [],
      file: { score: { benchmarks: [{ name, data }] }, family: { comparisons: [] } },
    }) as unknown as Study;

  test('that is graded by a judge', async () => {
    await expect(checkScores(study('mm-vet', folder()))).rejects.toThrow(/^s\.yaml: score\.benchmarks: mm-vet is graded by a judge/);
  });

  test('whose right answers are secret', async () => {
    const data = folder();
    const questions = [{ question_id: 1, image_id: 7, question: 'What is this?' }];
    writeFileSync(join(data, 'v2_OpenEnded_mscoco_test-dev2015_questions.json'), JSON.stringify({ questions }));
    await expect(checkScores(study('vqav2', data))).rejects.toThrow(/the right answers to vqav2 in .* are secret/);
    await expect(checkScores(study('pope', popeFolder()))).resolves.toBeUndefined();
  });
});
