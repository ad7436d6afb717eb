import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { createRandom } from '../random.ts';
import { type Job, nextJob, type Outcome, type SearchPlan, type Trial, winnerOf } from './proposals.ts';
import { type FinishedTrial, runSearch, type SearchOptions } from './search.ts';
import { extremesOf, overridesOf, pointOf, searchSpace, valuesAt } from './space.ts';
import { ageWeights, type Observation, STARTUP, splitTrials, tpePoint } from './tpe.ts';

const batches = [32, 64, 128, 256];
const space = searchSpace({ lr: { log_uniform: [1e-5, 1e-2] }, batch_size: { choice: batches }, warmup: { uniform: [0, 0.2] } }, 'planted');

/** Planted scores of rate and warmup (0 to 1) and batch (0 to 3); undefined where training would diverge. */
const surfaces: Record<string, (rate: number, batch: number, warmup: number) => number | undefined> = {
  bowl: (rate, batch, warmup) => 0.9 - 1.6 * (rate - 0.62) ** 2 - 0.03 * Math.abs(batch - 2) - 0.5 * (warmup - 0.3) ** 2,
  // larger batches want larger rates
  ridge: (rate, batch, warmup) => 0.9 - 2.5 * (rate - 0.35 - 0.1 * batch) ** 2 - 0.02 * Math.abs(batch - 1) - 0.2 * (warmup - 0.5) ** 2,
  // the higher the better, up to where it diverges
  cliff(rate, batch, warmup) {
    const edge = 0.55 + 0.25 * warmup + 0.03 * batch;
    return rate > edge ? undefined : 0.9 - 0.9 * (edge - rate) - 0.2 * (warmup - 0.4) ** 2;
  },
  peak: (rate, batch, warmup) =>
    0.3 + 0.6 * Math.exp(-(((rate - 0.7) / 0.12) ** 2) - ((warmup - 0.25) / 0.3) ** 2) - 0.04 * Math.abs(batch - 3),
};

function scoreAt(name: string, { values }: Pick<Job, 'values'>): number | undefined {
  const [rate, , warmup] = pointOf(space, values);
  return surfaces[name](rate, batches.indexOf(values.batch_size as number), warmup);
}

/** The best score of a grid of 9 x 4 x 6 points. */
const GRID = [9, 4, 6];
function bestOfGrid(name: string): number {
  let best = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < GRID[0]; i++)
    for (let j = 0; j < GRID[1]; j++)
      for (let k = 0; k < GRID[2]; k++) best = Math.max(best, surfaces[name](i / (GRID[0] - 1), j, k / (GRID[2] - 1)) ?? best);
  return best;
}

const planWith = (plan: Partial<SearchPlan>): SearchPlan => ({ space, sampler: 'random', seed: 0, trials: 12, lowest: false, ...plan });

/** A trial of a surface with noise; of a shorter schedule everything is worse. */
function noisyOutcome(name: string, job: Job, seed: number): Outcome {
  const score = scoreAt(name, job);
  if (score === undefined) return { status: 'diverged', reason: 'planted' };
  return { status: 'finished', value: score - 0.1 * (1 - job.share) + 0.02 * createRandom(seed, 'noise', job.index).normal() };
}

function searched(plan: SearchPlan, outcome: (job: Job) => Outcome): Trial[] {
  const trials: Trial[] = [];
  for (let job = nextJob(trials, plan); job; job = nextJob(trials, plan)) trials.push({ ...job, outcome: outcome(job) });
  return trials;
}

