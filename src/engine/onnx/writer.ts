// Writes ONNX models: plain records of what a model holds, and their protobuf encoding. Field numbers are
// those of onnx.proto (github.com/onnx/onnx, proto2: a field that is named is written, and repeated numbers
// are not packed).

import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import type { DType } from '../../graph/tensor.ts';

/** Domain of ONNX Runtime's own ops. */
export const MICROSOFT = 'com.microsoft';
export const OPSET = 21;
const IR_VERSION = 10;

/** TensorProto.DataType. */
export const ELEMENT_TYPES: Readonly<Record<DType, number>> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
  bfloat16: 16,
};

/**
 * A whole number, a float, a text, whole numbers, or the body of a loop. ONNX tells ints from floats by
 * attribute, not by value.
 */
export type OnnxAttribute = number | { float: number } | { graph: OnnxGraph } | string | readonly number[];
export type OnnxAttributes = Readonly<Record<string, OnnxAttribute>>;

export interface OnnxNode {
  opType: string;
  /** '' for the standard ops, or MICROSOFT. */
  domain: string;
  name: string;
  /** Names of values; '' for an optional one that is left out. */
  inputs: readonly string[];
  outputs: readonly string[];
  attributes: OnnxAttributes;
}

/** An input or an output of a graph. A dim is a size or a name. */
export interface OnnxValue {
  name: string;
  dtype: DType;
  dims: readonly (number | string)[];
}

/** A fixed value: its bytes (row-major, little-endian), or where they lie in a file beside the model. */
export interface OnnxInitializer {
  name: string;
  dtype: DType;
  dims: readonly number[];
  data: Uint8Array | { location: string; offset: number; length: number };
}

export interface OnnxGraph {
  name: string;
  nodes: readonly OnnxNode[];
  inputs: readonly OnnxValue[];
  outputs: readonly OnnxValue[];
  initializers: readonly OnnxInitializer[];
}

export interface OnnxModel extends OnnxGraph {
  producer: string;
}

/** The model as the bytes of an .onnx file. */
export function encodeModel(model: OnnxModel): Uint8Array {
  const writer = new BinaryWriter();
  integer(writer, 1, IR_VERSION);
  text(writer, 2, model.producer);
  message(writer, 7, () => encodeGraph(writer, model));
  for (const [domain, version] of [['', OPSET] as const, [MICROSOFT, 1] as const])
    message(writer, 8, () => {
      text(writer, 1, domain);
      integer(writer, 2, version);
    });
  return writer.finish();
}

// === Fields ===

function message(writer: BinaryWriter, field: number, body: () => void): void {
  writer.tag(field, WireType.LengthDelimited).fork();
  body();
  writer.join();
}

function text(writer: BinaryWriter, field: number, value: string): void {
  writer.tag(field, WireType.LengthDelimited).string(value);
}

function integer(writer: BinaryWriter, field: number, value: number): void {
  writer.tag(field, WireType.Varint).int64(value);
}

// === Messages ===

function encodeGraph(writer: BinaryWriter, { name, nodes, inputs, outputs, initializers }: OnnxGraph): void {
  for (const node of nodes) message(writer, 1, () => encodeNode(writer, node));
  text(writer, 2, name);
  for (const initializer of initializers) message(writer, 5, () => encodeInitializer(writer, initializer));
  for (const value of inputs) message(writer, 11, () => encodeValue(writer, value));
  for (const value of outputs) message(writer, 12, () => encodeValue(writer, value));
}

function encodeNode(writer: BinaryWriter, { opType, domain, name, inputs, outputs, attributes }: OnnxNode): void {
  for (const input of inputs) text(writer, 1, input);
  for (const output of outputs) text(writer, 2, output);
  text(writer, 3, name);
  text(writer, 4, opType);
  for (const [key, value] of Object.entries(attributes)) message(writer, 5, () => encodeAttribute(writer, key, value));
  text(writer, 7, domain);
}

/** AttributeProto: f = 2, i = 3, s = 4, g = 6, ints = 8, and which of them holds in type = 20. */
function encodeAttribute(writer: BinaryWriter, name: string, value: OnnxAttribute): void {
  text(writer, 1, name);
  let type: number;
  if (typeof value === 'number') {
    integer(writer, 3, value);
    type = 2;
  } else if (typeof value === 'string') {
    text(writer, 4, value);
    type = 3;
  } else if ('float' in value) {
    writer.tag(2, WireType.Bit32).float(value.float);
    type = 1;
  } else if ('graph' in value) {
    message(writer, 6, () => encodeGraph(writer, value.graph));
    type = 5;
  } else {
    for (const item of value) integer(writer, 8, item);
    type = 7;
  }
  integer(writer, 20, type);
}

/** TensorProto: bytes in raw_data = 9, or external_data = 13 with data_location = 14 set to EXTERNAL. */
function encodeInitializer(writer: BinaryWriter, { name, dtype, dims, data }: OnnxInitializer): void {
  for (const dim of dims) integer(writer, 1, dim);
  integer(writer, 2, ELEMENT_TYPES[dtype]);
  text(writer, 8, name);
  if (data instanceof Uint8Array) {
    writer.tag(9, WireType.LengthDelimited).bytes(data);
    return;
  }
  for (const [key, value] of Object.entries(data))
    message(writer, 13, () => {
      text(writer, 1, key);
      text(writer, 2, String(value));
    });
  integer(writer, 14, 1);
}

/** ValueInfoProto with a TypeProto.Tensor: elem_type, and a shape of dims, dim_value = 1 or dim_param = 2. */
function encodeValue(writer: BinaryWriter, { name, dtype, dims }: OnnxValue): void {
  text(writer, 1, name);
  message(writer, 2, () =>
    message(writer, 1, () => {
      integer(writer, 1, ELEMENT_TYPES[dtype]);
      message(writer, 2, () => {
        for (const dim of dims) message(writer, 1, () => (typeof dim === 'number' ? integer(writer, 1, dim) : text(writer, 2, dim)));
      });
    }),
  );
}
