// An ONNX graph in the making: names of values, nodes, initializers, and shapes that are read at run time.
// What each op of ours becomes is in lower.ts; the bytes are writer.ts's.

import type { BlockFormat } from '../../floats.ts';
import { computeDim, type Dims, dimSize, formatDims, sameDims } from '../../graph/dims.ts';
import type { Outputs } from '../../graph/passes.ts';
import { type DType, type Tensor, type TensorOf, type TypedData, typedData } from '../../graph/tensor.ts';
import { EXTERNAL_DATA_PATH, type ExternalData } from './packed.ts';
import {
  ELEMENT_TYPES,
  MICROSOFT,
  type OnnxAttributes,
  type OnnxGraph,
  type OnnxInitializer,
  type OnnxModel,
  type OnnxNode,
  type OnnxValue,
} from './writer.ts';

/** Type and dims of a value. */
export type ValueShape = Pick<OnnxValue, 'dtype' | 'dims'>;

/** A model, and the shapes of the values in it that are known. */
export interface ShapedModel {
  model: OnnxModel;
  shapes: ReadonlyMap<string, ValueShape>;
  /**
   * Inputs, int64 [rank], that each run must give beside those of the graph: the dims that each holds, of
   * whose names the graph's inputs tell the sizes.
   */
  hostShapes: ReadonlyMap<string, Dims>;
}

export interface BuilderOptions {
  /**
   * Whether shapes with named dims are inputs of the model, which the caller computes. Otherwise nodes do,
   * which no provider for a device runs there: ONNX Runtime puts them on the CPU.
   */
  shapesFromHost?: boolean;
}

export class GraphBuilder {
  private readonly nodes: OnnxNode[] = [];
  /** Nodes that are written before all others. */
  private readonly leading: OnnxNode[] = [];
  private readonly inputs: OnnxValue[] = [];
  private readonly initializers: OnnxInitializer[] = [];
  private readonly constants = new Map<string, string>();
  /** Where each named dimension can be read at run time: an input and an axis. */
  private readonly dimSources = new Map<string, { name: string; axis: number }>();
  private readonly external: ReadonlyMap<string, ExternalData>;
  private readonly shapesFromHost: boolean;
  private readonly hostShapes = new Map<string, Dims>();
  private readonly shared = new Map<string, unknown>();
  private readonly shapes = new Map<string, ValueShape>();
  /** What values of other dims look at, and its dims. */
  private readonly views = new Map<string, { source: string; dims: Dims }>();
  private target = this.nodes;
  private counter = 0;
  private nodeCount = 0;

  /** Inputs that `external` names become initializers whose bytes lie there. */
  constructor(external: ReadonlyMap<string, ExternalData>, { shapesFromHost = false }: BuilderOptions = {}) {
    this.external = external;
    this.shapesFromHost = shapesFromHost;
  }

  // === Values ===

  /** The value of an input: an input of the model, whose named dims can then be read, or an initializer. */
  input({ attributes: { name }, dtype, dims }: TensorOf<'input'>): string {
    if (this.external.has(name)) {
      this.externalInitializer(name, name, dtype, dims as number[]);
      return name;
    }
    if (dtype === 'bfloat16')
      throw new Error(`input ${name}: onnxruntime-node passes no bfloat16 in; fix its value as a constant, or pass float32 and cast`);
    this.inputs.push({ name, dtype, dims });
    dims.forEach((dim, axis) => {
      if (typeof dim === 'string' && !this.dimSources.has(dim)) this.dimSources.set(dim, { name, axis });
    });
    return name;
  }

  /** Adds a node; the name of its result. */
  node(opType: string, inputs: readonly string[], attributes: OnnxAttributes = {}, domain = '', output = this.fresh()): string {
    const name = this.nodeName(opType);
    this.target.push({ opType, domain, name, inputs, outputs: [output], attributes });
    return output;
  }

  /** Says what shape a value has, for those who ask how much memory it takes; returns its name. */
  shaped(value: string, { dtype, dims }: ValueShape): string {
    this.shapes.set(value, { dtype, dims });
    return value;
  }

  private nodeName(opType: string): string {
    return `${opType}_${this.nodeCount++}`;
  }

  /** A name that no input has. */
  private fresh(): string {
    return `%${this.counter++}`;
  }

  /**
   * The nodes that `emit` adds go before all others, also before those that they read: the runtime sorts
   * them, but takes their places into account (lower.ts).
   */
  lead(emit: () => string): string {
    this.target = this.leading;
    const name = emit();
    this.target = this.nodes;
    return name;
  }

