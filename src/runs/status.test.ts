import { describe, expect, it } from 'vitest';
import { createStatus, formatDuration, formatProgress, type Progress, peakRssMb } from './status.ts';

const progress = (step: number, stage = 'finetune'): Progress => ({
  stage,
  stageNumber: 2,
  stageCount: 2,
  step,
  totalSteps: 400,
  loss: 0.41234,
  learningRate: 1.8e-4,
  tokensPerSecond: 3204.4,
});

function recorder(isTTY: boolean, columns = 200) {
  const written: string[] = [];
  return { stream: { isTTY, columns, write: (text: string) => written.push(text) }, written };
}

it('prints durations as clocks do', () => {
  expect([0, 59.6, 75, 3675].map(formatDuration)).toEqual(['0:00', '1:00', '1:15', '1:01:15']);
});

it('says where the run is', () => {
  expect(formatProgress(progress(20), 92)).toBe('2/2 finetune  step  20/400  loss 0.4123  lr 1.80e-4  3,204 tokens/s  ETA 1:32');
});

describe('createStatus', () => {
  it('prints plain lines at log steps when there is no terminal', () => {
    const { stream, written } = recorder(false);
    let time = 0;
    const status = createStatus(stream, () => time, false);
    for (let step = 1; step <= 20; step++) {
      status.update(progress(step), step % 10 === 0);
      time += 0.5;
    }
    status.note('done');
    status.close();
    expect(written).toHaveLength(3);
    expect(written[0]).toContain('step  10/400');
    expect(written[1]).toMatch(/ETA 3:10\n$/); // 380 steps of half a second
    expect(written.join('')).not.toContain('\x1b');
  });

  it('redraws one line in place on a terminal, at most ten times a second, and keeps notes', () => {
    const { stream, written } = recorder(true, 40);
    let time = 0;
    const status = createStatus(stream, () => time, false);
    status.update(progress(1), false);
    time += 0.05;
    status.update(progress(2), true);
    expect(written).toHaveLength(1);
    time += 0.1;
    status.update(progress(3), false);
    status.note('stage 2 begins');
    status.close();
    expect(written[1]).toBe('\r\x1b[K');
    expect(written.at(-1)).toBe('stage 2 begins\n');
    expect(written.filter((text) => text.includes('\n'))).toHaveLength(1);
  });

  it('treats a terminal in CI as none', () => {
    const { stream, written } = recorder(true);
    createStatus(stream, () => 0, true).update(progress(1), false);
    expect(written).toEqual([]);
  });

  it('measures each stage from its own begin, also when resumed in its middle', () => {
    const { stream, written } = recorder(false);
    let time = 0;
    const status = createStatus(stream, () => time, false);
    status.update(progress(300, 'pretrain'), true);
    time = 1000;
    status.update(progress(398), true);
    time = 1002;
    status.update(progress(399), true);
    expect(written[1]).toContain('ETA -');
    expect(written[2]).toContain('ETA 0:02');
  });
});

it('knows how much memory was used', () => {
  expect(peakRssMb()).toBeGreaterThan(20);
  expect(peakRssMb()).toBeLessThan(100_000);
});
