// An engine that runs nothing: it is told what a program would be compiled from, and says how much memory the
// program would take on ONNX Runtime, before any weight is read.

import { divideWork, loweringOf, writeName } from './divide.ts';
import { type Constant, type Engine, elementBytes, type SequenceState, type State, sizeOf, type Value } from './engine.ts';
import { lowerToModel } from './onnx/lower.ts';
import { type DimSizes, peakBytes } from './onnx/memory.ts';

/** Memory of what was made on a planning engine, in bytes. */
export interface PlannedMemory {
  /** Constants that lie in files, which the system maps and may drop again. */
  mappedBytes: number;
  /** Constants in memory. */
  constantBytes: number;
  /** State: trained values, sums of gradients, moments. */
  stateBytes: number;
  /**
   * Most that the results of a program's nodes take at once, of the program that takes most. Throws an Error
   * for a named dim that `sizes` lacks.
   */
  activationBytes(sizes: DimSizes): number;
}

export interface PlanningEngine extends Engine {
  readonly memory: PlannedMemory;
}

const isInFile = (value: Constant) => 'path' in value;
const bytesOf = ({ dtype, dims }: Pick<Constant, 'dtype' | 'dims'>) => sizeOf(dims) * elementBytes[dtype];

export function createPlanningEngine(): PlanningEngine {
  const constants = new Map<Constant, number>();
  const peaks: ((sizes: DimSizes) => number)[] = [];
  let stateBytes = 0;
  const made = <S extends State>(state: S): S => {
    stateBytes += bytesOf(state);
    return state;
  };
  const total = (isWanted: (value: Constant) => boolean) =>
    [...constants].reduce((sum, [value, bytes]) => sum + (isWanted(value) ? bytes : 0), 0);
  return {
    name: 'planning',
    async compile(outputs, options = {}) {
      const { graph, forward, rest, inputs, fixed } = divideWork(outputs, options);
      for (const name of fixed.keys()) {
        const value = options.constants!.get(name)!;
        constants.set(value, bytesOf(value));
      }
      const placed = new Set(Object.keys(rest).map(writeName));
      if (Object.keys(graph).length > 0) {
        const externalInputs = new Map(
          [...fixed.keys()].map((name) => [name, { offset: 0, length: bytesOf(options.constants!.get(name)!) }]),
        );
        // where its constants lie plays no part
        const model = lowerToModel(graph, { externalInputs, ...loweringOf(forward, options) });
        peaks.push((sizes) => peakBytes(model, sizes, placed));
      }
      return { inputNames: [...inputs.keys()], outputNames: Object.keys(outputs), run: () => refuse(), async dispose() {} };
    },
    state: ({ dtype, dims }) => made(emptyState(dtype, dims)),
    zeros: (dtype, dims) => made(emptyState(dtype, dims)),
    slots: () => refuse(),
    sequence: (dtype, dims) => ({ ...emptyState(dtype, dims), length: 0, reserve() {}, truncate() {} }) satisfies SequenceState,
    memory: {
      get mappedBytes() {
        return total(isInFile);
      },
      get constantBytes() {
        return total((value) => !isInFile(value));
      },
      get stateBytes() {
        return stateBytes;
      },
      activationBytes: (sizes) => peaks.reduce((most, peak) => Math.max(most, peak(sizes)), 0),
    },
  };
}

function refuse(): never {
  throw new Error('a planning engine runs nothing');
}

const emptyState = (dtype: Value['dtype'], dims: readonly number[]): State => ({
  dtype,
  dims,
  read: () => refuse(),
  async write() {},
  clear() {},
});
