// A device of WebGPU behind ONNX Runtime: sessions that run on it as a whole, and what is done to buffers
// outside of programs. Every such deed is a small graph, run like any other.

import { type Dims, dimSize } from '../../graph/dims.ts';
import type { Outputs } from '../../graph/passes.ts';
import { add, cast, concat, gather } from '../../graph/primitives.ts';
import { type DType, input, type TypedData } from '../../graph/tensor.ts';
import { sizeOf, type Value } from '../engine.ts';
import { zeros } from '../host-state.ts';
import type { ConstantLayout } from '../onnx/constants.ts';
import { type LowerOptions, lowerToModel, RECAST_EXTRA } from '../onnx/lower.ts';
import { encodeModel, type OnnxValue } from '../onnx/writer.ts';
import { DeviceError, describedFailure } from './failure.ts';
import type { Runtime, RuntimeSession, RuntimeTensor } from './runtime.ts';

export interface DeviceOptions {
  /** Options of the provider, such as `deviceId` or `powerPreference`. */
  provider?: Readonly<Record<string, unknown>>;
  /** Options of every session, such as those that ask for a profile. */
  session?: Readonly<Record<string, unknown>>;
}

/** A graph on the device. */
export interface DeviceGraph {
  /**
   * Runs once. The results stay on the device, unless it was opened otherwise. They are not fed as they are,
   * but as a `view`.
   */
  run(feed: (name: string) => RuntimeTensor): Promise<Readonly<Record<string, RuntimeTensor>>>;
  dispose(): Promise<void>;
}

type OpenOptions = Pick<LowerOptions, 'packedAccuracy' | 'recast' | 'recompute'> & {
  layout?: Pick<ConstantLayout, 'externalInputs' | 'buffers' | 'folder'>;
  /** Where results are left. Default: on the device. */
  results?: 'gpu-buffer' | 'cpu';
};

/** Rows of `width` elements each, picked from those of several tensors, counted one behind the other. */
export interface Selection {
  dtype: DType;
  width: number;
  sources: readonly RuntimeTensor[];
  rows: Int32Array;
}

/**
 * The buffers that a session has given out. Giving one back, or collecting it as garbage, crashes where the
 * session is gone (ONNX Runtime 1.30): so it stays until the last of them is given back.
 */
class SessionBuffers {
  private readonly session: RuntimeSession;
  private count = 0;
  private isEnding = false;

  constructor(session: RuntimeSession) {
    this.session = session;
  }

  /** The same tensors, counted until they are disposed of. */
  own(tensors: Readonly<Record<string, RuntimeTensor>>): Record<string, RuntimeTensor> {
    return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, this.counted(tensor)]));
  }

  private counted(tensor: RuntimeTensor): RuntimeTensor {
    const { type, dims, location } = tensor;
    if (location === 'cpu') return tensor;
    this.count++;
    const dispose = () => {
      tensor.dispose();
      this.count--;
      if (this.count === 0 && this.isEnding) void this.session.release();
    };
    return { type, dims, location, data: undefined, gpuBuffer: tensor.gpuBuffer, dispose };
  }

  async release(): Promise<void> {
    this.isEnding = true;
    if (this.count === 0) await this.session.release();
  }
}

export class Device {
  readonly runtime: Runtime;
  private readonly options: DeviceOptions;
  private readonly deeds = new Map<string, Promise<DeviceGraph>>();
  private float16: Promise<boolean> | undefined;

  constructor(runtime: Runtime, options: DeviceOptions = {}) {
    this.runtime = runtime;
    this.options = options;
  }

  /**
   * A graph, none of whose nodes runs on the CPU. UserError where there is no adapter, or where a node has no
   * kernel.
   */
  async open(graph: Outputs, { layout, results = 'gpu-buffer', ...lowering }: OpenOptions = {}): Promise<DeviceGraph> {
    const { model, hostShapes } = lowerToModel(graph, { ...lowering, externalInputs: layout?.externalInputs, target: 'webgpu' });
    const { provider, session: sessionOptions } = this.options;
    const folder = layout?.folder;
    const session = await this.guarded(() =>
      this.runtime.InferenceSession.create(encodeModel(model), {
        executionProviders: [{ name: 'webgpu', ...provider }],
        preferredOutputLocation: results,
        logSeverityLevel: 4,
        extra: {
          session: {
            disable_cpu_ep_fallback: '1',
            ...(folder === undefined ? {} : { model_external_initializers_file_folder_path: folder }),
          },
          ...(lowering.recast ? RECAST_EXTRA : {}),
        },
        ...(layout && layout.buffers.length > 0 ? { externalData: layout.buffers } : {}),
        ...sessionOptions,
      }),
    );
    const given = model.inputs.filter(({ name }) => !hostShapes.has(name));
    const kept = new SessionBuffers(session);
    return {
      run: async (feed) => kept.own(await this.run(session, given, hostShapes, feed)),
      dispose: () => kept.release(),
    };
  }

