// How long a stage would take: a few steps of its own trainer on batches of its own shapes. Speed does not
// depend on what the numbers are, so weights that are trained, and pictures, are zeros.

import { type Engine, elementBytes, sizeOf, type Value } from '../engine/engine.ts';
import { compileGraph } from '../models/programs.ts';
import type { MicroBatch } from './batch.ts';
import type { Stage } from './recipe.ts';
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
  const ended: { at: number; cpu: number }[] = [];
  await trainStage({
    engine,
    loss,
    trained: new Map(trained.map(({ name, dims }) => [name, engine.zeros('float32', dims)])),
    constants: await task.weights.constants(loss, isTrained),
    learningRate: () => 0,
    schedule: { kind: 'constant', totalSteps: STEPS, warmupSteps: 0, floor: 0 },
    optimizer: { optim: settings.optim, betas: settings.betas, eps: settings.eps, weightDecay: 0, maxGradNorm: settings.max_grad_norm },
    gradientCheckpointing: settings.gradient_checkpointing,
    accumulation: settings.accumulation,
    data: { stepsPerEpoch: STEPS, batches: (step) => microBatches(settings, batches, step) },
    onStep: () => void ended.push({ at: performance.now() / 1000, cpu: cpuSeconds() }),
  });
  const perStep = (of: 'at' | 'cpu') => (ended[STEPS - 1][of] - ended[0][of]) / (STEPS - 1);
  return { step: perStep('at'), stepCpu: perStep('cpu'), picture: await timeEncoder(task, outline, engine) };
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

function microBatches({ accumulation }: Stage, batches: readonly MicroBatch[], step: number): MicroBatch[] {
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
