// Diagnoses of a healthy model, and of ones with a planted fault: the fault must be named first.

import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { Diagnosis } from '../src/diagnose/diagnose.ts';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { createRandom } from '../src/random.ts';
import { plantFault } from './planted.ts';
import { cli, enterToyFolder, recipes } from './toy.ts';

const bundled = resolve(resolvePath(bundledModel, 'model'));

/** The diagnosis of a folder, and whether the command has failed, as it must where something is red. */
async function diagnosed(...words: string[]): Promise<Diagnosis> {
  const { code, stdout, stderr } = await cli('diagnose', ...words, '--json');
  const diagnosis = JSON.parse(stdout) as Diagnosis;
  const reds = diagnosis.findings.filter(({ level }) => level === 'red').map(({ sign }) => sign);
  expect(code).toBe(reds.length > 0 ? 1 : 0);
  if (reds.length > 0) expect(stderr.trim().split('\n').at(-1)).toBe(`error: ${words[0]}: ${reds.join(', ')}`);
  return diagnosis;
}

const few = ['--scenes', '8'];
let folder: string;
/** Of the bundled model, by sign. */
let healthyNumbers: Record<string, Record<string, number>>;

beforeAll(async () => {
  const leave = await enterToyFolder();
  folder = mkdtempSync(join(tmpdir(), 'faults-'));
  return () => {
    rmSync(folder, { recursive: true, force: true });
    leave();
  };
}, 180_000);

describe('a model', () => {
  it('that is healthy has nothing red', async () => {
    const { findings, kind } = await diagnosed(bundled, ...few);
    expect(kind).toBe('model');
    expect(findings.filter(({ level }) => level === 'red')).toEqual([]);
    const numbers = Object.fromEntries(findings.map((finding) => [finding.sign, finding.numbers]));
    expect(numbers['image-ignored'].exchangedGain).toBeGreaterThan(0.5);
    expect(numbers['collapsed-connector'].effectiveRank).toBeGreaterThan(20);
    expect(numbers['label-shift'].loss).toBeLessThan(numbers['label-shift'].before);
    expect(numbers['image-ignored (answers)'].low).toBeGreaterThan(0);
    // attention goes to the picture, and no more of it than there is
    expect(numbers['no-attention'].mass).toBeGreaterThan(0.1);
    expect(numbers['no-attention'].answerMass).toBeLessThan(1);
    expect(numbers['visual-sinks']).toMatchObject({ sinks: 0, sinkAttention: 0 });
    healthyNumbers = numbers;
    for (const { healthy, source, advice, level } of findings) {
      expect(healthy).not.toBe('');
      expect(source).not.toBe('');
      expect(advice === '').toBe(!['red', 'amber'].includes(level));
    }
  }, 300_000);

  const ofConnector = (name: string) => name.startsWith('multi_modal_projector');
  const random = createRandom(1);
  it.each<[string, string, (name: string, values: Float32Array) => void]>([
    [
      'whose image rows are 30 times too long',
      'norm-mismatch',
      (name, values) => name.includes('linear_2') && values.set(values.map((value) => 30 * value)),
    ],
    ['with a connector of zeros', 'collapsed-connector', (name, values) => ofConnector(name) && values.fill(0)],
    [
      'whose connector never was trained',
      'untrained-connector',
      (name, values) => ofConnector(name) && values.set(values.map(() => (name.endsWith('bias') ? 0 : 0.02 * random.normal()))),
    ],
  ])(
    '%s is named so first',
    async (name, sign, change) => {
      const model = await plantFault(bundled, join(folder, name), change);
      const { findings } = await diagnosed(model, ...few);
      const [first] = findings;
      expect(first.sign).toBe(sign);
      expect(first.level).toBe('red');
      expect(first.advice).not.toBe('');
      const mir = findings.find((finding) => finding.sign === 'mir')!.numbers;
      // rows 30 times as long are as far as their norm, and no further where norms are made equal
      if (sign === 'norm-mismatch') {
        expect(mir.mir - healthyNumbers.mir.mir).toBeGreaterThan(1.5 * Math.log10(30));
        expect(mir.equalNormMir).toBeLessThan(healthyNumbers.mir.equalNormMir + 0.5);
      }
    },
    300_000,
  );

  it('is told as a table', async () => {
    const { stdout } = await cli('diagnose', join(folder, 'with a connector of zeros'), '--scenes', '2');
    expect(stdout).toMatch(/^model .*\nred {6}collapsed-connector +the rows of the connector are all 0\n +healthy: .*\n +do: /);
  }, 300_000);
});

