// The default engine: ONNX Runtime, whole from npm (CPU everywhere). `run` of the Node binding is synchronous inside: it blocks the
// event loop, so anything interactive runs it in a worker thread.

import { availableParallelism } from 'node:os';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { type Dims, inputName, type Tensor, type TypedData, topologicalOrder } from '../graph/tensor.ts';
import type { CompileOptions, Engine, Program, Value } from './engine.ts';
import { EXTERNAL_DATA_PATH, type LowerOptions, lower } from './onnx/lower.ts';

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
      const { externalInputs, bytes } = packConstants(constants);
      const model = lower(outputs, { externalInputs, fuse: options.fuse });
      const session = await InferenceSession.create(model, {
        executionProviders: ['cpu'],
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        graphOptimizationLevel: 'all',
        logSeverityLevel: 3,
        extra: { session: { intra_op: { allow_spinning: options.spin ? '1' : '0' }, force_spinning_stop: '1' } },
        ...(bytes ? { externalData: [{ path: EXTERNAL_DATA_PATH, data: bytes }] } : {}),
      });
      return {
        inputNames: [...inputs.keys()],
        async run(values) {
          checkInputs(inputs, values);
          const feeds: Record<string, OrtTensor> = {};
          for (const name of session.inputNames) feeds[name] = toOrt(values[name]);
          const results = await session.run(feeds);
          return Object.fromEntries(Object.entries(results).map(([name, tensor]) => [name, fromOrt(tensor)]));
        },
        dispose: () => session.release(),
      };
    },
  };
}

/** Lays the fixed inputs one after the other, aligned, as one external-data buffer. */
function packConstants(constants: ReadonlyMap<string, Value> | undefined) {
  if (!constants || constants.size === 0) return { externalInputs: undefined, bytes: undefined };
  const externalInputs = new Map<string, { offset: number; length: number }>();
  let total = 0;
  for (const [name, { data }] of constants) {
    externalInputs.set(name, { offset: total, length: data.byteLength });
    total += Math.ceil(data.byteLength / PADDING) * PADDING;
  }
  const bytes = new Uint8Array(total);
  for (const [name, { data }] of constants)
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), externalInputs.get(name)!.offset);
  return { externalInputs, bytes };
}

/** Names and shapes against the graph's inputs, named dims bound on first sight: one clear line instead of ORT's. */
export function checkInputs(inputs: ReadonlyMap<string, Tensor>, values: Readonly<Record<string, Value>>): void {
  const bound = new Map<string, { size: number; by: string }>();
  for (const [name, tensor] of inputs) {
    const value = values[name];
    if (!value) throw new Error(`input ${name} is missing`);
    const describe = () =>
      `input ${name} is ${value.dtype} [${value.dims}], expected ${tensor.dtype} [${(tensor.dims as Dims).join(', ')}]`;
    if (value.dtype !== tensor.dtype || value.dims.length !== tensor.dims.length) throw new Error(describe());
    if (value.dims.reduce((a, b) => a * b, 1) !== value.data.length)
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
