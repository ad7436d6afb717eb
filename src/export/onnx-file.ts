// Writes a graph with its weights as an .onnx file: small models whole, larger ones with their weights in
// files beside it, named as transformers.js looks for them (`NAME.onnx_data`, `NAME.onnx_data_1`, ...).

import { type FileHandle, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { elementBytes, sizeOf } from '../engine/engine.ts';
import { lowerToModel } from '../engine/onnx/lower.ts';
import type { ExternalData } from '../engine/onnx/packed.ts';
import { encodeModel, type OnnxInitializer, type OnnxModel } from '../engine/onnx/writer.ts';
import { UserError } from '../errors.ts';
import type { Graph } from '../models/programs.ts';
import { type ByteSink, partEncoder, storeWeights, type WeightPart } from './onnx-weights.ts';
import { type ExportSource, rowsOf } from './source.ts';

export interface OnnxFileOptions {
  /** Bytes that a weight takes in one input, where it can be cut. */
  bufferLimit: number;
  /** Bytes of a file of weights. */
  maxShardSize: number;
  /** Up to so many bytes, weights lie inside the .onnx file. */
  inlineLimit: number;
  /** Scales of packed weights in float16. */
  halfScales: boolean;
  /** What a CPU computes products with packed weights in. */
  packedAccuracy: 'float32' | 'int8';
}

export interface WrittenFile {
  /** Files of weights beside it; 0 where it holds them. */
  shards: number;
  /** Of all of it. */
  bytes: number;
}

/** Where an input's bytes begin in a file of weights. */
const ALIGNMENT = 64;
const aligned = (bytes: number) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/**
 * Writes `graph` as `name`.onnx in `folder`, with the weights of `source`. UserError naming a weight that
 * does not fit.
 */
export async function writeOnnxFile(
  folder: string,
  name: string,
  graph: Graph,
  source: ExportSource,
  options: OnnxFileOptions,
): Promise<WrittenFile> {
  const { outputs, parts } = storeWeights(graph.outputs, graph.parameters, options);
  const layout = layOut(parts, `${name}.onnx_data`, options);
  const shards = [...new Set([...layout.values()].map(({ location }) => location!))];
  const total = shards.map((shard) => endOf(layout, shard)).reduce((sum, bytes) => sum + bytes, 0);
  const { model } = lowerToModel(outputs, { externalInputs: layout, target: 'anywhere', packedAccuracy: options.packedAccuracy });
  const used = withoutUnread(model);
  if (total > options.inlineLimit) {
    await writeShards(folder, shards, layout, parts, graph, source);
    const bytes = encodeModel(used);
    await writeFile(join(folder, `${name}.onnx`), bytes);
    return { shards: shards.length, bytes: total + bytes.length };
  }
  const memory = new Uint8Array(total);
  await encodeParts(parts, graph, source, async (input, at, bytes) => memory.set(bytes, layout.get(input)!.offset + at));
  const bytes = encodeModel({ ...used, initializers: used.initializers.map((initializer) => inlined(initializer, memory)) });
  await writeFile(join(folder, `${name}.onnx`), bytes);
  return { shards: 0, bytes: bytes.length };
}

/**
 * Where the bytes of each input go: numbers first, then scales, so that neighbors can be multiplied as one.
 */
function layOut(parts: readonly WeightPart[], file: string, { maxShardSize, inlineLimit }: OnnxFileOptions): Map<string, ExternalData> {
  const inputs = [0, 1].flatMap((i) => parts.flatMap(({ inputs }) => inputs[i] ?? []));
  const sizes = inputs.map(({ dtype, dims }) => sizeOf(dims) * elementBytes[dtype]);
  const isInline = sizes.reduce((sum, bytes) => sum + aligned(bytes), 0) <= inlineLimit;
  const layout = new Map<string, ExternalData>();
  let [shard, offset] = [0, 0];
  inputs.forEach(({ name }, i) => {
    if (!isInline && offset > 0 && offset + sizes[i] > maxShardSize) [shard, offset] = [shard + 1, 0];
    layout.set(name, { location: shard === 0 ? file : `${file}_${shard}`, offset, length: sizes[i] });
    offset += aligned(sizes[i]);
  });
  return layout;
}

const endOf = (layout: ReadonlyMap<string, ExternalData>, shard: string) =>
  Math.max(...[...layout.values()].filter(({ location }) => location === shard).map(({ offset, length }) => aligned(offset + length)));

/**
 * A packed weight is read by another shape of the same bytes (`packedBlocks`); the first one is left over.
 */
function withoutUnread(model: OnnxModel): OnnxModel {
  const read = new Set([...model.nodes.flatMap(({ inputs }) => inputs), ...model.outputs.map(({ name }) => name)]);
  return { ...model, initializers: model.initializers.filter(({ name }) => read.has(name)) };
}

function inlined(initializer: OnnxInitializer, memory: Uint8Array): OnnxInitializer {
  const { data } = initializer;
  return data instanceof Uint8Array ? initializer : { ...initializer, data: memory.subarray(data.offset, data.offset + data.length) };
}

async function writeShards(
  folder: string,
  shards: readonly string[],
  layout: ReadonlyMap<string, ExternalData>,
  parts: readonly WeightPart[],
  graph: Graph,
  source: ExportSource,
): Promise<void> {
  const handles = new Map<string, FileHandle>();
  try {
    for (const shard of shards) {
      const handle = await open(join(folder, shard), 'w');
      handles.set(shard, handle);
      await handle.truncate(endOf(layout, shard));
    }
    await encodeParts(parts, graph, source, async (input, at, bytes) => {
      const { location, offset } = layout.get(input)!;
      const handle = handles.get(location!)!;
      for (let done = 0; done < bytes.length; )
        done += (await handle.write(bytes, done, bytes.length - done, offset + at + done)).bytesWritten;
    });
  } finally {
    for (const handle of handles.values()) await handle.close();
  }
}

/** Reads each parameter once, and hands all its parts their rows. */
async function encodeParts(parts: readonly WeightPart[], graph: Graph, source: ExportSource, sink: ByteSink): Promise<void> {
  for (const { name, dims } of graph.parameters) {
    const width = sizeOf(dims.slice(1));
    const encoders = parts.filter(({ parameter }) => parameter === name).map((part) => partEncoder(part, width, sink));
    try {
      let row = 0;
      for await (const rows of rowsOf(source.tensor(name, dims), width)) {
        for (const encoder of encoders) await encoder.add(row, rows);
        row += rows.length / width;
      }
    } catch (error) {
      throw error instanceof RangeError ? new UserError(`${source.dir}: ${error.message}: take another dtype`) : error;
    }
  }
}