  /**
   * A loop over the pieces of `over` along their first axis, one after the other: `body` adds the nodes that
   * make the next state of the one before and a piece of each. Returns the last state.
   */
  scan(state: readonly OnnxValue[], over: readonly OnnxValue[], body: (state: string[], pieces: string[]) => string[]): string[] {
    const named = () => state.map((value) => ({ ...value, name: this.fresh() }));
    const before = named();
    const pieces = over.map((value) => ({ ...value, name: this.fresh(), dims: value.dims.slice(1) }));
    const { target } = this;
    const nodes: OnnxNode[] = [];
    this.target = nodes;
    const names = (values: OnnxValue[]) => values.map(({ name }) => name);
    const after = body(names(before), names(pieces)).map((name, i) => ({ ...state[i], name }));
    this.target = target;
    const graph = { name: 'piece', nodes, inputs: [...before, ...pieces], outputs: after, initializers: [] };
    const inputs = names([...state, ...over]);
    const outputs = named().map((value) => this.shaped(value.name, value));
    const name = this.nodeName('Scan');
    target.push({ opType: 'Scan', domain: '', name, inputs, outputs, attributes: { body: { graph }, num_scan_inputs: over.length } });
    return outputs;
  }

  /** What `make` has given for `key` before, or gives now: results that several tensors share. */
  once<T>(key: string, make: () => T): T {
    if (!this.shared.has(key)) this.shared.set(key, make());
    return this.shared.get(key) as T;
  }

  cast(value: string, to: DType): string {
    return this.node('Cast', [value], { to: ELEMENT_TYPES[to] });
  }