  private run(
    session: RuntimeSession,
    given: readonly OnnxValue[],
    hostShapes: ReadonlyMap<string, Dims>,
    feed: (name: string) => RuntimeTensor,
  ): Promise<Readonly<Record<string, RuntimeTensor>>> {
    const feeds: Record<string, RuntimeTensor> = {};
    const sizes = new Map<Dims[number], number>();
    for (const { name, dims } of given) {
      const tensor = feed(name);
      if (session.inputNames.includes(name)) feeds[name] = tensor;
      dims.forEach((dim, axis) => {
        sizes.set(dim, tensor.dims[axis]);
      });
    }
    for (const [name, dims] of hostShapes) {
      const shape = dims.map((dim) => BigInt(dimSize(dim, (known) => sizes.get(known))));
      if (session.inputNames.includes(name)) feeds[name] = new this.runtime.Tensor('int64', BigInt64Array.from(shape), [shape.length]);
    }
    return this.guarded(() => session.run(feeds));
  }

  private async guarded<T>(body: () => Promise<T>): Promise<T> {
    try {
      return await body();
    } catch (error) {
      throw describedFailure(error);
    }
  }

  /** Whether its shaders compute in float16. */
  hasFloat16(): Promise<boolean> {
    this.float16 ??= this.tryFloat16();
    return this.float16;
  }

  // the runtime tells no features
  private async tryFloat16(): Promise<boolean> {
    const half = cast(input('x', 'float32', [4]), 'float16');
    const graph = await this.open({ y: cast(add(half, half), 'float32') });
    const x = this.fromHost({ dtype: 'float32', dims: [4], data: new Float32Array(4) });
    try {
      (await graph.run(() => x)).y.dispose();
      return true;
    } catch (error) {
      if (error instanceof DeviceError) return false;
      throw error;
    } finally {
      await graph.dispose();
    }
  }

  // === Tensors ===

  /** A value to be handed to a run from host memory. */
  fromHost({ dtype, data, dims }: Value): RuntimeTensor {
    return new this.runtime.Tensor(dtype, data, dims);
  }

  /** The same buffer, or the beginning of it, under other dims. It belongs to `tensor`. */
  view(tensor: RuntimeTensor, dims: readonly number[]): RuntimeTensor {
    // what has no elements is never on the device
    if (tensor.location === 'cpu') return new this.runtime.Tensor(tensor.type, tensor.data, dims);
    return this.runtime.Tensor.fromGpuBuffer(tensor.gpuBuffer, { dataType: tensor.type, dims });
  }

  private flat = (tensor: RuntimeTensor) => this.view(tensor, [sizeOf(tensor.dims)]);

  /** A copy of a value in a buffer of the device. */
  async upload(value: Value): Promise<RuntimeTensor> {
    const count = sizeOf(value.dims);
    if (count === 0) return this.fromHost(value);
    const { dtype, data } = inNumbers(value);
    const x = this.fromHost({ dtype, data, dims: [count] });
    return this.deed(`upload ${value.dtype}`, () => ({ y: cast(input('x', dtype, ['n']), value.dtype) }), { x });
  }

  /** What a buffer holds. */
  async download(tensor: RuntimeTensor): Promise<TypedData> {
    if (tensor.location === 'cpu') return bitsOf(tensor.data);
    const dtype = tensor.type as DType;
    const graph = () => ({ y: cast(input('x', dtype, ['n']), movedType(dtype)) });
    const { data } = await this.deed(`download ${dtype}`, graph, { x: this.flat(tensor) }, 'cpu');
    return isByte(dtype) ? Uint8Array.from(data as Int32Array) : bitsOf(data);
  }

  zeros(dtype: DType, dims: readonly number[]): Promise<RuntimeTensor> {
    return this.upload({ dtype, dims, data: zeros(dtype, sizeOf(dims)) });
  }

  /** a + b, element by element. */
  sum(a: RuntimeTensor, b: RuntimeTensor): Promise<RuntimeTensor> {
    const dtype = a.type as DType;
    const graph = () => ({ y: add(input('a', dtype, ['n']), input('b', dtype, ['n'])) });
    return this.deed(`sum ${dtype}`, graph, { a: this.flat(a), b: this.flat(b) });
  }

