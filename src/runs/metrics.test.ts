import { appendFileSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { type NewMetricEvent, openMetrics, readMetrics, truncateMetrics } from './metrics.ts';
import { openTensorboard } from './tensorboard.ts';

const path = () => join(mkdtempSync(join(tmpdir(), 'metrics-')), 'metrics.jsonl');

function stepEvent(stage: string, step: number): NewMetricEvent {
  return {
    type: 'step',
    stage,
    step,
    epoch: step / 10,
    loss: 1 / step,
    learningRate: 1e-3,
    gradNorm: 1,
    tokensPerSecond: 100,
    seconds: step,
  };
}

function write(file: string, events: NewMetricEvent[]) {
  const metrics = openMetrics(file);
  for (const event of events) metrics.write(event);
  metrics.close();
}

const twoStages = (): NewMetricEvent[] => [
  ...[1, 2, 3].map((step) => stepEvent('pretrain', step)),
  { type: 'stage', stage: 'pretrain', step: 3, seconds: 3, firstLoss: 1, lastLoss: 0.3 },
  ...[1, 2].map((step) => stepEvent('finetune', step)),
];

const places = (file: string) => readMetrics(file).map(({ type, stage, step }) => `${type} ${stage} ${step}`);

it('reads back what was written, in order, over several sittings', () => {
  const file = path();
  expect(readMetrics(file)).toEqual([]);
  write(file, [stepEvent('pretrain', 1)]);
  write(file, [stepEvent('pretrain', 2)]);
  expect(readMetrics(file)).toMatchObject([stepEvent('pretrain', 1), stepEvent('pretrain', 2)]);
  expect(readMetrics(file)[0].time).toBeGreaterThan(1.7e9);
});

it('reads numbers that are not finite, of which JSON has none, as NaN', () => {
  const file = path();
  const event = { type: 'held-out', stage: 'a', step: 1, seconds: 1, samples: 3 } as const;
  write(file, [
    { ...event, loss: Number.NaN, imageGain: Number.POSITIVE_INFINITY },
    { ...event, step: 2, loss: 1 },
  ]);
  const events = readMetrics(file);
  expect(events).toMatchObject([
    { loss: Number.NaN, imageGain: Number.NaN },
    { step: 2, loss: 1 },
  ]);
  // a resumed run writes them all anew
  openTensorboard(mkdtempSync(join(tmpdir(), 'board-')), events).close();
});

it('drops what a resumed run repeats', () => {
  const file = path();
  write(file, twoStages());
  truncateMetrics(file, { finishedStages: ['pretrain'], stage: 'finetune', step: 1 });
  expect(places(file)).toEqual(['step pretrain 1', 'step pretrain 2', 'step pretrain 3', 'stage pretrain 3', 'step finetune 1']);
  truncateMetrics(file, { finishedStages: [], stage: 'pretrain', step: 2 });
  expect(places(file)).toEqual(['step pretrain 1', 'step pretrain 2']);
  truncateMetrics(file, { finishedStages: [], stage: 'pretrain', step: 0 });
  expect(readFileSync(file, 'utf8')).toBe('');
});

it('keeps what was measured in the middle of a stage, and no scoring of the finished model', () => {
  const file = path();
  const scoring = (stage: string, step: number): NewMetricEvent => ({ type: 'evaluation', stage, step, seconds: 1, scores: {} });
  const heldOut: NewMetricEvent = { type: 'held-out', stage: 'finetune', step: 1, seconds: 1, loss: 2, samples: 3 };
  const warning: NewMetricEvent = { type: 'warning', stage: 'finetune', step: 2, sign: 'loss-spike', message: 'x' };
  const [first, second, ...others] = twoStages();
  const ended: NewMetricEvent = { type: 'stage', stage: 'finetune', step: 2, seconds: 3, firstLoss: 1, lastLoss: 0.3 };
  write(file, [first, scoring('pretrain', 1), second, ...others, heldOut, scoring('finetune', 1), warning, ended, scoring('finetune', 2)]);
  truncateMetrics(file, { finishedStages: ['pretrain', 'finetune'], stage: '', step: 0 });
  expect(places(file).slice(-4)).toEqual(['held-out finetune 1', 'evaluation finetune 1', 'warning finetune 2', 'stage finetune 2']);
  expect(places(file)).toContain('evaluation pretrain 1');
  truncateMetrics(file, { finishedStages: ['pretrain'], stage: 'finetune', step: 1 });
  expect(places(file).at(-1)).toBe('step finetune 1');
});

it('survives a line that a kill cut short', () => {
  const file = path();
  write(file, [stepEvent('pretrain', 1), stepEvent('pretrain', 2)]);
  appendFileSync(file, '{"type":"step","stage":"pretr');
  expect(places(file)).toEqual(['step pretrain 1', 'step pretrain 2']);
  truncateMetrics(file, { finishedStages: [], stage: 'pretrain', step: 2 });
  write(file, [stepEvent('pretrain', 3)]);
  expect(places(file)).toEqual(['step pretrain 1', 'step pretrain 2', 'step pretrain 3']);
});

it('cuts at bytes, not characters', () => {
  const file = path();
  write(file, [stepEvent('Vorstufe äöü', 1), stepEvent('Vorstufe äöü', 2)]);
  truncateMetrics(file, { finishedStages: [], stage: 'Vorstufe äöü', step: 1 });
  expect(places(file)).toEqual(['step Vorstufe äöü 1']);
  writeFileSync(file, 'garbage\n');
  expect(readMetrics(file)).toEqual([]);
});
