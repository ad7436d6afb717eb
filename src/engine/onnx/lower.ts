// Lowers a graph to an ONNX model (opset 21 and ORT's com.microsoft contrib ops). Follows onnx/docs/Operators.md and
// onnxruntime/docs/ContribOperators.md. The same model file serves onnxruntime-node, the browser and export.

import { create, toBinary } from '@bufbuild/protobuf';
import { expandComposites, mergeCommon, type Outputs, rewrite, simplify } from '../../graph/passes.ts';
import type { BlockFormat } from '../../graph/primitives.ts';
import {
  type Dims,
  type DType,
  dimProduct,
  inputName,
  sameDims,
  type Tensor,
  type TypedData,
  topologicalOrder,
} from '../../graph/tensor.ts';
import { type ExternalData, joinNeighbours, readPacked } from './packed.ts';
import {
  type AttributeProto,
  AttributeProtoSchema,
  AttributeProto_AttributeType as AttributeType,
  TensorProto_DataLocation as DataLocation,
  TensorProto_DataType as DataType,
  GraphProtoSchema,
  ModelProtoSchema,
  type NodeProto,
  NodeProtoSchema,
  OperatorSetIdProtoSchema,
  StringStringEntryProtoSchema,
  type TensorProto,
  TensorProtoSchema,
  type ValueInfoProto,
  ValueInfoProtoSchema,
} from './proto/onnx_pb.ts';

export const OPSET = 21;
/** Name under which the bytes of fixed inputs are handed to the runtime beside the model. */
export const EXTERNAL_DATA_PATH = 'constants.bin';

const MICROSOFT = 'com.microsoft';

const ONNX_TYPE: Record<DType, DataType> = {
  float32: DataType.FLOAT,
  float16: DataType.FLOAT16,
  bfloat16: DataType.BFLOAT16,
  int64: DataType.INT64,
  int32: DataType.INT32,
  bool: DataType.BOOL,
  int8: DataType.INT8,
  uint8: DataType.UINT8,
};

/** Ops that map to one ONNX op of the same operands. */
const DIRECT: Record<string, string> = {
  add: 'Add',
  sub: 'Sub',
  mul: 'Mul',
  div: 'Div',
  maximum: 'Max',
  neg: 'Neg',
  exp: 'Exp',
  log: 'Log',
  sqrt: 'Sqrt',
  tanh: 'Tanh',
  sigmoid: 'Sigmoid',
  erf: 'Erf',
  equal: 'Equal',
  greater: 'Greater',
  lessOrEqual: 'LessOrEqual',
  and: 'And',
  or: 'Or',
  where: 'Where',
};

const REDUCTIONS: Record<string, string> = { reduceSum: 'ReduceSum', reduceMean: 'ReduceMean', reduceMax: 'ReduceMax' };

/** Composites that ORT computes in one kernel. */
export const FUSED_KERNELS = ['rmsNorm', 'layerNorm', 'geluTanh', 'quickGelu'] as const;

export interface LowerOptions {
  /** Inputs that become initialisers with external data. By name. */
  externalInputs?: ReadonlyMap<string, ExternalData>;
  /** Composites left whole; the default keeps every fused kernel. */
  fuse?: readonly string[];
}

function attribute(name: string, value: number | string | readonly number[]): AttributeProto {
  if (typeof value === 'string')
    return create(AttributeProtoSchema, { name, type: AttributeType.STRING, s: new TextEncoder().encode(value) });
  if (typeof value === 'object') return create(AttributeProtoSchema, { name, type: AttributeType.INTS, ints: value.map(BigInt) });
  // ONNX tells ints from floats by attribute, not by value: floats are named here
  if (['alpha', 'epsilon'].includes(name)) return create(AttributeProtoSchema, { name, type: AttributeType.FLOAT, f: value });
  return create(AttributeProtoSchema, { name, type: AttributeType.INT, i: BigInt(value) });
}