  /** [rows, width] of each selection, all in one run. */
  async select(selections: readonly Selection[]): Promise<RuntimeTensor[]> {
    // those that select the same rows are handed them once
    const lists = [...new Set(selections.map(({ rows }) => rows))];
    const sides = selections.map(({ rows, sources, ...side }) => ({ ...side, list: lists.indexOf(rows), count: sources.length }));
    const source = (i: number, j: number) => `source${i} ${j}`;
    const graph = () =>
      Object.fromEntries(
        sides.map(({ dtype, width, list, count }, i) => {
          const sources = Array.from({ length: count }, (_, j) => input(source(i, j), dtype, [source(i, j), width]));
          return [`y${i}`, gather(count > 1 ? concat(sources, 0) : sources[0], input(`rows${list}`, 'int32', [`rows${list}`]))];
        }),
      );
    const feeds: Record<string, RuntimeTensor> = {};
    lists.forEach((data, i) => {
      feeds[`rows${i}`] = this.fromHost({ dtype: 'int32', dims: [data.length], data });
    });
    selections.forEach(({ sources, width }, i) => {
      sources.forEach((tensor, j) => {
        feeds[source(i, j)] = this.view(tensor, [sizeOf(tensor.dims) / width, width]);
      });
    });
    const key = sides.map(({ dtype, width, list, count }) => `${dtype} ${width} ${list} ${count}`).join();
    const results = await (await this.graphOf(`select ${key}`, graph)).run((name) => feeds[name]);
    return selections.map((_, i) => results[`y${i}`]);
  }

  /** Each of the pairs joined along its axis. */
  async joined(pairs: readonly { first: RuntimeTensor; second: RuntimeTensor; axis: number }[]): Promise<RuntimeTensor[]> {
    const sides = pairs.map(({ first, second, axis }) => {
      const [before, after] = [sizeOf(first.dims.slice(0, axis)), sizeOf(first.dims.slice(axis + 1))];
      const flat = (tensor: RuntimeTensor) => this.view(tensor, [before, tensor.dims[axis], after]);
      return { dtype: first.type as DType, before, after, first: flat(first), second: flat(second) };
    });
    const key = sides.map(({ dtype, before, after }) => `${dtype} ${before} ${after}`).join();
    const graph = () =>
      Object.fromEntries(
        sides.map(({ dtype, before, after }, i) => {
          const side = (name: string) => input(`${name}${i}`, dtype, [before, `${name}${i}`, after]);
          return [`y${i}`, concat([side('first'), side('second')], 1)];
        }),
      );
    const feeds: Record<string, RuntimeTensor> = {};
    sides.forEach(({ first, second }, i) => {
      Object.assign(feeds, { [`first${i}`]: first, [`second${i}`]: second });
    });
    const results = await (await this.graphOf(`join ${key}`, graph)).run((name) => feeds[name]);
    return pairs.map((_, i) => results[`y${i}`]);
  }

  /** Runs a graph that is compiled once, and gives its result `y`. */
  private async deed(
    key: string,
    graph: () => Outputs,
    feeds: Readonly<Record<string, RuntimeTensor>>,
    results?: OpenOptions['results'],
  ): Promise<RuntimeTensor> {
    return (await (await this.graphOf(key, graph, results)).run((name) => feeds[name])).y;
  }

  private graphOf(key: string, graph: () => Outputs, results?: OpenOptions['results']): Promise<DeviceGraph> {
    const opened = this.deeds.get(key) ?? this.open(graph(), { results });
    this.deeds.set(key, opened);
    opened.catch(() => this.deeds.delete(key));
    return opened;
  }
}

/** Bytes are moved as numbers: no kernel of the provider copies them. */
const isByte = (dtype: DType) => dtype === 'bool' || dtype === 'uint8';
const movedType = (dtype: DType): DType => (isByte(dtype) ? 'int32' : dtype);

const inNumbers = ({ dtype, data }: Value) =>
  isByte(dtype) ? { dtype: movedType(dtype), data: Int32Array.from(data as Uint8Array) } : { dtype, data };

/** The runtime's data as ours: a Float16Array, where JavaScript has one, as the bits that it holds. */
function bitsOf(data: unknown): TypedData {
  const { buffer, byteOffset, length } = data as Uint16Array;
  return (data as object).constructor.name === 'Float16Array' ? new Uint16Array(buffer, byteOffset, length) : (data as TypedData);
}
