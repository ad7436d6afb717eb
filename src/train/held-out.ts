// Samples that a stage leaves out of training, and the loss on them: which they are is decided by seed and
// picture, so that a picture is on one side in every stage, whatever file and order it comes in.

import { relative } from 'node:path';
import type { DataIndex } from '../data/data-set.ts';
import type { Sample } from '../data/llava-json.ts';
import { type Engine, type State, sizeOf, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { constantsOf, type LossGraph } from '../models/programs.ts';
import { createRandom } from '../random.ts';
import type { MicroBatch } from './batch.ts';
import { isLean } from './stage.ts';
import type { ModelWeights } from './weights.ts';

// === Which samples ===

/** How many samples are held out: a number, or a share of all. */
export interface HeldOutSize {
  samples?: number;
  share?: number;
}

/**
 * The rank of a sample, from 0 to 1: those of lowest rank are held out, and samples with the same pictures
 * have one. A sample without any is known by `place`.
 */
export function heldOutRank({ images }: Pick<Sample, 'images'>, imageFolder: string, place: string, seed: number): number {
  // a folder may be moved between two sittings
  const key = images.length > 0 ? images.map((path) => relative(imageFolder, path)).join('\n') : place;
  return createRandom(seed, 'held out', key).uniform();
}

/**
 * Whether each sample is held out, by the ranks of all: those below a share, which are the same pictures in
 * every stage, or so many of the lowest, and what shares the last rank. UserError, beginning with `where`,
 * where a file would have nothing left to train on.
 */
export function heldOutSamples(ranks: readonly number[], { samples, share }: HeldOutSize, { files }: DataIndex, where: string): boolean[] {
  const sorted = Float64Array.from(ranks).sort();
  const below = share === undefined ? 0 : sorted.findLastIndex((rank) => rank < share) + 1;
  const wanted = samples ?? Math.max(1, below);
  const highest = sorted[wanted - 1] ?? Number.POSITIVE_INFINITY;
  const isHeldOut = ranks.map((rank) => rank <= highest && rank < Number.POSITIVE_INFINITY);
  let first = 0;
  for (const { path, samples: count } of files) {
    if (count > 0 && isHeldOut.slice(first, first + count).every(Boolean))
      throw new UserError(`${where}: ${wanted} samples are all of ${path}: nothing of it would be trained on; hold fewer out`);
    first += count;
  }
  return isHeldOut;
}

// === Their loss ===

/** What a stage holds out, ready to be measured. */
export interface HeldOutData {
  samples: number;
  /** The loss as it is without what only training does, such as dropout. */
  loss: (storage: ReturnType<ModelWeights['storageOf']>) => LossGraph;
  batches: () => AsyncIterable<MicroBatch>;
  dispose(): Promise<void>;
}

export interface HeldOutLoss {
  /** Mean per label, in nats. */
  loss: number;
  /** How much larger it is with the pictures of other samples; undefined where there are none to exchange. */
  imageGain?: number;
}

/** The inputs that hold pictures: one along the first axis for each. */
const PICTURES = ['image_features', 'pixel_values'];

/**
 * The same inputs with each picture in the place of another, a single one in the place of `spare`. Undefined
 * where there is no other.
 */
export function withOtherPictures(inputs: MicroBatch['inputs'], spare: Value | undefined): MicroBatch['inputs'] | undefined {
  const name = PICTURES.find((each) => each in inputs);
  if (name === undefined) return undefined;
  const { data, dims, dtype } = inputs[name];
  const [count, ...rest] = dims;
  if (count === 0) return undefined;
  if (count === 1) return spare && { ...inputs, [name]: spare };
  // rows of one picture may stand side by side: the other is half-way round
  const size = sizeOf(rest);
  const shift = Math.ceil(count / 2) * size;
  const rolled = new Float32Array(data.length);
  rolled.set((data as Float32Array).subarray(shift));
  rolled.set((data as Float32Array).subarray(0, shift), data.length - shift);
  return { ...inputs, [name]: { dtype, dims, data: rolled } };
}

/** The last picture of a batch, by itself. */
function lastPicture(inputs: MicroBatch['inputs']): Value | undefined {
  const name = PICTURES.find((each) => each in inputs);
  if (name === undefined || inputs[name].dims[0] === 0) return undefined;
  const { data, dims, dtype } = inputs[name];
  const size = sizeOf(dims.slice(1));
  return { dtype, dims: [1, ...dims.slice(1)], data: (data as Float32Array).slice(data.length - size) };
}

/** A program that measures the loss on `data`: parameters are constants, but for those that are trained. */
export async function compileHeldOut(engine: Engine, weights: ModelWeights, data: HeldOutData, isTrained: (name: string) => boolean) {
  const graph = data.loss(weights.storageOf(isTrained));
  const frozen = graph.parameters.filter(({ name }) => !isTrained(name));
  const constants = constantsOf(frozen, await weights.constants(graph, isTrained));
  const program = await engine.compile({ loss: graph.outputs.loss }, { constants, lean: isLean(graph) });
  const lossOf = async (inputs: MicroBatch['inputs'], state: Record<string, State>) =>
    (await program.run(inputs, { state })).loss.data[0] as number;
  return {
    /** Whether the program takes memory that training needs: it is not to be kept. */
    isLarge: isLean(graph),
    /** `trained` are the values it is measured with, and are not changed. Throws the signal's reason. */
    async measure(trained: ReadonlyMap<string, State>, signal?: AbortSignal): Promise<HeldOutLoss> {
      const state = Object.fromEntries(trained);
      const sums = { loss: 0, weight: 0, own: 0, other: 0, exchanged: 0 };
      let spare: Value | undefined;
      for await (const { inputs, weight } of data.batches()) {
        signal?.throwIfAborted();
        const loss = await lossOf(inputs, state);
        sums.loss += loss;
        sums.weight += weight;
        const others = withOtherPictures(inputs, spare);
        spare = lastPicture(inputs) ?? spare;
        if (!others) continue;
        sums.own += loss;
        sums.other += await lossOf(others, state);
        sums.exchanged += weight;
      }
      const gain = sums.exchanged > 0 ? { imageGain: (sums.other - sums.own) / sums.exchanged } : {};
      return { loss: sums.loss / sums.weight, ...gain };
    },
    dispose: () => program.dispose(),
  };
}
