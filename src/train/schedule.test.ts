import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { learningRateFactor, type Schedule, warmupStepsOf } from './schedule.ts';

const factors = (schedule: Schedule) => Array.from({ length: schedule.totalSteps + 1 }, (_, step) => learningRateFactor(schedule, step));

describe('learningRateFactor', () => {
  // What transformers.get_cosine_schedule_with_warmup(optimizer, 3, 10) gives at lr 1 for steps 0..10.
  it('matches get_cosine_schedule_with_warmup step for step', () => {
    const expected = [
      0, 0.3333333333333333, 0.6666666666666666, 1, 0.9504844339512095, 0.8117449009293668, 0.6112604669781572, 0.38873953302184283,
      0.1882550990706332, 0.04951556604879043, 0,
    ];
    factors({ kind: 'cosine', totalSteps: 10, warmupSteps: 3, floor: 0 }).forEach((factor, step) => {
      expect(factor).toBeCloseTo(expected[step], 14);
    });
  });

  it('matches get_linear_schedule_with_warmup step for step', () => {
    const expected = [0, 0.5, 1, 0.75, 0.5, 0.25, 0];
    expect(factors({ kind: 'linear', totalSteps: 6, warmupSteps: 2, floor: 0 })).toEqual(expected);
  });

  // transformers.get_wsd_schedule(optimizer, 2, 4, num_training_steps=10, decay_type='linear') at lr 1
  it('matches get_wsd_schedule step for step', () => {
    const schedule = { kind: 'wsd', totalSteps: 10, warmupSteps: 2, floor: 0, decaySteps: 4 } as const;
    expect(factors(schedule)).toEqual([0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]);
    expect(factors({ ...schedule, floor: 0.2 }).slice(-3)).toEqual([0.6, 0.4, 0.2].map((value) => expect.closeTo(value, 12)));
    expect(factors({ ...schedule, decaySteps: 0 })).toEqual([0, 0.5, ...Array(9).fill(1)]);
  });

  it('stays at the peak when constant', () => {
    expect(factors({ kind: 'constant', totalSteps: 4, warmupSteps: 2, floor: 0 })).toEqual([0, 0.5, 1, 1, 1]);
  });

  it('ends at the floor, and stays there past the end', () => {
    for (const kind of ['cosine', 'linear'] as const) {
      const schedule = { kind, totalSteps: 20, warmupSteps: 0, floor: 0.1 };
      expect(learningRateFactor(schedule, 0)).toBe(1);
      expect(learningRateFactor(schedule, 20)).toBeCloseTo(0.1, 12);
      expect(learningRateFactor(schedule, 25)).toBeCloseTo(0.1, 12);
    }
  });

  it('of a single step begins at the peak and is over after it', () => {
    for (const kind of ['cosine', 'linear'] as const) {
      const schedule = { kind, totalSteps: 1, warmupSteps: 0, floor: 0.2 };
      expect(learningRateFactor(schedule, 0)).toBe(1);
      expect(learningRateFactor(schedule, 1)).toBeCloseTo(0.2, 12);
    }
  });

  it('rises during warmup, never after, and stays in [0, 1]', () => {
    const schedules = fc.record({
      kind: fc.constantFrom('cosine', 'linear', 'constant', 'wsd'),
      totalSteps: fc.integer({ min: 1, max: 200 }),
      ratio: fc.double({ min: 0, max: 1, noNaN: true }),
      floor: fc.double({ min: 0, max: 1, noNaN: true }),
    }) as fc.Arbitrary<Pick<Schedule, 'kind' | 'totalSteps' | 'floor'> & { ratio: number }>;
    fc.assert(
      fc.property(schedules, ({ kind, totalSteps, ratio, floor }) => {
        const warmupSteps = warmupStepsOf(totalSteps, ratio);
        const values = factors({ kind, totalSteps, warmupSteps, floor });
        values.forEach((value, step) => {
          expect(value).toBeGreaterThanOrEqual(0);
          expect(value).toBeLessThanOrEqual(1 + 1e-12);
          if (step === 0) return;
          if (step <= warmupSteps) expect(value).toBeGreaterThanOrEqual(values[step - 1]);
          else expect(value).toBeLessThanOrEqual(values[step - 1] + 1e-12);
        });
      }),
    );
  });
});

describe('warmupStepsOf', () => {
  it('rounds up as transformers does', () => {
    expect(warmupStepsOf(2180, 0.03)).toBe(66);
    expect(warmupStepsOf(100, 0)).toBe(0);
  });
});
