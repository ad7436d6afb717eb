// A program on a device. Its graph is cut into parts that share no state, so that what an update replaces is
// given back part by part; each part runs as a whole on the device, and only outputs that are asked for are
// read back, scalars together as one vector.

import { groupBy } from '../../arrays.ts';
import type { Outputs } from '../../graph/passes.ts';
import { concat, reshape } from '../../graph/primitives.ts';
import { inputName, type Tensor, topologicalOrder } from '../../graph/tensor.ts';
import {
  type CompileOptions,
  checkInputs,
  elementBytes,
  type Program,
  type RunOptions,
  type State,
  sizeOf,
  type Value,
  type Write,
} from '../engine.ts';
import { type ConstantLayout, inline } from '../onnx/constants.ts';
import type { Device, DeviceGraph } from './device.ts';
import { appendToSlots, DeviceSlotRange } from './device-slots.ts';
import { DeviceSequence, DeviceState } from './device-state.ts';
import type { RuntimeTensor } from './runtime.ts';

type DeviceMemory = DeviceState | DeviceSequence | DeviceSlotRange;
type Results = Readonly<Record<string, RuntimeTensor>>;

const writeName = (state: string) => `write ${state}`;
/** The output that holds all scalars. */
const SCALARS = 'all scalars';

const isScalar = ({ dtype, dims }: Tensor) => dtype === 'float32' && dims.length === 0;

/** Outputs and writes that are computed together. */
interface Part {
  outputs: Outputs;
  writes: Readonly<Record<string, Write>>;
}

interface ProgramOptions extends Pick<CompileOptions, 'writes' | 'packedAccuracy' | 'recompute'> {
  /** Stored weights are cast anew at each use. */
  recast?: boolean;
  /** Where the constants are, by name, or nothing where there are none. */
  layout?: ConstantLayout;
  /** Their names. */
  fixed: ReadonlySet<string>;
}

/** Compiles `outputs` and writes for a device. Errors as of `Engine.compile`. */
export async function compileProgram(device: Device, outputs: Outputs, options: ProgramOptions): Promise<Program> {
  const { writes = {}, layout, fixed } = options;
  const inputs = new Map<string, Tensor>();
  const everything = [...Object.values(outputs), ...Object.values(writes).map(({ tensor }) => tensor)];
  for (const tensor of topologicalOrder(everything))
    if (tensor.op === 'input' && !fixed.has(inputName(tensor))) inputs.set(inputName(tensor), tensor);
  const fed = new Map<string, RuntimeTensor>();
  const uploaded: RuntimeTensor[] = [];
  for (const [name, value] of layout?.fed ?? []) {
    const tensor = await device.upload(value);
    uploaded.push(tensor);
    fed.set(name, device.view(tensor, value.dims));
  }
  // a model is compiled once, whatever is asked of it: its weights would be in memory twice
  const parts = layout ? [{ outputs, writes }] : partsOf(outputs, writes);
  const compiled = parts.map((part) => new CompiledPart(device, part, options));
  if (layout) await compiled[0].variant(Object.keys(outputs));

  return {
    inputNames: [...inputs.keys()],
    outputNames: Object.keys(outputs),
    async run(values, { state = {}, outputs: wanted = Object.keys(outputs) }: RunOptions = {}) {
      const targets = writtenStates(writes, state);
      checkInputs(inputs, (name) => values[name] ?? (state[name] && { dtype: state[name].dtype, dims: state[name].dims }));
      const results: Record<string, Value> = {};
      for (const part of compiled) Object.assign(results, await part.run({ values, state, fed, wanted, targets }));
      return Object.fromEntries(wanted.map((name) => [name, results[name]]));
    },
    async dispose() {
      for (const part of compiled) await part.dispose();
      for (const tensor of uploaded) tensor.dispose();
    },
  };
}

// === Parts ===

/** Bytes that the writes of a part may replace, if there is more than one write. */
const PART_BYTES = 2 ** 26;

const bytesOf = ({ dtype, dims }: Tensor) => elementBytes[dtype] * sizeOf(dims.filter((dim) => typeof dim === 'number'));

/**
 * Outputs and writes in parts that have no input but scalars in common, so that the order of the parts
 * changes nothing; small ones together.
 */
