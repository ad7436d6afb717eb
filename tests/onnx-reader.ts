// Reads ONNX models back for the tests: only the part of onnx.proto that they need. Written independently of
// engine/onnx/writer.ts, on top of a reader of any protobuf message: fields by number, each with everything
// that was written for it.

import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';

type Fields = Map<number, (number | Uint8Array)[]>;

function fieldsOf(bytes: Uint8Array): Fields {
  const fields: Fields = new Map();
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    const read = { [WireType.Varint]: () => Number(reader.int64()), [WireType.Bit32]: () => reader.float() } as const;
    const value = type === WireType.LengthDelimited ? reader.bytes() : read[type as WireType.Varint]();
    fields.set(field, [...(fields.get(field) ?? []), value]);
  }
  return fields;
}

const messages = (fields: Fields, field: number) => ((fields.get(field) ?? []) as Uint8Array[]).map(fieldsOf);
const message = (fields: Fields, field: number) => messages(fields, field)[0];
const texts = (fields: Fields, field: number) =>
  ((fields.get(field) ?? []) as Uint8Array[]).map((bytes) => new TextDecoder().decode(bytes));
const text = (fields: Fields, field: number) => texts(fields, field)[0];
const numbers = (fields: Fields, field: number) => (fields.get(field) ?? []) as number[];
const number = (fields: Fields, field: number) => numbers(fields, field)[0];

/** AttributeProto.type tells which field holds the value. */
function attributeValue(attribute: Fields): number | string | number[] {
  const type = number(attribute, 20);
  if (type === 1) return number(attribute, 2);
  if (type === 2) return number(attribute, 3);
  return type === 3 ? text(attribute, 4) : numbers(attribute, 8);
}

function readNode(node: Fields) {
  const attributes = Object.fromEntries(messages(node, 5).map((attribute) => [text(attribute, 1), attributeValue(attribute)]));
  return { opType: text(node, 4), domain: text(node, 7), name: text(node, 3), input: texts(node, 1), output: texts(node, 2), attributes };
}

function readValue(value: Fields) {
  const tensor = message(message(value, 2), 1);
  const dims = messages(message(tensor, 2), 1).map((dim) => number(dim, 1) ?? text(dim, 2));
  return { name: text(value, 1), dataType: number(tensor, 1), dims };
}

function readInitializer(tensor: Fields) {
  return {
    name: text(tensor, 8),
    dataType: number(tensor, 2),
    dims: numbers(tensor, 1),
    rawData: (tensor.get(9)?.[0] ?? new Uint8Array()) as Uint8Array,
    /** Whether the bytes are outside the model (data_location), and where. */
    external: number(tensor, 14) === 1,
    externalData: Object.fromEntries(messages(tensor, 13).map((entry) => [text(entry, 1), text(entry, 2)])),
  };
}

export function readOnnxModel(bytes: Uint8Array) {
  const model = fieldsOf(bytes);
  const graph = message(model, 7);
  return {
    opsets: messages(model, 8).map((opset) => [text(opset, 1), number(opset, 2)]),
    node: messages(graph, 1).map(readNode),
    initializer: messages(graph, 5).map(readInitializer),
    input: messages(graph, 11).map(readValue),
    output: messages(graph, 12).map(readValue),
  };
}
