// A training stage that waits before each step until a turn asks for it, and the formula by which all sides
// of a comparison draw the same weights and tokens. Which checkout's code the stage runs is the caller's
// business: nothing here is of one version.

import { readFileSync } from 'node:fs';

export interface Size {
  batch: number;
  tokens: number;
  config: { vocab_size: number; hidden_size: number; intermediate_size: number; initializer_range: number };
}

export interface Setup {
  optimizer: { lr: number; betas: [number, number]; eps: number; weight_decay: number };
  sizes: Record<string, Size>;
}

/** Sizes and optimizer of the step, which the PyTorch side reads too. */
export const readSetup = (): Setup => JSON.parse(readFileSync('bench/train-step.json', 'utf8'));

/**
 * Timed steps a turn. One more comes first and is left out: it warms the caches again after the other sides.
 */
export const STEPS_PER_TURN: Record<string, number> = { small: 8, large: 2 };

/** Steps: ms, ms of CPU time over all threads, and the losses before each. */
export interface Turn {
  ms: number[];
  cpu_ms: number[];
  losses: number[];
}

export type Side = (steps: number) => Promise<Turn>;

/** How a held stage tells its turns of each step. */
export interface Hold {
  /** Resolves when a turn asks for a step: to be awaited before the step's batch is handed over. */
  asked(): Promise<void>;
  /** To be called with the loss of a step when its parameters are updated. */
  done(loss: number): void;
}

/**
 * Runs `train` step by step: a step's time runs from the batch being handed over to the parameters being
 * updated. A turn fails when the stage fails.
 */
export function heldStage(train: (hold: Hold) => Promise<void>): Side {
  let start = () => {};
  let asked = Promise.resolve();
  let begin = { time: 0, cpu: process.cpuUsage() };
  const wait = () => {
    asked = new Promise<void>((resolve) => {
      start = resolve;
    });
  };
  wait();
  let finish = (_step: { ms: number; cpu: number; loss: number }) => {};
  const training = train({
    async asked() {
      await asked;
      begin = { time: performance.now(), cpu: process.cpuUsage() };
    },
    done(loss) {
      const ms = performance.now() - begin.time;
      const { user, system } = process.cpuUsage(begin.cpu);
      wait();
      finish({ ms, cpu: (user + system) / 1000, loss });
    },
  });
  // a failure is reported to whoever asks for the next step
  const failure = training.then(() => new Promise<never>(() => {}));
  failure.catch(() => {});
  return async (steps) => {
    const turn: Turn = { ms: [], cpu_ms: [], losses: [] };
    for (let i = 0; i < steps; i++) {
      const step = new Promise<{ ms: number; cpu: number; loss: number }>((resolve) => {
        finish = resolve;
      });
      start();
      const { ms, cpu, loss } = await Promise.race([step, failure]);
      turn.ms.push(ms);
      turn.cpu_ms.push(cpu);
      turn.losses.push(loss);
    }
    return turn;
  };
}

// === Data ===

/**
 * Number `index` of the benchmark's stream of uint32: the 32-bit finalizer of MurmurHash3, as `draw` of the
 * PyTorch side.
 */
function draw(index: number): number {
  let x = index | 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x85ebca6b);
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35);
  x ^= x >>> 16;
  return x >>> 0;
}

/**
 * One draw an element over the parameters sorted by name, uniform with the given standard deviation; norm
 * weights are 0 and draw none.
 */
export function drawWeights(
  parameters: readonly { name: string; dims: readonly number[] }[],
  std: number,
): { name: string; dims: readonly number[]; data: Float32Array }[] {
  let index = 0;
  return [...parameters]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, dims }) => {
      const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
      if (dims.length > 1) for (let i = 0; i < data.length; i++) data[i] = (draw(index++) / 2 ** 32 - 0.5) * (std * Math.sqrt(12));
      return { name, dims, data };
    });
}

/**
 * Rows of drawn tokens, int32 [batch, tokens] or [labels]; token t predicts t + 1, the last of a row predicts
 * nothing.
 */
export function batchRows({ batch, tokens, config }: Size) {
  const count = batch * tokens;
  const inputIds = Int32Array.from({ length: count }, (_, i) => draw(2 ** 31 + i) % config.vocab_size);
  const labelRows = Int32Array.from({ length: count }, (_, i) => i).filter((i) => i % tokens !== tokens - 1);
  return {
    input_ids: inputIds,
    position_ids: Int32Array.from({ length: count }, (_, i) => i % tokens),
    sample_ids: new Int32Array(count).fill(1),
    branch_ids: new Int32Array(count).fill(1),
    label_rows: labelRows,
    labels: labelRows.map((i) => inputIds[i + 1]),
  };
}

/** Dims of each of `batchRows`. */
export const rowDims = (name: string, rows: Int32Array, { batch, tokens }: Size): number[] =>
  name.startsWith('label') ? [rows.length] : [batch, tokens];