describe('on planted surfaces with noise', () => {
  const third = GRID.reduce((product, n) => product * n, 1) / 3;

  /** The true score of what a search has chosen, as a share of the grid's best. */
  const shareOfBest = (name: string, plan: Partial<SearchPlan>, seed: number) => {
    const whole = planWith({ trials: third, seed, ...plan });
    const winner = winnerOf(
      searched(whole, (job) => noisyOutcome(name, job, seed)),
      whole,
    );
    return scoreAt(name, winner!)! / bestOfGrid(name);
  };
  const means = (name: string, plan: Partial<SearchPlan>, seeds: number) => {
    const shares = Array.from({ length: seeds }, (_, seed) => shareOfBest(name, plan, seed));
    return { mean: shares.reduce((sum, share) => sum + share, 0) / seeds, reached: shares.filter((share) => share >= 0.95).length / seeds };
  };

  it.each(Object.keys(surfaces))("%s: tpe has 95 percent of the best of a grid with a third of the grid's budget", (name) => {
    const { mean, reached } = means(name, { sampler: 'tpe' }, 10);
    expect(mean).toBeGreaterThan(0.975);
    expect(reached).toBeGreaterThanOrEqual(0.9);
  });

  it.each(['random', 'halton', 'sobol'] as const)('%s does so in the mean', (sampler) => {
    for (const name of Object.keys(surfaces)) expect(means(name, { sampler }, 20).mean).toBeGreaterThan(0.95);
  });

  it('short schedules first do so too', () => {
    for (const name of Object.keys(surfaces))
      expect(means(name, { sampler: 'random', asha: { reduction: 3, rungs: 3 } }, 10).mean).toBeGreaterThan(0.95);
  });
});

describe('a space', () => {
  it('has the values of its dimensions, with six digits', () => {
    const all = searchSpace(
      { a: { log_uniform: [1e-4, 1] }, b: { integer: [2, 4] }, c: { choice: ['x', [1, 2]] }, d: { uniform: [-1, 1] } },
      'f',
    );
    expect(valuesAt(all, [0.5, 0, 0.49, 0.25])).toEqual({ a: 0.01, b: 2, c: 'x', d: -0.5 });
    expect(valuesAt(all, [1 / 3, 0.999, 0.5, 0])).toEqual({ a: 0.00215443, b: 4, c: [1, 2], d: -1 });
    expect(overridesOf(valuesAt(all, [0, 0.5, 0.5, 0.5]))).toEqual(['a=0.0001', 'b=3', 'c=[1,2]', 'd=0']);
    for (const u of [0.01, 0.3, 0.77]) {
      const values = valuesAt(all, [u, u, u, u]);
      expect(valuesAt(all, pointOf(all, values))).toEqual(values);
      expect(pointOf(all, values)[0]).toBeCloseTo(u, 5);
    }
    expect(extremesOf(all).map(({ a }) => a)).toEqual([0.0001, 1, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01]);
  });

  it.each([
    [{ log_uniform: [0, 1] }, 'log_uniform begins at 0'],
    [{ uniform: [2, 1] }, 'uniform goes from 2 to 1: give the lower end first'],
    [{ integer: [1, 2.5] }, 'both must be whole numbers'],
    [{ choice: [1, 2, 1] }, 'choice has a value twice'],
  ] as const)('refuses %j', (field, message) => {
    expect(() => searchSpace({ 'stages.0.lr': field as never }, 'f.yaml')).toThrow(/^f\.yaml: space: stages\.0\.lr: /);
    expect(() => searchSpace({ 'stages.0.lr': field as never }, 'f.yaml')).toThrow(message);
  });
});

