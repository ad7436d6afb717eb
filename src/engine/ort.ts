// The default engine: ONNX Runtime, whole from npm (CPU everywhere). `run` of the Node binding is synchronous inside: it blocks the
// event loop, so anything interactive runs it in a worker thread.

import { realpathSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, relative, sep } from 'node:path';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import type { Dims } from '../graph/dims.ts';
import { inputName, type Tensor, type TypedData, topologicalOrder } from '../graph/tensor.ts';
import type { CompileOptions, Constant, Engine, Program, StoredValue, Value } from './engine.ts';
import { type LowerOptions, lower } from './onnx/lower.ts';
import { EXTERNAL_DATA_PATH, type ExternalData } from './onnx/packed.ts';

export interface OrtOptions {
  /** Threads inside one op. Default: all cores. */
  threads?: number;
  /**
   * Whether idle threads spin before they sleep; default false. A little faster where nothing else runs; beside any other process it
   * halved the speed of a training step.
   */
  spin?: boolean;
  fuse?: LowerOptions['fuse'];
}

const PADDING = 64;

export function createOrtEngine(options: OrtOptions = {}): Engine {
  const threads = options.threads ?? availableParallelism();
  return {
    name: 'ort-cpu',
    async compile(outputs, { constants }: CompileOptions = {}): Promise<Program> {
      const inputs = new Map<string, Tensor>();
      const fixed = new Map<string, Tensor>();
      for (const tensor of topologicalOrder(Object.values(outputs)))
        if (tensor.op === 'input') (constants?.has(inputName(tensor)) ? fixed : inputs).set(inputName(tensor), tensor);
      checkInputs(fixed, Object.fromEntries(constants ?? []));
      const used = new Map([...fixed.keys()].map((name) => [name, constants!.get(name)!]));
      const { externalInputs, bytes, folder } = layOutConstants(used);
      const model = lower(outputs, { externalInputs, fuse: options.fuse });
      const session = await InferenceSession.create(model, {
        executionProviders: ['cpu'],
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        graphOptimizationLevel: 'all',
        logSeverityLevel: 3,
        extra: {
          session: {
            intra_op: { allow_spinning: options.spin ? '1' : '0' },
            force_spinning_stop: '1',
            ...(folder === undefined ? {} : { model_external_initializers_file_folder_path: folder }),
          },
        },
        ...(bytes ? { externalData: [{ path: EXTERNAL_DATA_PATH, data: bytes }] } : {}),
      });
      return {
        inputNames: [...inputs.keys()],
        outputNames: Object.keys(outputs),
        async run(values, wanted) {
          checkInputs(inputs, values);
          const feeds: Record<string, OrtTensor> = {};
          for (const name of session.inputNames) feeds[name] = toOrt(values[name]);
          const results = wanted ? await session.run(feeds, wanted) : await session.run(feeds);
          return Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, fromOrt(tensor)]));
        },
        dispose: () => session.release(),
      };
    },
  };
}

const isStored = (value: Constant): value is StoredValue => 'path' in value;

const byteSizes: Readonly<Record<Value['dtype'], number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int64: 8,
  int32: 4,
  bool: 1,
  int8: 1,
  uint8: 1,
};

/**
 * Lays the fixed inputs that are in memory one after the other, aligned, as one external-data buffer. What lies in a file stays there: the
 * runtime maps it, and unmaps what it pre-packs. All files must be below one folder, which is given to the runtime, and their paths must
 * have no links: it follows none that lead out of the folder. It takes the one or the other: not both for one program.
 */
function layOutConstants(constants: ReadonlyMap<string, Constant>) {
  const externalInputs = new Map<string, ExternalData>();
  const stored = new Map<string, StoredValue>();
  let total = 0;
  for (const [name, value] of constants) {
    if (isStored(value)) {
      stored.set(name, value);
      continue;
    }
    externalInputs.set(name, { offset: total, length: value.data.byteLength });
    total += Math.ceil(value.data.byteLength / PADDING) * PADDING;
  }
  const bytes = total > 0 ? new Uint8Array(total) : undefined;
  for (const [name, { offset }] of externalInputs) {
    const { data } = constants.get(name) as Value;
    bytes!.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), offset);
  }
  if (total > 0 && stored.size > 0)
    throw new Error(
      `fixed inputs must all be in memory, as ${[...externalInputs.keys()][0]} is, or all in files, as ${[...stored.keys()][0]} is`,
    );
  const paths = new Map([...stored.values()].map(({ path }) => [path, realpathSync(path)]));
  const folder = commonFolder([...paths.values()]);
  for (const [name, { path, offset, dtype, dims }] of stored)
    externalInputs.set(name, {
      location: relative(folder!, paths.get(path)!).split(sep).join('/'),
      offset,
      length: dims.reduce((a, b) => a * b, byteSizes[dtype]),
    });
  return { externalInputs, bytes, folder };
}

function commonFolder(paths: readonly string[]): string | undefined {
  if (paths.length === 0) return undefined;
  let folder = dirname(paths[0]);
  while (!paths.every((path) => path.startsWith(folder.endsWith(sep) ? folder : folder + sep))) {
    if (dirname(folder) === folder) throw new Error(`${paths[0]} and ${paths.at(-1)} are on different disks; put them on one`);
    folder = dirname(folder);
  }
  return folder;
}

/** Names and shapes against the graph's inputs, named dims bound on first sight: one clear line instead of ORT's. */
export function checkInputs(inputs: ReadonlyMap<string, Tensor>, values: Readonly<Record<string, Constant>>): void {
  const bound = new Map<string, { size: number; by: string }>();
  for (const [name, tensor] of inputs) {
    const value = values[name];
    if (!value) throw new Error(`input ${name} is missing`);
    const describe = () =>
      `input ${name} is ${value.dtype} [${value.dims}], expected ${tensor.dtype} [${(tensor.dims as Dims).join(', ')}]`;
    if (value.dtype !== tensor.dtype || value.dims.length !== tensor.dims.length) throw new Error(describe());
    if (!isStored(value) && value.dims.reduce((a, b) => a * b, 1) !== value.data.length)
      throw new Error(`input ${name}: ${value.data.length} elements do not fill [${value.dims}]`);
    tensor.dims.forEach((dim, i) => {
      if (typeof dim === 'number') {
        if (dim !== value.dims[i]) throw new Error(describe());
        return;
      }
      const known = bound.get(dim);
      if (known && known.size !== value.dims[i]) throw new Error(`${describe()}, and ${dim} is ${known.size} in ${known.by}`);
      bound.set(dim, { size: value.dims[i], by: name });
    });
  }
}

function toOrt({ dtype, data, dims }: Value): OrtTensor {
  return new OrtTensor(dtype as 'float32', data as Float32Array, dims as number[]);
}

function fromOrt(tensor: OrtTensor): Value {
  return { dtype: tensor.type as Value['dtype'], data: tensor.data as TypedData, dims: tensor.dims };
}