  /** Name of an initializer; equal ones are stored once. */
  initializer(data: TypedData, dims: readonly number[], dtype: DType): string {
    const key = data.length <= 16 ? `${dtype}[${dims}]${data.join()}` : undefined;
    const known = key && this.constants.get(key);
    if (known) return known;
    const name = `%c${this.initializers.length}`;
    this.initializers.push({ name, dtype, dims, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) });
    if (key) this.constants.set(key, name);
    return name;
  }

  int64(values: readonly number[]): string {
    return this.initializer(typedData(values, 'int64'), [values.length], 'int64');
  }

  /** One number, dims [1]. */
  number(value: number, dtype: DType): string {
    return this.initializer(typedData([value], dtype), [1], dtype);
  }

  /** A value with one more dim, of size 1, at the end. */
  column(value: string): string {
    return this.node('Unsqueeze', [value, this.int64([-1])]);
  }

  /**
   * A value of `from` under other dims. A view of a view is one of what that looks at, and nothing where the
   * dims are those: each node costs a provider its time, though it moves nothing.
   */
  view(value: string, from: Dims, to: Dims): string {
    const { source, dims } = this.views.get(value) ?? { source: value, dims: from };
    if (sameDims(dims, to)) return source;
    return this.once(`view ${source} ${formatDims(to)}`, () => {
      const view = this.node('Reshape', [source, this.reshapeTarget(dims, to)]);
      this.views.set(view, { source, dims });
      return view;
    });
  }

  zeros(dims: Dims, dtype: DType): string {
    const zero = this.number(0, dtype);
    return this.shaped(this.node('Expand', [zero, this.shape(dims)]), { dtype, dims });
  }

  /**
   * A packed weight [rows, bytes], the value `source`, as [rows, blocks, bytes of a block]: of a fixed one a
   * second view of its bytes.
   */
  packedBlocks(source: string, packed: Tensor, blockBytes: number): string {
    const [rows, bytes] = packed.dims as number[];
    const dims = [rows, bytes / blockBytes, blockBytes];
    if (!this.external.has(source)) return this.node('Reshape', [source, this.int64(dims)]);
    const name = `${source}%blocks`;
    if (!this.constants.has(name)) this.externalInitializer(name, source, packed.dtype, dims);
    this.constants.set(name, name);
    return name;
  }

  /** A packed weight [rows, bytes] with a scale a block, as the matrix of `dims` that it stands for. */
  unpacked(packed: string, scale: string, { bits, blockSize }: BlockFormat, [rows, columns]: readonly number[], dtype: DType): string {
    let whole = packed;
    if (bits === 4) {
      const low = this.node('BitwiseAnd', [packed, this.number(15, 'uint8')]);
      const high = this.node('BitShift', [packed, this.number(4, 'uint8')], { direction: 'RIGHT' });
      whole = this.node('Concat', [this.column(low), this.column(high)], { axis: -1 });
    }
    const blocks = this.node('Reshape', [whole, this.int64([rows, columns / blockSize, blockSize])]);
    const centered = this.node('Sub', [this.cast(blocks, dtype), this.number(2 ** (bits - 1), dtype)]);
    const values = this.node('Mul', [centered, this.column(scale)]);
    return this.node('Reshape', [values, this.int64([rows, columns])]);
  }

  /**
   * The same of a matrix of so many rows by looking up all of them, for a provider that takes bytes apart in
   * that kernel alone.
   */
  unpackedByGather(packed: string, scale: string, { bits, blockSize }: BlockFormat, rows: number): string {
    const all = this.initializer(
      Int32Array.from({ length: rows }, (_, row) => row),
      [rows],
      'int32',
    );
    const attributes = { gather_axis: 0, quantize_axis: 1, bits, block_size: blockSize };
    return this.node('GatherBlockQuantized', [packed, all, scale], attributes, MICROSOFT);
  }

  private externalInitializer(name: string, source: string, dtype: DType, dims: readonly number[]): void {
    const { location = EXTERNAL_DATA_PATH, offset, length } = this.external.get(source)!;
    this.initializers.push({ name, dtype, dims, data: { location, offset, length } });
  }

  // === Shapes ===

  /** A shape operand. Named dims are read from the graph inputs that carry them. */
  shape(dims: Dims): string {
    if (dims.every((dim) => typeof dim === 'number')) return this.int64(dims);
    if (this.shapesFromHost) return this.hostShape(dims);
    return this.node(
      'Concat',
      dims.map((dim) =>
        computeDim(dim, {
          number: (size) => this.int64([size]),
          known: (name) => this.dimSource(name),
          add: (a, b) => this.node('Add', [a, b]),
          multiply: (a, b) => this.node('Mul', [a, b]),
        }),
      ),
      { axis: 0 },
    );
  }

  /** A shape as an input of the model. */
  private hostShape(dims: Dims): string {
    const name = `%shape ${formatDims(dims)}`;
    // throws for a name that no input carries
    for (const dim of dims) dimSize(dim, (known) => (this.dimSources.has(known) ? 1 : undefined));
    this.hostShapes.set(name, dims);
    return name;
  }

  /** A dim as an int64 tensor of one element, where an input carries it. */
  private dimSource(dim: string): string | undefined {
    const source = this.dimSources.get(dim);
    if (!source) return undefined;
    const shape = this.node('Shape', [source.name]);
    return this.node('Slice', [shape, this.int64([source.axis]), this.int64([source.axis + 1])]);
  }

  /**
   * Shape operand of Reshape: 0 copies a dim in place, one -1 is inferred; only the rest is read from inputs.
   */
  reshapeTarget(from: Dims, to: Dims): string {
    const target = to.map((dim, i) => (typeof dim === 'number' ? dim : dim === from[i] ? 0 : undefined));
    const open = target.filter((dim) => dim === undefined).length;
    if (open > 1) return this.shape(to);
    return this.int64(target.map((dim) => dim ?? -1));
  }

  // === Model ===

  /** The model whose outputs are the values that `nameOf` gives for tensors. */
  model(outputs: Outputs, nameOf: (tensor: Tensor) => string): ShapedModel {
    // a node's result takes the name of the output; an input, or a node that is an output already, is copied
    // by Identity
    const inputNames = new Set([...this.inputs, ...this.initializers].map(({ name }) => name));
    const renamed = new Map<string, string>();
    const graphOutputs = Object.entries(outputs).map(([name, tensor]): OnnxValue => {
      const { dtype, dims } = tensor;
      if (dtype === 'bfloat16') throw new Error(`output ${name}: onnxruntime-node hands no bfloat16 out; cast it`);
      if (inputNames.has(name)) throw new Error(`output ${name} has the name of an input`);
      const inner = nameOf(tensor);
      if (inputNames.has(inner) || renamed.has(inner)) this.node('Identity', [inner], {}, '', name);
      else renamed.set(inner, name);
      return { name, dtype, dims };
    });
    const read = new Set([...this.leading, ...this.nodes].flatMap(({ inputs }) => inputs));
    const isUnread = ({ outputs: [name] }: OnnxNode) => this.views.has(name) && !read.has(name) && !renamed.has(name);
    const rename = (names: readonly string[]) => names.map((name) => renamed.get(name) ?? name);
    const renameNode = (node: OnnxNode): OnnxNode => {
      const attributes = Object.entries(node.attributes).map(([key, value]) => {
        const { graph } = value as { graph?: OnnxGraph };
        return [key, graph ? { graph: { ...graph, nodes: graph.nodes.map(renameNode) } } : value];
      });
      return { ...node, inputs: rename(node.inputs), outputs: rename(node.outputs), attributes: Object.fromEntries(attributes) };
    };
    const model = {
      producer: 'llava-gemma',
      name: 'graph',
      nodes: [...this.leading, ...this.nodes].filter((node) => !isUnread(node)).map(renameNode),
      inputs: [...this.inputs, ...[...this.hostShapes].map(([name, { length }]): OnnxValue => ({ name, dtype: 'int64', dims: [length] }))],
      outputs: graphOutputs,
      initializers: this.initializers,
    };
    const shapes = new Map([...this.shapes].map(([name, shape]) => [renamed.get(name) ?? name, shape]));
    return { model, shapes, hostShapes: this.hostShapes };
  }
}