describe('TPE', () => {
  it('weighs the newest 25 trials alike, those before on a ramp', () => {
    expect(ageWeights(3)).toEqual([1, 1, 1]);
    expect(ageWeights(26)).toEqual([1 / 26, ...Array(25).fill(1)]);
    const weights = ageWeights(30);
    expect(weights[0]).toBeCloseTo(1 / 30, 12);
    expect(weights[2]).toBeCloseTo((1 + 1 / 30) / 2, 12);
    expect(weights.slice(4)).toEqual(Array(26).fill(1));
  });

  it('has the best tenth as the good ones; pending and failed trials are among the others', () => {
    const trials: Observation[] = Array.from({ length: 21 }, (_, i) => ({ point: [i], loss: i % 3 === 0 ? undefined : 100 - i }));
    const { good, others } = splitTrials(trials);
    expect(good.map(({ point }) => point[0])).toEqual([19, 20]);
    expect(others).toHaveLength(19);
    const many = Array.from({ length: 400 }, (_, i) => ({ point: [i], loss: i }));
    expect(splitTrials(many).good).toHaveLength(25);
  });

  it('begins at random, or at points that fill the space, and goes on by itself', () => {
    const outcome = ({ index }: Job): Outcome => ({ status: 'finished', value: index });
    const valuesOf = (plan: Partial<SearchPlan>) =>
      searched(planWith({ ...plan, trials: STARTUP + 2 }), outcome).map(({ values }) => values);
    for (const start of ['random', 'halton', 'sobol'] as const) {
      const [own, filled] = [valuesOf({ sampler: 'tpe', start }), valuesOf({ sampler: start })];
      expect(own.slice(0, STARTUP)).toEqual(filled.slice(0, STARTUP));
      expect(own.slice(STARTUP)).not.toEqual(filled.slice(STARTUP));
    }
    expect(valuesOf({ sampler: 'tpe' })).toEqual(valuesOf({ sampler: 'tpe', start: 'random' }));
  });

  it('draws near what was good and not where it was bad', () => {
    const line = searchSpace({ x: { uniform: [0, 1] } }, 'line');
    const trials = Array.from({ length: 40 }, (_, i) => ({ point: [(i + 0.5) / 40], loss: Math.abs((i + 0.5) / 40 - 0.8) }));
    const proposals = Array.from({ length: 50 }, (_, index) => tpePoint(line, trials, index, 1)[0]);
    expect(proposals.filter((x) => Math.abs(x - 0.8) < 0.15).length).toBeGreaterThan(40);
    const crowded = [...trials, ...Array.from({ length: 20 }, () => ({ point: [0.8], loss: undefined }))];
    const spread = Array.from({ length: 50 }, (_, index) => tpePoint(line, crowded, index, 1)[0]);
    const near = (points: number[]) => points.filter((x) => Math.abs(x - 0.8) < 0.05).length;
    expect(near(spread)).toBeLessThan(near(proposals));
  });

  it('learns choices', () => {
    const choice = searchSpace({ x: { choice: ['a', 'b', 'c', 'd'] } }, 'choice');
    const trials = Array.from({ length: 40 }, (_, i) => ({ point: [((i % 4) + 0.5) / 4], loss: i % 4 === 2 ? 0 : 1 }));
    const proposals = Array.from({ length: 40 }, (_, index) => valuesAt(choice, tpePoint(choice, trials, index, 1)).x);
    expect(proposals.filter((x) => x === 'c').length).toBeGreaterThan(35);
  });
});

describe('ASHA', () => {
  const plan = planWith({ trials: 9, asha: { reduction: 3, rungs: 3 } });
  const trials = searched(plan, (job) => noisyOutcome('bowl', job, 1));
  const ofRung = (rung: number) => trials.filter((trial) => trial.rung === rung);

  it('spends the budget and no more, most of the trials on short schedules', () => {
    const spent = trials.reduce((sum, { share }) => sum + share, 0);
    expect(spent).toBeLessThanOrEqual(9 + 1e-9);
    expect(spent).toBeGreaterThan(9 - 1 / 9 - 1e-9);
    expect(ofRung(0).length).toBeGreaterThan(2 * ofRung(1).length);
    expect(ofRung(0).every(({ share }) => share === 1 / 9)).toBe(true);
    expect(ofRung(2).every(({ share }) => share === 1)).toBe(true);
  });

  it('promotes a configuration once, when it is in the top third of its rung', () => {
    for (const { index, configuration, rung, values } of trials) {
      if (rung === 0) continue;
      const rivals = trials.slice(0, index).filter((trial) => trial.rung === rung - 1);
      const valueOfTrial = ({ outcome }: Trial) => (outcome?.status === 'finished' ? outcome.value : Number.NEGATIVE_INFINITY);
      const own = rivals.find((trial) => trial.configuration === configuration)!;
      expect(own.values).toEqual(values);
      expect(rivals.filter((trial) => valueOfTrial(trial) > valueOfTrial(own)).length).toBeLessThan(rivals.length / 3);
      expect(trials.filter((trial) => trial.rung === rung && trial.configuration === configuration)).toHaveLength(1);
    }
  });

  it('ends with a whole schedule, however small the budget', () => {
    for (const budget of [2, 3, 4]) {
      const small = planWith({ trials: budget, asha: { reduction: 4, rungs: 4 } });
      const few = searched(small, (job) => noisyOutcome('bowl', job, budget));
      expect(winnerOf(few, small)?.share).toBe(1);
      expect(few.reduce((sum, { share }) => sum + share, 0)).toBeLessThanOrEqual(budget + 1e-9);
    }
  });
});