function bytesOf(data: TypedData): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Serialised ONNX model of the outputs. Input and output names are kept; the order of inputs is that of first use. */
export function lower(outputs: Outputs, options: LowerOptions = {}): Uint8Array {
  const fuse = new Set<string>(options.fuse ?? FUSED_KERNELS);
  const external = new Map(options.externalInputs);
  const primitives = mergeCommon(simplify(mergeCommon(expandComposites(outputs, (op) => fuse.has(op)))));
  const graph = joinNeighbours(readPacked(scatterOntoSums(primitives)), external);
  const emitter = new Emitter(external);
  const order = topologicalOrder(Object.values(graph));
  for (const tensor of order) if (tensor.op === 'input') emitter.input(tensor);
  for (const tensor of order) if (tensor.op !== 'input') emitter.tensor(tensor);
  return emitter.model(graph);
}

/**
 * x + scatter(..) scatters onto x instead of onto zeros that are then added, in place where nobody else reads x: the one-hot part of a
 * loss costs one element a row, the rows of an embedding's gradient join the head's. Such a node carries x as a third input.
 */
function scatterOntoSums(outputs: Outputs): Outputs {
  const onto = (scatter: Tensor, base: Tensor) =>
    ['scatterAdd', 'putAlong'].includes(scatter.op) && scatter.inputs.length === 2 && sameDims(scatter.dims, base.dims)
      ? Object.freeze({ ...scatter, inputs: [...scatter.inputs, base] })
      : undefined;
  return rewrite(outputs, (node) => {
    if (node.op !== 'add') return node;
    const [a, b] = node.inputs;
    return onto(b, a) ?? onto(a, b) ?? node;
  });
}

class Emitter {
  private readonly nodes: NodeProto[] = [];
  private readonly inputs: ValueInfoProto[] = [];
  private readonly initializers: TensorProto[] = [];
  private readonly names = new Map<Tensor, string>();
  private readonly constants = new Map<string, string>();
  /** Where each named dimension can be read at run time: an input and an axis. */
  private readonly dimSources = new Map<string, { name: string; axis: number }>();
  private readonly external: ReadonlyMap<string, ExternalData>;
  private counter = 0;

  constructor(external: ReadonlyMap<string, ExternalData>) {
    this.external = external;
  }

  input(tensor: Tensor): void {
    const name = inputName(tensor);
    this.names.set(tensor, name);
    if (this.external.has(name)) {
      this.externalInitializer(name, name, tensor.dtype, tensor.dims as number[]);
      return;
    }
    this.inputs.push(valueInfo(name, tensor));
    tensor.dims.forEach((dim, axis) => {
      if (typeof dim === 'string' && !this.dimSources.has(dim)) this.dimSources.set(dim, { name, axis });
    });
  }

  /** An initialiser with the bytes of the fixed input `source`. */
  private externalInitializer(name: string, source: string, dtype: DType, dims: readonly number[]): void {
    const { location = EXTERNAL_DATA_PATH, offset, length } = this.external.get(source)!;
    const entries = { location, offset: String(offset), length: String(length) };
    this.initializers.push(
      create(TensorProtoSchema, {
        name,
        dataType: ONNX_TYPE[dtype],
        dims: dims.map(BigInt),
        dataLocation: DataLocation.EXTERNAL,
        externalData: Object.entries(entries).map(([key, value]) => create(StringStringEntryProtoSchema, { key, value })),
      }),
    );
  }

  /** A packed weight [rows, bytes] as MatMulNBits wants it, [rows, blocks, bytes of a block]: a second view of the same bytes. */
  private packedBlocks(packed: Tensor, blockBytes: number): string {
    const [rows, bytes] = packed.dims as number[];
    const dims = [rows, bytes / blockBytes, blockBytes];
    const source = this.names.get(packed)!;
    if (!this.external.has(source)) return this.node('Reshape', [source, this.int64(dims)]);
    const name = `${source}%blocks`;
    if (!this.constants.has(name)) this.externalInitializer(name, source, packed.dtype, dims);
    this.constants.set(name, name);
    return name;
  }

  tensor(tensor: Tensor): void {
    this.names.set(tensor, this.emit(tensor));
  }