describe('a run', () => {
  /** A run of the toy recipe, without its answers. */
  const toyRun = async (out: string, stages: readonly object[]) => {
    const { evaluate: _, ...recipe } = recipes.llava;
    writeFileSync(`${out}.yaml`, stringify({ ...recipe, stages }));
    const { code, stderr } = await cli('train', `${out}.yaml`, '--out', out);
    expect(code, stderr).toBe(0);
    return out;
  };
  const signOf = ({ findings }: Diagnosis, sign: string) => findings.filter((finding) => finding.sign === sign);

  it('without stage 1 that does not look at its pictures is named so first', async () => {
    const run = await toyRun('skipped', [recipes.llava.stages[1]]);
    const diagnosis = await diagnosed(run, '--scenes', '4');
    expect(diagnosis.kind).toBe('run');
    expect(diagnosis.findings[0]).toMatchObject({ sign: 'stage-1-skipped', level: 'red' });
  }, 300_000);

  it('that ends where it began is told so: what was drawn at its beginning is drawn again', async () => {
    const run = await toyRun('unmoved', [{ ...recipes.llava.stages[0], lr: 1e-9 }]);
    // the worst comes first: of so few steps nothing is told while it trains
    const [found] = signOf(await diagnosed(run, '--scenes', '4'), 'unmoved-weights');
    expect(found).toMatchObject({ level: 'red', numbers: { language_model: 0, vision_tower: 0 } });
    expect(found.numbers.multi_modal_projector).toBeLessThan(1e-6);
    expect(found.numbers.multi_modal_projector).toBeGreaterThan(0);
  }, 300_000);

  it('says what was told while it trained, with the step, and what its losses show', async () => {
    const [pretrain, finetune] = recipes.llava.stages;
    const run = await toyRun('told', [{ ...pretrain, held_out: { samples: 3, every: 2 } }, finetune]);
    const before = await diagnosed(run, '--scenes', '4');
    expect(signOf(before, 'stage-1-skipped')[0].level).toBe('green');
    expect(signOf(before, 'gradient-spike')[0].level).toBe('green');
    expect(signOf(before, 'label-mask').filter(({ level }) => level === 'green')).toHaveLength(3);
    expect(signOf(before, 'overfitting')[0].level).not.toBe('red');
    // by a step of 0.01 a weight moves by as much; the encoder is frozen
    const moved = signOf(before, 'unmoved-weights').at(-1)!;
    expect(moved.level).toBe('green');
    expect(Object.keys(moved.numbers)).toEqual(['multi_modal_projector', 'language_model', 'vision_tower']);
    expect(moved.numbers.multi_modal_projector).toBeGreaterThan(0.05);
    expect(moved.numbers.language_model).toBeGreaterThan(0.05);
    expect(moved.numbers.vision_tower).toBe(0);

    const at = { stage: 'pretrain', time: 0 };
    const events = [
      { ...at, type: 'warning', step: 3, sign: 'dead-gradient', module: 'multi_modal_projector', message: 'it does not learn' },
      { ...at, type: 'held-out', step: 5, loss: 0.1, samples: 3, seconds: 0 },
      { ...at, type: 'held-out', step: 6, loss: 0.2, samples: 3, seconds: 0 },
    ];
    appendFileSync('told/metrics.jsonl', events.map((event) => `${JSON.stringify(event)}\n`).join(''));
    const after = await diagnosed(run, '--scenes', '4');
    expect(after.findings[0]).toMatchObject({ sign: 'dead-gradient', level: 'red', at: { stage: 'pretrain', step: 3 } });
    expect(signOf(after, 'overfitting')[0]).toMatchObject({ level: 'red', numbers: { heldOut: 0.2, best: 0.1 } });
    expect(readFileSync('told/recipe.yaml', 'utf8')).toContain('pretrain');
  }, 300_000);
});

it.each([
  [['nowhere'], 'there is nothing at nowhere'],
  [['clip.yaml'], 'is neither the folder of a run'],
  [['gemma', '--data', 'clip.yaml'], '--data and --image-folder are given together'],
])('%j is refused in one sentence', async (words, message) => {
  const { code, stderr } = await cli('diagnose', ...words);
  expect(code).toBe(1);
  expect(stderr).toContain(message);
  expect(stderr.trim().split('\n')).toHaveLength(1);
});