describe('a search', () => {
  const options = (more: Partial<SearchOptions>): SearchOptions => ({
    ...planWith({ sampler: 'tpe', trials: 20 }),
    evaluate: async (job) => noisyOutcome('ridge', job, 4),
    ...more,
  });

  it('gives the trial that was best when it was made, and spends the budget', async () => {
    const { trials, winner } = await runSearch(options({}));
    expect(trials).toHaveLength(20);
    const values = trials.map(({ outcome }) => (outcome.status === 'finished' ? outcome.value : Number.NEGATIVE_INFINITY));
    expect(winner).toEqual(trials[values.indexOf(Math.max(...values))]);
  });

  it('proposes the same whichever trial ends first, and never runs more than it may', async () => {
    const runWith = async (delay: (job: Job) => number) => {
      let running = 0;
      let most = 0;
      const evaluate = async (job: Job) => {
        most = Math.max(most, ++running);
        await sleep(delay(job));
        running--;
        return noisyOutcome('ridge', job, 4);
      };
      const { trials } = await runSearch(options({ atOnce: 3, evaluate }));
      expect(most).toBe(3);
      return trials;
    };
    const ordered = await runWith(() => 1);
    expect(await runWith(({ index }) => (index % 3 === 0 ? 12 : 1))).toEqual(ordered);
    expect(ordered).not.toEqual((await runSearch(options({}))).trials);
  });

  it.each([1, 3])('goes on from any number of recorded trials to the same end, %i at a time', async (atOnce) => {
    const told: FinishedTrial[] = [];
    const whole = await runSearch(options({ atOnce, onTrial: (trial) => told.push(trial) }));
    expect(told).toEqual(whole.trials);
    for (const known of [0, 1, 7, 19, 20]) {
      let evaluated = 0;
      const evaluate = async (job: Job) => {
        evaluated++;
        return noisyOutcome('ridge', job, 4);
      };
      const more = await runSearch(options({ atOnce, evaluate, recorded: whole.trials.slice(0, known) }));
      expect(more).toEqual(whole);
      expect(evaluated).toBe(20 - known);
    }
  });

  it('refuses trials of another search', async () => {
    const { trials } = await runSearch(options({ seed: 1 }));
    await expect(runSearch(options({ recorded: trials }))).rejects.toThrow('it is of another search');
  });

  it('ends with the first error, once the trials beside it have stopped', async () => {
    const stopped: number[] = [];
    const evaluate = async ({ index }: Job, signal: AbortSignal): Promise<Outcome> => {
      if (index === 4) throw new Error('the disk is full');
      if (index < 4) return { status: 'finished', value: index };
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
      stopped.push(index);
      throw signal.reason;
    };
    await expect(runSearch(options({ atOnce: 3, evaluate }))).rejects.toThrow('the disk is full');
    expect(stopped).toEqual([5, 6]);
  });

  it('goes on where trials diverge or fail, and ends where nothing works', async () => {
    const sometimes = async (job: Job): Promise<Outcome> =>
      job.index % 2 === 0 ? { status: 'failed', reason: 'no such layer' } : noisyOutcome('bowl', job, 1);
    const { trials, winner } = await runSearch(options({ evaluate: sometimes }));
    expect(trials.filter(({ outcome }) => outcome.status === 'failed')).toHaveLength(10);
    expect(winner!.index % 2).toBe(1);
    const never = async (): Promise<Outcome> => ({ status: 'failed', reason: 'no such layer' });
    await expect(runSearch(options({ evaluate: never }))).rejects.toThrow(UserError);
    await expect(runSearch(options({ evaluate: never }))).rejects.toThrow('the first 3 trials all failed; the first one: no such layer');
    const diverging = async (): Promise<Outcome> => ({ status: 'diverged', reason: 'NaN' });
    expect((await runSearch(options({ evaluate: diverging }))).winner).toBeUndefined();
  });
});