  model(outputs: Outputs): Uint8Array {
    // a node's result takes the name of the output; an input, or a node that is an output already, is copied by Identity
    const inputNames = new Set([...this.inputs, ...this.initializers].map(({ name }) => name));
    const renamed = new Map<string, string>();
    const graphOutputs = Object.entries(outputs).map(([name, tensor]) => {
      if (inputNames.has(name)) throw new Error(`output ${name} has the name of an input`);
      const inner = this.names.get(tensor)!;
      if (inputNames.has(inner) || renamed.has(inner)) this.node('Identity', [inner], {}, '', name);
      else renamed.set(inner, name);
      return valueInfo(name, tensor);
    });
    for (const node of this.nodes) {
      node.input = node.input.map((name) => renamed.get(name) ?? name);
      node.output = node.output.map((name) => renamed.get(name) ?? name);
    }
    const opset = (domain: string, version: number) => create(OperatorSetIdProtoSchema, { domain, version: BigInt(version) });
    const model = create(ModelProtoSchema, {
      irVersion: 10n,
      producerName: 'llava-gemma',
      opsetImport: [opset('', OPSET), opset(MICROSOFT, 1)],
      graph: create(GraphProtoSchema, {
        name: 'graph',
        node: this.nodes,
        input: this.inputs,
        output: graphOutputs,
        initializer: this.initializers,
      }),
    });
    return toBinary(ModelProtoSchema, model);
  }

