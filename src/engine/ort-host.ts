// ONNX Runtime on a CPU, with state in host memory that is updated in place. The package is handed in, with
// what differs between onnxruntime-node and onnxruntime-web: nothing here is of Node or of a browser.

import type { Tensor, TypedData } from '../graph/tensor.ts';
import { divideWork, loweringOf, writeName } from './divide.ts';
import {
  type CompileOptions,
  type Constant,
  checkInputs,
  type Engine,
  type Program,
  type RunOptions,
  type State,
  type Value,
  type Write,
} from './engine.ts';
import { runAdamW, sumOfSquares } from './host-kernels.ts';
import { applyCopy, applyWrite, type HostMemory, hostMemory, writtenStates } from './host-memory.ts';
import { HostSlots } from './host-slots.ts';
import { HostSequence, HostState } from './host-state.ts';
import { type ConstantLayout, inline } from './onnx/constants.ts';
import { type LowerOptions, lower, RECAST_EXTRA } from './onnx/lower.ts';
import { addRows, pieceGraph } from './row-writes.ts';

// === What is handed in ===

/** A tensor of the package, in host memory. */
export interface HostTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly data: unknown;
}

interface HostSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /** Runs once. An output is computed into new memory (null), or into that of a tensor. */
  run(
    feeds: Readonly<Record<string, HostTensor>>,
    fetches: Readonly<Record<string, HostTensor | null>>,
  ): Promise<Readonly<Record<string, HostTensor>>>;
  release(): Promise<void>;
}

/** What is used of an ONNX Runtime package. */
export interface HostRuntime {
  readonly InferenceSession: { create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<HostSession> };
  readonly Tensor: new (type: string, data: unknown, dims: readonly number[]) => HostTensor;
}

export interface HostPlatform {
  /** Of the engine. */
  name: string;
  runtime: HostRuntime;
  fuse?: LowerOptions['fuse'];
  /** Options of every session, such as its threads; `session` are entries of its configuration. */
  sessionOptions: Readonly<Record<string, unknown>> & { session?: Readonly<Record<string, string>> };
  /** Whether a run writes into the memory of outputs that it is given. */
  fillsOutputs: boolean;
  /** Where a session finds constants. */
  layOut(constants: ReadonlyMap<string, Constant>): ConstantLayout | Promise<ConstantLayout>;
  /** Is called before a session begins that is to take as little memory as it can. */
  prepareLowMemory?(): Promise<unknown>;
  /** Frees what nobody needs any more, before each run of a program that is lean. */
  collectGarbage?(): Promise<void>;
}

type Outputs = Readonly<Record<string, Tensor>>;

/** An engine on the CPU provider of a package. */
export function createHostEngine(platform: HostPlatform): Engine {
  return {
    name: platform.name,
    compile: (outputs, compileOptions = {}) => compile(outputs, compileOptions, platform),
    state: ({ dtype, dims, data }) => new HostState(dtype, dims, data),
    zeros: (dtype, dims) => new HostState(dtype, dims),
    sequence: (dtype, dims, axis) => new HostSequence(dtype, dims, axis),
    slots: (dtype, dims, axis) => new HostSlots(dtype, dims, axis),
  };
}

async function compile(outputs: Outputs, compileOptions: CompileOptions, platform: HostPlatform): Promise<Program> {
  const { constants = new Map(), writes = {} } = compileOptions;
  const { updates, rows, copies, rest, hostNorms, hostChanges, operands, graph, forward, inputs, fixed } = divideWork(
    outputs,
    compileOptions,
  );
  checkInputs(fixed, (name) => constants.get(name));

  const used = new Map([...fixed.keys()].map((name) => [name, constants.get(name)!]));
  const session = Object.keys(graph).length > 0 ? await openSession(graph, used, forward, compileOptions, platform) : undefined;
  const pieces = new Map<string, Program[]>();
  for (const [name, { gradients }] of rows)
    pieces.set(name, await Promise.all(gradients.map((gradient) => compile(pieceGraph(gradient), {}, platform))));

  return {
    inputNames: [...inputs.keys()],
    outputNames: Object.keys(outputs),
    async run(values, { state = {}, outputs: wanted = Object.keys(outputs) }: RunOptions = {}) {
      const targets = writtenStates(writes, state);
      const value = valueReader(values, state);
      checkInputs(inputs, value);
      const results = session ? await session.run(value, [...wanted, ...Object.keys(operands)], rest, targets) : {};
      for (const [name, parts] of rows) {
        const operand = (part: string) => results[`${writeName(name)} ${part}`];
        await addRows(targets.get(name) as HostState, parts, operand, pieces.get(name)!, (weight) => value(weight)!);
      }
      for (const [name, { mode, from }] of copies) applyCopy(targets.get(name)!, mode, value(from)!);
      for (const [name, normed] of hostNorms)
        if (wanted.includes(name)) results[name] = scalar(sumOfSquares(value(normed)!.data as Float32Array));
      const changes = new Map<string, number>();
      for (const update of updates) {
        const change = runAdamW(
          update,
          (name) => hostMemory(name, state[name]) as HostState,
          (name) => value(name)!,
        );
        changes.set(update.parameter, change);
      }
      for (const [name, parameter] of hostChanges) results[name] = scalar(changes.get(parameter)!);
      return Object.fromEntries(wanted.map((name) => [name, results[name]]));
    },
    async dispose() {
      await session?.dispose();
      for (const program of [...pieces.values()].flat()) await program.dispose();
    },
  };
}