function partsOf(outputs: Outputs, writes: Readonly<Record<string, Write>>): Part[] {
  const groupOf = new Map<string, string>();
  const root = (name: string): string => {
    const parent = groupOf.get(name);
    return parent === undefined || parent === name ? name : root(parent);
  };
  const touched = (tensor: Tensor, ...more: string[]): string => {
    const read = topologicalOrder([tensor]).filter((x) => x.op === 'input');
    const names = [...read.filter((x) => !isScalar(x)).map(inputName), ...more];
    for (const name of names) groupOf.set(root(name), root(names[0]));
    return names[0] ?? '';
  };
  const anchors = [
    ...Object.entries(outputs).map(([name, tensor]) => ({ name, tensor, anchor: touched(tensor) })),
    ...Object.entries(writes).map(([name, { tensor }]) => ({ name, tensor, anchor: touched(tensor, name), isWrite: true })),
  ];
  const groups = groupBy(anchors, ({ anchor }) => root(anchor));
  const parts: { outputs: Record<string, Tensor>; writes: Record<string, Write> }[] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const group of groups) {
    const own = group.reduce((sum, { tensor }) => sum + bytesOf(tensor), 0);
    if (bytes + own > PART_BYTES) {
      parts.push({ outputs: {}, writes: {} });
      bytes = 0;
    }
    bytes += own;
    const part = parts.at(-1)!;
    for (const { name, tensor, ...kind } of group)
      if ('isWrite' in kind) part.writes[name] = writes[name];
      else part.outputs[name] = tensor;
  }
  return parts;
}

/** What a run gives to its parts. */
interface PartRun {
  values: Readonly<Record<string, Value>>;
  state: Readonly<Record<string, State>>;
  fed: ReadonlyMap<string, RuntimeTensor>;
  wanted: readonly string[];
  targets: ReadonlyMap<string, DeviceMemory>;
}

/** A part with some of its outputs. */
interface Variant {
  graph: DeviceGraph;
  /** What it reads. */
  inputNames: readonly string[];
  /** The outputs that are scalars, which it gives as one vector. */
  scalars: readonly string[];
  others: readonly string[];
}

class CompiledPart {
  private readonly device: Device;
  private readonly part: Part;
  private readonly options: ProgramOptions;
  /** By the outputs that they have. */
  private readonly variants = new Map<string, Promise<Variant>>();

  constructor(device: Device, part: Part, options: ProgramOptions) {
    this.device = device;
    this.part = part;
    this.options = options;
  }

  /** The part with these outputs, compiled when it is first asked for. */
  variant(outputs: readonly string[]): Promise<Variant> {
    const key = outputs.join();
    const variant = this.variants.get(key) ?? this.open(outputs);
    this.variants.set(key, variant);
    variant.catch(() => this.variants.delete(key));
    return variant;
  }

  private async open(outputs: readonly string[]): Promise<Variant> {
    const { layout, packedAccuracy, recast, recompute } = this.options;
    const [scalars, others] = [true, false].map((wanted) => outputs.filter((name) => isScalar(this.part.outputs[name]) === wanted));
    const graph: Record<string, Tensor> = Object.fromEntries(others.map((name) => [name, this.part.outputs[name]]));
    if (scalars.length > 0)
      graph[SCALARS] = concat(
        scalars.map((name) => reshape(this.part.outputs[name], [1])),
        0,
      );
    const forward = Object.keys(graph);
    for (const [name, { tensor }] of Object.entries(this.part.writes)) graph[writeName(name)] = tensor;
    const read = topologicalOrder(Object.values(graph)).filter((tensor) => tensor.op === 'input');
    const opened = await this.device.open(layout ? inline(graph, layout.inlineInputs) : graph, {
      layout,
      packedAccuracy,
      recast,
      recompute: recompute && { forward, what: recompute },
    });
    return { graph: opened, inputNames: read.map(inputName), scalars, others };
  }