  private node(
    opType: string,
    inputs: string[],
    attributes: Record<string, number | string | readonly number[]> = {},
    domain = '',
    // no input is named so
    output = `%${this.counter++}`,
  ): string {
    this.nodes.push(
      create(NodeProtoSchema, {
        opType,
        domain,
        name: `${opType}_${this.nodes.length}`,
        input: inputs,
        output: [output],
        attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value)),
      }),
    );
    return output;
  }

  /** Name of an initialiser; equal ones are stored once. */
  private initializer(data: TypedData, dims: readonly number[], dtype: DType): string {
    const key = data.length <= 16 ? `${dtype}[${dims}]${data.join()}` : undefined;
    const known = key && this.constants.get(key);
    if (known) return known;
    const name = `%c${this.initializers.length}`;
    this.initializers.push(create(TensorProtoSchema, { name, dataType: ONNX_TYPE[dtype], dims: dims.map(BigInt), rawData: bytesOf(data) }));
    if (key) this.constants.set(key, name);
    return name;
  }

  private int64(values: readonly number[], scalar = false): string {
    return this.initializer(BigInt64Array.from(values, BigInt), scalar ? [] : [values.length], 'int64');
  }

  private scalarFloat(value: number): string {
    return this.initializer(Float32Array.of(value), [1], 'float32');
  }

  /** A shape operand. Named dims are read from the graph inputs that carry them. */
  private shape(dims: Dims): string {
    if (dims.every((dim) => typeof dim === 'number')) return this.int64(dims as number[]);
    return this.node(
      'Concat',
      dims.map((dim) => (typeof dim === 'number' ? this.int64([dim]) : this.dimValue(dim))),
      { axis: 0 },
    );
  }

  /** One named dim as an int64 tensor of one element. */
  private dimValue(dim: string): string {
    const source = this.dimSources.get(dim);
    if (source) {
      const shape = this.node('Shape', [source.name]);
      return this.node('Slice', [shape, this.int64([source.axis]), this.int64([source.axis + 1])]);
    }
    for (const [separator, op] of [
      ['+', 'Add'],
      ['*', 'Mul'],
    ] as const) {
      if (!dim.includes(separator)) continue;
      const parts = dim.split(separator).map((part) => (/^\d+$/.test(part) ? this.int64([Number(part)]) : this.dimValue(part)));
      return parts.reduce((a, b) => this.node(op, [a, b]));
    }
    throw new Error(`no graph input carries the dimension "${dim}"`);
  }

  /** Shape operand of Reshape: 0 copies a dim in place, one -1 is inferred; only what remains is read from inputs. */
  private reshapeTarget(from: Dims, to: Dims): string {
    const target: (number | undefined)[] = to.map((dim, i) => (typeof dim === 'number' ? dim : dim === from[i] ? 0 : undefined));
    const open = target.filter((dim) => dim === undefined).length;
    if (open > 1) return this.shape(to);
    return this.int64(target.map((dim) => dim ?? -1));
  }

  private zeros(dims: Dims): string {
    const zero = this.scalarFloat(0);
    return this.node('Expand', [zero, this.shape(dims)]);
  }

  private emit(tensor: Tensor): string {
    const inputs = tensor.inputs.map((x) => this.names.get(x)!);
    const { attributes } = tensor;
    const direct = DIRECT[tensor.op];
    if (direct) return this.node(direct, inputs);
    const reductionOp = REDUCTIONS[tensor.op];
    if (reductionOp)
      return this.node(reductionOp, [inputs[0], this.int64(attributes.axes as number[])], { keepdims: attributes.keepDims ? 1 : 0 });

    switch (tensor.op) {
      case 'constant':
        return this.initializer(attributes.data as TypedData, tensor.dims as number[], tensor.dtype);
      case 'cast':
        return this.node('Cast', inputs, { to: ONNX_TYPE[tensor.dtype] });
      case 'matmul': {
        const { transA, transB, alpha } = attributes as { transA: boolean; transB: boolean; alpha: number };
        if (!transA && !transB && alpha === 1) return this.node('MatMul', inputs);
        return this.node('FusedMatMul', inputs, { transA: Number(transA), transB: Number(transB), alpha }, MICROSOFT);
      }
      case 'softmax':
        return this.node('Softmax', inputs, { axis: -1 });
      case 'reshape':
        return this.node('Reshape', [inputs[0], this.reshapeTarget(tensor.inputs[0].dims, tensor.dims)]);
      case 'transpose':
        return this.node('Transpose', inputs, { perm: attributes.perm as number[] });
      case 'concat':
        return this.node('Concat', inputs, { axis: attributes.axis as number });
      case 'slice': {
        const { axis, start, end } = attributes as { axis: number; start: number; end: number };
        return this.node('Slice', [inputs[0], this.int64([start]), this.int64([end]), this.int64([axis])]);
      }
      case 'pad': {
        const { axis, before, after } = attributes as { axis: number; before: number; after: number };
        return this.node('Pad', [inputs[0], this.int64([before, after]), '', this.int64([axis])]);
      }
      case 'expand':
        return this.node('Expand', [inputs[0], this.shape(tensor.dims)]);
      case 'argmax':
        return this.node('Cast', [this.node('ArgMax', inputs, { axis: -1, keepdims: 0 })], { to: DataType.INT32 });
      case 'gather':
        return this.node('Gather', inputs, { axis: 0 });
      case 'scatterAdd': {
        // ScatterElements adds row by row in order; ScatterND would race between threads and lose bit-reproducibility
        const [indices, updates, base] = tensor.inputs;
        const rowDims = tensor.dims.slice(1);
        const count = dimProduct(indices.dims);
        const flatUpdates = this.node('Reshape', [inputs[1], this.reshapeTarget(updates.dims, [count, ...rowDims])]);
        const column = this.node('Reshape', [inputs[0], this.int64([-1, ...rowDims.map(() => 1)])]);
        const wide = this.node('Expand', [column, this.int64([1, ...(rowDims as number[])])]);
        const onto = base ? inputs[2] : this.zeros(tensor.dims);
        return this.node('ScatterElements', [onto, wide, flatUpdates], { axis: 0, reduction: 'add' });
      }
      case 'takeAlong': {
        const column = this.node('Unsqueeze', [inputs[1], this.int64([-1])]);
        return this.node('Squeeze', [this.node('GatherElements', [inputs[0], column], { axis: -1 }), this.int64([-1])]);
      }
      case 'putAlong': {
        const column = this.node('Unsqueeze', [inputs[0], this.int64([-1])]);
        const values = this.node('Unsqueeze', [inputs[1], this.int64([-1])]);
        if (inputs.length === 3) return this.node('ScatterElements', [inputs[2], column, values], { axis: -1, reduction: 'add' });
        return this.node('ScatterElements', [this.zeros(tensor.dims), column, values], { axis: -1 });
      }
      case 'maskedScatter':
        return this.node('ScatterND', [inputs[0], this.nonZero(inputs[1]), inputs[2]]);
      case 'maskedGather':
        return this.node('GatherND', [inputs[0], this.nonZero(inputs[1])]);
      case 'rotary': {
        const positions = this.node('Cast', [inputs[1]], { to: DataType.INT64 });
        return this.node('RotaryEmbedding', [inputs[0], positions, inputs[2], inputs[3]], {}, MICROSOFT);
      }
      case 'matmulPacked': {
        const [x, packed] = tensor.inputs;
        const { bits, blockSize, alpha } = attributes as unknown as BlockFormat & { alpha: number };
        // accuracy level 4: x is rounded to 8 bits a block, as llama.cpp does, which is three times as fast as float32
        const sizes = { K: x.dims.at(-1) as number, N: packed.dims[0] as number, bits, block_size: blockSize, accuracy_level: 4 };
        const product = this.node(
          'MatMulNBits',
          [inputs[0], this.packedBlocks(packed, (blockSize * bits) / 8), inputs[2]],
          sizes,
          MICROSOFT,
        );
        return alpha === 1 ? product : this.node('Mul', [product, this.scalarFloat(alpha)]);
      }
      case 'gatherPacked': {
        const { bits, blockSize } = attributes as unknown as BlockFormat;
        const layout = { gather_axis: 0, quantize_axis: 1, bits, block_size: blockSize };
        return this.node('GatherBlockQuantized', [inputs[0], inputs[2], inputs[1]], layout, MICROSOFT);
      }
      case 'dequantize':
        return this.dequantize(tensor, inputs[0], inputs[1]);
      case 'rmsNorm':
        return this.node('SimplifiedLayerNormalization', inputs, { axis: -1, epsilon: attributes.epsilon as number });
      case 'layerNorm':
        return this.node('LayerNormalization', inputs, { axis: -1, epsilon: attributes.epsilon as number });
      case 'geluTanh':
        return this.node('Gelu', inputs, { approximate: 'tanh' });
      case 'quickGelu':
        return this.node('QuickGelu', inputs, { alpha: 1.702 }, MICROSOFT);
      default:
        throw new Error(`op ${tensor.op} has no ONNX lowering`);
    }
  }

  /** A packed weight as float32, where no kernel reads it as it is. */
  private dequantize({ attributes, dims }: Tensor, packed: string, scale: string): string {
    const { bits, blockSize } = attributes as unknown as BlockFormat;
    const [rows, columns] = dims as number[];
    let whole = packed;
    if (bits === 4) {
      const byte = (value: number) => this.initializer(Uint8Array.of(value), [1], 'uint8');
      const low = this.node('BitwiseAnd', [packed, byte(15)]);
      const high = this.node('BitShift', [packed, byte(4)], { direction: 'RIGHT' });
      const halves = [low, high].map((half) => this.node('Unsqueeze', [half, this.int64([-1])]));
      whole = this.node('Concat', halves, { axis: -1 });
    }
    const blocks = this.node('Reshape', [whole, this.int64([rows, columns / blockSize, blockSize])]);
    const centred = this.node('Sub', [this.node('Cast', [blocks], { to: DataType.FLOAT }), this.scalarFloat(2 ** (bits - 1))]);
    const values = this.node('Mul', [centred, this.node('Unsqueeze', [scale, this.int64([-1])])]);
    return this.node('Reshape', [values, this.int64([rows, columns])]);
  }

  /** Indices where a mask holds, one row each. */
  private nonZero(mask: string): string {
    return this.node('Transpose', [this.node('NonZero', [mask])], { perm: [1, 0] });
  }
}

function valueInfo(name: string, { dtype, dims }: Tensor): ValueInfoProto {
  return create(ValueInfoProtoSchema, {
    name,
    type: {
      value: {
        case: 'tensorType',
        value: {
          elemType: ONNX_TYPE[dtype],
          shape: {
            dim: dims.map((dim) => ({
              value:
                typeof dim === 'number' ? { case: 'dimValue' as const, value: BigInt(dim) } : { case: 'dimParam' as const, value: dim },
            })),
          },
        },
      },
    },
  });
}
