// How long a stage would take: a few steps of its own trainer on batches of its own shapes. Speed does not
// depend on what the numbers are, so weights that are trained, and pictures, are zeros.

import { type Engine, elementBytes, sizeOf, type Value } from '../engine/engine.ts';
import { compileGraph } from '../models/programs.ts';
import type { MicroBatch } from './batch.ts';
import { trainStage } from './stage.ts';
import type { StageOutline, Task } from './task.ts';

export interface StageTiming {
  /** Seconds of an optimizer step, and those of the processor over all threads. */
  step: number;
  stepCpu: number;
  /**
   * Seconds that the frozen encoder takes for a picture, without reading it; 0 where it does not run before
   * the first step.
   */
  picture: number;
}

/** Steps that are run; the first warms up and is left out. */
const STEPS = 3;
/** Batches of a step that are run: the others take as long. */
const BATCHES = 4;
/** Seconds after which what has been seen is enough, be it a single batch. */
const ENOUGH = 60;

/** Pictures that the encoder is timed with. */
const PICTURES = 4;

/** `task` may be one that is planned: weights are read by the engine alone. */
export async function timeStage(
  task: Task,
  outline: StageOutline,
  isTrained: (name: string) => boolean,
  engine: Engine,
): Promise<StageTiming> {
  const { settings, batches } = outline;
  const loss = outline.loss(task.weights.storageOf(isTrained));
  const trained = loss.parameters.filter(({ name }) => isTrained(name));
  const accumulation = Math.min(BATCHES, settings.accumulation);
  const clock = createClock(accumulation);
  const training = trainStage({
    engine,
    loss,
    trained: new Map(trained.map(({ name, dims }) => [name, engine.zeros('float32', dims)])),
    constants: await task.weights.constants(loss, isTrained),
    learningRate: () => 0,
    schedule: { kind: 'constant', totalSteps: STEPS, warmupSteps: 0, floor: 0 },
    optimizer: { optim: settings.optim, betas: settings.betas, eps: settings.eps, weightDecay: 0, maxGradNorm: settings.max_grad_norm },
    gradientCheckpointing: settings.gradient_checkpointing,
    accumulation,
    data: { stepsPerEpoch: STEPS, batches: (step) => clock.batches(microBatches(accumulation, batches, step)) },
    onStep: async () => clock.endStep(),
  });
  await training.catch((error: unknown) => {
    if (!(error instanceof SeenEnough)) throw error;
  });
  const { batch, rest } = clock.read();
  const ofStep = (of: keyof Moment) => settings.accumulation * batch[of] + rest[of];
  return { step: ofStep('at'), stepCpu: ofStep('cpu'), picture: await timeEncoder(task, outline, engine) };
}

class SeenEnough extends Error {}

/** Seconds, by the clock and of the processor. */
interface Moment {
  at: number;
  cpu: number;
}

/**
 * Times the batches of steps of `count` each, and what a step does beside them: adding up, the update. A step
 * of a large model may take hours, so it ends with SeenEnough once a batch was seen and time is up.
 */
function createClock(count: number) {
  const now = (): Moment => ({ at: performance.now() / 1000, cpu: cpuSeconds() });
  const since = (from: Moment): Moment => {
    const { at, cpu } = now();
    return { at: at - from.at, cpu: cpu - from.cpu };
  };
  const mean = (all: readonly Moment[]): Moment => ({
    at: all.reduce((sum, { at }) => sum + at, 0) / all.length,
    cpu: all.reduce((sum, { cpu }) => sum + cpu, 0) / all.length,
  });
  const began = now();
  /** From batch to batch within a step; whole steps. */
  const [gaps, steps]: [Moment[], Moment[]] = [[], []];
  let stepBegan = began;
  return {
    *batches(given: Iterable<MicroBatch>): Generator<MicroBatch, void> {
      stepBegan = now();
      let last: Moment | undefined;
      for (const batch of given) {
        if (last) {
          gaps.push(since(last));
          if (since(began).at > ENOUGH) throw new SeenEnough();
        }
        last = now();
        yield batch;
      }
    },
    endStep(): void {
      steps.push(since(stepBegan));
      if (steps.length < STEPS && since(began).at > ENOUGH) throw new SeenEnough();
    },
    /** A batch, and the rest of a step. */
    read(): { batch: Moment; rest: Moment } {
      // the first step warms up
      const warm = <T>(all: T[], cold: number) => (all.length > cold ? all.slice(cold) : all);
      const step = steps.length > 0 ? mean(warm(steps, 1)) : undefined;
      if (count === 1) return { batch: { at: 0, cpu: 0 }, rest: step! };
      const batch = mean(warm(gaps, count - 1));
      const rest = (of: keyof Moment) => (step ? Math.max(0, step[of] - count * batch[of]) : 0);
      return { batch, rest: { at: rest('at'), cpu: rest('cpu') } };
    },
  };
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function microBatches(accumulation: number, batches: readonly MicroBatch[], step: number): MicroBatch[] {
  return Array.from({ length: accumulation }, (_, i) => whole(batches[(step * accumulation + i) % batches.length]));
}

/** The batch with zeros for what an outline leaves out. */
function whole(batch: MicroBatch): MicroBatch {
  const inputs = Object.entries(batch.inputs).map(([name, value]) => [name, value.data.length > 0 ? value : zeros(value)]);
  return { ...batch, inputs: Object.fromEntries(inputs) as MicroBatch['inputs'] };
}

const zeros = ({ dtype, dims }: Pick<Value, 'dtype' | 'dims'>): Value => {
  if (elementBytes[dtype] !== 4) throw new Error(`an outline leaves out float32, not ${dtype}`);
  return { dtype, dims, data: new Float32Array(sizeOf(dims)) };
};

async function timeEncoder({ weights }: Task, { encoder }: StageOutline, engine: Engine): Promise<number> {
  if (!encoder) return 0;
  const graph = encoder.graph(weights.storageOf());
  const program = await compileGraph(engine, graph, await weights.constants(graph));
  try {
    const [, ...pixels] = graph.inputs.pixel_values.dims as number[];
    const pixel_values = zeros({ dtype: 'float32', dims: [PICTURES, ...pixels] });
    await program.run({ pixel_values });
    const began = performance.now();
    await program.run({ pixel_values });
    return (performance.now() - began) / 1000 / PICTURES;
  } finally {
    await program.dispose();
  }
}