const scalar = (number: number): Value => ({ dtype: 'float32', dims: [], data: Float32Array.of(number) });

/** The value of an input at a run: given as such, or what a state holds. */
function valueReader(values: Readonly<Record<string, Value>>, state: Readonly<Record<string, State>>) {
  const known = new Map<string, Value>();
  return (name: string): Value | undefined => {
    if (values[name] || !state[name]) return values[name];
    const value = known.get(name) ?? hostMemory(name, state[name]).value();
    known.set(name, value);
    return value;
  };
}

// === Sessions ===

interface Session {
  /** Values of `wanted`; what `writes` say is done to `targets`. */
  run(
    value: (name: string) => Value | undefined,
    wanted: readonly string[],
    writes: Readonly<Record<string, Write>>,
    targets: ReadonlyMap<string, HostMemory>,
  ): Promise<Record<string, Value>>;
  dispose(): Promise<void>;
}

async function openSession(
  graph: Outputs,
  constants: ReadonlyMap<string, Constant>,
  forward: readonly string[],
  compileOptions: CompileOptions,
  platform: HostPlatform,
): Promise<Session> {
  const { lean = false } = compileOptions;
  const { runtime, fuse, fillsOutputs } = platform;
  const lowering = loweringOf(forward, compileOptions);
  const isLowMemory = lowering.recompute?.what === 'all';
  if (isLowMemory) await platform.prepareLowMemory?.();
  const { externalInputs, inlineInputs, fed, buffers, folder } = await platform.layOut(constants);
  const model = lower(inline(graph, inlineInputs), { externalInputs, fuse, ...lowering });
  const { session: sessionEntries = {}, ...own } = platform.sessionOptions;
  const session = await runtime.InferenceSession.create(model, {
    ...own,
    graphOptimizationLevel: 'all',
    logSeverityLevel: 3,
    ...(lean ? { enableMemPattern: false } : {}),
    // the arena keeps what a run has used: no page is touched for the first time again, but there are gaps
    enableCpuMemArena: !isLowMemory,
    extra: {
      session: {
        ...sessionEntries,
        ...(lean ? { disable_prepacking: '1' } : {}),
        ...(folder === undefined ? {} : { model_external_initializers_file_folder_path: folder }),
      },
      ...(lean ? RECAST_EXTRA : {}),
    },
    ...(buffers.length > 0 ? { externalData: buffers } : {}),
  });
  const toOrt = ({ dtype, data, dims }: Value) => new runtime.Tensor(dtype, data, dims);
  const outputNames = session.outputNames;
  return {
    async run(value, wanted, writes, targets) {
      if (lean) await platform.collectGarbage?.();
      const feeds: Record<string, HostTensor> = {};
      for (const name of session.inputNames) feeds[name] = toOrt(fed.get(name) ?? value(name)!);
      const fetches: Record<string, HostTensor | null> = {};
      for (const name of outputNames) if (wanted.includes(name)) fetches[name] = null;
      /** States whose memory the runtime fills itself. */
      const direct = new Set<string>();
      for (const [name, { mode }] of Object.entries(writes)) {
        const target = targets.get(name)!;
        const isRead = name in feeds;
        const fills = fillsOutputs && target instanceof HostState && !isRead && (mode === 'replace' || target.isCleared);
        fetches[writeName(name)] = fills ? toOrt({ dtype: target.dtype, dims: target.dims, data: target.memory() }) : null;
        if (fills) direct.add(name);
      }
      const results = await session.run(feeds, fetches);
      for (const [name, { mode }] of Object.entries(writes)) {
        const target = targets.get(name)!;
        if (direct.has(name)) (target as HostState).markSet();
        else applyWrite(target, mode, fromOrt(results[writeName(name)]));
      }
      return Object.fromEntries(Object.keys(fetches).flatMap((name) => (wanted.includes(name) ? [[name, fromOrt(results[name])]] : [])));
    },
    dispose: () => session.release(),
  };
}

function fromOrt({ type, data, dims }: HostTensor): Value {
  // where JavaScript has a Float16Array, the binding uses it; ours are bit patterns everywhere
  const isHalf = type === 'float16' && !(data instanceof Uint16Array);
  const { buffer, byteOffset, length } = data as Uint16Array;
  return { dtype: type as Value['dtype'], data: isHalf ? new Uint16Array(buffer, byteOffset, length) : (data as TypedData), dims };
}