  /** Runs the part, does its writes, and reads back what is wanted of it. */
  async run({ values, state, fed, wanted, targets }: PartRun): Promise<Record<string, Value>> {
    const { device, part } = this;
    const own = Object.keys(part.outputs).filter((name) => wanted.includes(name));
    const computed = this.options.layout ? Object.keys(part.outputs) : own;
    if (computed.length === 0 && Object.keys(part.writes).length === 0) return {};
    const { graph, inputNames, scalars, others } = await this.variant(computed);
    const feeds = new Map(fed);
    for (const name of inputNames)
      if (values[name]) feeds.set(name, device.fromHost(values[name]));
      else if (state[name]) feeds.set(name, await deviceMemory(name, state[name]).tensor());
    const results = await graph.run((name) => feeds.get(name)!);
    const left = new Set(Object.values(results));
    try {
      await this.write(results, targets, left);
      const given: Record<string, Value> = {};
      if (own.some((name) => scalars.includes(name))) {
        const numbers = (await device.download(results[SCALARS])) as Float32Array;
        scalars.forEach((name, i) => {
          given[name] = { dtype: 'float32', dims: [], data: numbers.slice(i, i + 1) };
        });
      }
      for (const name of others)
        if (own.includes(name)) {
          const { dtype } = part.outputs[name];
          given[name] = { dtype, dims: [...results[name].dims], data: await device.download(results[name]) };
        }
      return given;
    } finally {
      for (const tensor of left) tensor.dispose();
    }
  }

  /** Does to the states what the writes say; what a state takes over is no longer among what is `left`. */
  private async write(results: Results, targets: ReadonlyMap<string, DeviceMemory>, left: Set<RuntimeTensor>): Promise<void> {
    const appended: { target: DeviceSequence; tensor: RuntimeTensor }[] = [];
    const joining: { target: DeviceSlotRange; tensor: RuntimeTensor }[] = [];
    for (const [name, { mode }] of Object.entries(this.part.writes)) {
      const target = targets.get(name)!;
      const tensor = results[writeName(name)];
      if (target instanceof DeviceState) {
        left.delete(tensor);
        if (mode === 'add') await target.add(tensor);
        else target.adopt(tensor);
        continue;
      }
      if (mode === 'replace') target.clear();
      if (target instanceof DeviceSequence) appended.push({ target, tensor });
      else joining.push({ target, tensor });
    }
    if (appended.length > 0) await appendAll(this.device, appended);
    if (joining.length > 0) await appendToSlots(this.device, joining);
  }

  async dispose(): Promise<void> {
    for (const variant of this.variants.values()) await (await variant).graph.dispose();
  }
}

/**
 * Adds to each sequence the positions of a tensor, in one run. Even the first ones are copied: buffers of a
 * program would keep it, with its weights, as long as a cache is there.
 */
async function appendAll(device: Device, appended: readonly { target: DeviceSequence; tensor: RuntimeTensor }[]): Promise<void> {
  const firsts: RuntimeTensor[] = [];
  for (const { target } of appended) firsts.push(await target.tensor());
  const joined = await device.joined(appended.map(({ target: { axis }, tensor }, i) => ({ first: firsts[i], second: tensor, axis })));
  appended.forEach(({ target, tensor }, i) => {
    const { axis, dims } = target;
    target.adopt(joined[i], dims.with(axis, dims[axis] + tensor.dims[axis]));
  });
}

// === State ===

/** The memory of a state. Throws an Error for what another engine made. */
function deviceMemory(name: string, state: State): DeviceMemory {
  if (state instanceof DeviceState || state instanceof DeviceSequence || state instanceof DeviceSlotRange) return state;
  throw new Error(`state ${name} belongs to another engine`);
}

/**
 * The states that `writes` name. Throws an Error for one that is missing or that grows where it must not, or
 * the other way.
 */
function writtenStates(writes: Readonly<Record<string, Write>>, given: Readonly<Record<string, State>>): Map<string, DeviceMemory> {
  return new Map(
    Object.entries(writes).map(([name, { mode }]) => {
      if (!given[name]) throw new Error(`state ${name} is missing`);
      const state = deviceMemory(name, given[name]);
      if (mode === 'append' && state instanceof DeviceState) throw new Error(`state ${name} does not grow: nothing can be appended`);
      if (mode === 'add' && !(state instanceof DeviceState)) throw new Error(`state ${name} grows: nothing can be added to it`);
      return [name, state];
    }),
  );
}
