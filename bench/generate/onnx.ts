// Writes the shape as a folder for transformers.js: vision_encoder, embed_tokens and decoder_model_merged in
// its "q4" files, and the JSON beside them. Weights are quantized as transformers.js' own scripts/quantize.py
// does (MatMulNBits, blocks of 32, symmetric), except for the attribute `accuracy_level`, which that script
// leaves unset: 4 (products of int8) is what onnxruntime-genai's builder sets for a CPU, and faster. The
// graph of the decoder is that builder's, as in the hub's exports of Gemma: GroupQueryAttention over packed
// q, k and v with the rotation inside, SkipSimplifiedLayerNormalization, FastGelu. The embedding table is
// 4-bit too (GatherBlockQuantized), as in the hub's newer exports.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  ELEMENT_TYPES,
  encodeModel,
  MICROSOFT,
  type OnnxAttributes,
  type OnnxInitializer,
  type OnnxNode,
  type OnnxValue,
} from '../../src/engine/onnx/writer.ts';
import type { DType } from '../../src/graph/tensor.ts';
import { elementCount, writeFileAtomically } from '../../src/weights/safetensors.ts';
import type { BenchConfig } from './shapes.ts';
import { floatPool, nibblePool, piecesOf, WEIGHT_STD } from './weights.ts';

const BLOCK = 32;
/** Step between the 16 values of a 4-bit weight: even ones have a standard deviation of 4.6 steps. */
const STEP = WEIGHT_STD / 4.6;
const STEPS = new Uint8Array(new Float32Array(2 ** 16).fill(STEP).buffer);
/** Where a tensor begins in the data file: a page, so that the file can be mapped. */
const ALIGNMENT = 4096;

type Dims = readonly (number | string)[];

interface ExternalTensor {
  bytes: number;
  data: () => Iterable<Uint8Array>;
}

/** A graph being built, whose weights are in a separate file. */
class OnnxFile {
  private readonly nodes: OnnxNode[] = [];
  private readonly inputs: OnnxValue[] = [];
  private readonly outputs: OnnxValue[] = [];
  private readonly initializers: OnnxInitializer[] = [];
  private readonly external: ExternalTensor[] = [];
  private readonly name: string;
  private readonly accuracyLevel: number;
  private end = 0;

  constructor(name: string, accuracyLevel: number) {
    this.name = name;
    this.accuracyLevel = accuracyLevel;
  }

  input(name: string, dtype: DType, dims: Dims): string {
    this.inputs.push({ name, dtype, dims });
    return name;
  }

  output(name: string, dtype: DType, dims: Dims): void {
    this.outputs.push({ name, dtype, dims });
  }

  /** Adds a node with one output, or with the named `outputs`; returns the name of the first. */
  node(opType: string, inputs: readonly string[], attributes: OnnxAttributes = {}, domain = '', outputs?: readonly string[]): string {
    const name = `${opType}_${this.nodes.length}`;
    const names = outputs ?? [`${name}:0`];
    this.nodes.push({ opType, domain, name, inputs, outputs: names, attributes });
    return names[0];
  }

  int64(values: readonly number[], dims: readonly number[] = [values.length]): string {
    return this.inline('int64', BigInt64Array.from(values, BigInt), dims);
  }

  float(value: number): string {
    return this.inline('float32', Float32Array.of(value), []);
  }

  private inline(dtype: DType, data: BigInt64Array | Float32Array, dims: readonly number[]): string {
    const name = `constant_${this.initializers.length}`;
    this.initializers.push({ name, dtype, dims, data: new Uint8Array(data.buffer) });
    return name;
  }

  /** Weights from the pool. */
  weights(name: string, ...dims: number[]): string {
    const bytes = 4 * elementCount(dims);
    return this.file(name, 'float32', dims, bytes, () => piecesOf(new Uint8Array(floatPool().buffer), bytes, 4, name));
  }

  vector(name: string, values: Float32Array, dims: readonly number[] = [values.length]): string {
    return this.file(name, 'float32', dims, values.byteLength, () => [new Uint8Array(values.buffer, values.byteOffset, values.byteLength)]);
  }

  /** 4-bit rows of `columns` weights: the names of the packed bytes, of dims `packed`, and of their steps. */
  private quantized(name: string, rows: number, columns: number, packed: readonly number[]): [string, string] {
    const blocks = (rows * columns) / BLOCK;
    return [
      this.file(`${name}_quant`, 'uint8', packed, (rows * columns) / 2, () => piecesOf(nibblePool(), (rows * columns) / 2, 1, name)),
      this.file(`${name}_scales`, 'float32', [rows, columns / BLOCK], blocks * 4, () => piecesOf(STEPS, blocks * 4, 4, name)),
    ];
  }

  /** x [.., columns] -> [.., rows] by 4-bit weights. */
  matMul4(name: string, x: string, rows: number, columns: number, output?: string): string {
    const [quant, scales] = this.quantized(name, rows, columns, [rows, columns / BLOCK, BLOCK / 2]);
    const attributes = { K: columns, N: rows, bits: 4, block_size: BLOCK, accuracy_level: this.accuracyLevel };
    return this.node('MatMulNBits', [x, quant, scales], attributes, MICROSOFT, output === undefined ? undefined : [output]);
  }

  /** Looks up rows `ids` of a 4-bit table. */
  gather4(name: string, ids: string, rows: number, columns: number): string {
    const [quant, scales] = this.quantized(name, rows, columns, [rows, columns / 2]);
    return this.node(
      'GatherBlockQuantized',
      [quant, ids, scales],
      { gather_axis: 0, quantize_axis: 1, block_size: BLOCK, bits: 4 },
      MICROSOFT,
    );
  }

  private file(name: string, dtype: DType, dims: readonly number[], bytes: number, data: ExternalTensor['data']): string {
    this.initializers.push({ name, dtype, dims, data: { location: `${this.name}.onnx_data`, offset: this.end, length: bytes } });
    this.external.push({ bytes, data });
    this.end += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    return name;
  }

  async write(folder: string): Promise<void> {
    const { name, nodes, inputs, outputs, initializers } = this;
    const model = encodeModel({ producer: 'llava-gemma bench', name, nodes, inputs, outputs, initializers });
    const { external } = this;
    function* chunks() {
      for (const { bytes, data } of external) {
        yield* data();
        yield new Uint8Array(Math.ceil(bytes / ALIGNMENT) * ALIGNMENT - bytes);
      }
    }
    await writeFileAtomically(join(folder, `${this.name}.onnx_data`), chunks());
    writeFileSync(join(folder, `${this.name}.onnx`), model);
  }
}

/**
 * pixel_values [batch_size, 3, size, size] -> image_features [batch_size, patches, hidden of the language
 * model]; the connector is inside.
 */
function visionEncoder({ vision_config, text_config: text }: BenchConfig, quantized: boolean, accuracyLevel: number): OnnxFile {
  const vision = vision_config as unknown as Record<string, number>;
  const { hidden_size: width, intermediate_size: inner, num_hidden_layers: layers, image_size: size, patch_size: patch } = vision;
  const patches = (size / patch) ** 2;
  const file = new OnnxFile(`vision_encoder${quantized ? '_q4' : ''}`, accuracyLevel);
  const linear = (name: string, x: string, rows: number, columns: number) => {
    const product = quantized ? file.matMul4(name, x, rows, columns) : file.node('MatMul', [x, file.weights(name, columns, rows)]);
    return file.node('Add', [product, file.vector(`${name}_bias`, new Float32Array(rows))]);
  };
  const norm = (name: string, x: string) =>
    file.node(
      'LayerNormalization',
      [x, file.vector(`${name}_weight`, new Float32Array(width).fill(1)), file.vector(`${name}_bias`, new Float32Array(width))],
      {
        axis: -1,
        epsilon: { float: vision.layer_norm_eps },
      },
    );
  const pixels = file.input('pixel_values', 'float32', ['batch_size', 3, size, size]);
  const conv = file.node('Conv', [pixels, file.weights('patch_embedding', width, 3, patch, patch)], { strides: [patch, patch] });
  // [batch, width, rows, columns] -> [batch, patches, width]
  const patchRows = file.node('Transpose', [file.node('Reshape', [conv, file.int64([0, 0, -1])])], { perm: [0, 2, 1] });
  const batch = file.node('Shape', [pixels], { start: 0, end: 1 });
  const classShape = file.node('Concat', [batch, file.int64([1, width])], { axis: 0 });
  const classRow = file.node('Expand', [file.weights('class_embedding', 1, 1, width), classShape]);
  const rows = file.node('Concat', [classRow, patchRows], { axis: 1 });
  let hidden = file.node('Add', [rows, file.weights('position_embedding', patches + 1, width)]);
  hidden = norm('pre_layrnorm', hidden);
  // vision_feature_layer -2: the last layer is not read
  for (let i = 0; i < layers - 1; i++) {
    const normed = norm(`layer_norm1_${i}`, hidden);
    const [q, k, v] = ['q', 'k', 'v'].map((part) => linear(`${part}_proj_${i}`, normed, width, width));
    const attended = file.node('MultiHeadAttention', [q, k, v], { num_heads: vision.num_attention_heads }, MICROSOFT);
    hidden = file.node('Add', [hidden, linear(`out_proj_${i}`, attended, width, width)]);
    const up = linear(`fc1_${i}`, norm(`layer_norm2_${i}`, hidden), inner, width);
    const activated = file.node('QuickGelu', [up], { alpha: { float: 1.702 } }, MICROSOFT);
    hidden = file.node('Add', [hidden, linear(`fc2_${i}`, activated, width, inner)]);
  }
  const read = file.node('Slice', [hidden, file.int64([1]), file.int64([patches + 1]), file.int64([1])]);
  const first = file.node('Gelu', [linear('linear_1', read, text.hidden_size, width)], { approximate: 'none' });
  file.node('Identity', [linear('linear_2', first, text.hidden_size, text.hidden_size)], {}, '', ['image_features']);
  file.output('image_features', 'float32', ['batch_size', patches, text.hidden_size]);
  return file;
}

/** input_ids int64 [batch_size, tokens] -> inputs_embeds, times sqrt(hidden). */
function embedTokens({ text_config: text }: BenchConfig, accuracyLevel: number): OnnxFile {
  const file = new OnnxFile('embed_tokens_q4', accuracyLevel);
  const ids = file.input('input_ids', 'int64', ['batch_size', 'sequence_length']);
  const rows = file.gather4('embed_tokens', ids, text.vocab_size, text.hidden_size);
  file.node('Mul', [rows, file.float(Math.sqrt(text.hidden_size))], {}, '', ['inputs_embeds']);
  file.output('inputs_embeds', 'float32', ['batch_size', 'sequence_length', text.hidden_size]);
  return file;
}

/** The decoder with its cache; logits of the last `num_logits_to_keep` rows, of all for 0. */
function decoderModel({ text_config: text }: BenchConfig, accuracyLevel: number): OnnxFile {
  const { hidden_size: hidden, intermediate_size: inner, head_dim: headDim, num_hidden_layers: layers } = text;
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, max_position_embeddings: context } = text;
  const file = new OnnxFile('decoder_model_merged_q4', accuracyLevel);
  const epsilon = { float: text.rms_norm_eps };
  const embeds = file.input('inputs_embeds', 'float32', ['batch_size', 'sequence_length', hidden]);
  const mask = file.input('attention_mask', 'int64', ['batch_size', 'total_sequence_length']);
  const keep = file.input('num_logits_to_keep', 'int64', []);
  const [pastDims, presentDims] = ['past_sequence_length', 'total_sequence_length'].map((length) => [
    'batch_size',
    kvHeads,
    length,
    headDim,
  ]);

  const lengths = file.node('ReduceSum', [mask, file.int64([1])], { keepdims: 0 });
  const keysBefore = file.node('Cast', [file.node('Sub', [lengths, file.int64([1])])], { to: ELEMENT_TYPES.int32 });
  const total = file.node('Gather', [file.node('Shape', [mask]), file.int64([1], [])], { axis: 0 });
  const totalLength = file.node('Cast', [total], { to: ELEMENT_TYPES.int32 });
  const [cos, sin] = [Math.cos, Math.sin].map((of, i) => {
    const half = headDim / 2;
    const table = Float32Array.from({ length: context * half }, (_, at) => of(Math.floor(at / half) * 10000 ** (-(at % half) / half)));
    return file.vector(['cos_cache', 'sin_cache'][i], table, [context, half]);
  });

  const ones = (name: string) => file.vector(name, new Float32Array(hidden).fill(1));
  let residual = embeds;
  let normed = file.node('SimplifiedLayerNormalization', [embeds, ones('norm_0')], { axis: -1, epsilon });
  const addAndNorm = (name: string, branch: string) => {
    const sum = `${name}_sum`;
    normed = file.node('SkipSimplifiedLayerNormalization', [residual, branch, ones(name)], { epsilon }, MICROSOFT, [
      `${name}_out`,
      '',
      '',
      sum,
    ]);
    residual = sum;
  };
  for (let i = 0; i < layers; i++) {
    const past = ['key', 'value'].map((kind) => file.input(`past_key_values.${i}.${kind}`, 'float32', pastDims));
    const qkv = file.matMul4(`qkv_proj_${i}`, normed, (heads + 2 * kvHeads) * headDim, hidden);
    const attended = file.node(
      'GroupQueryAttention',
      [qkv, '', '', ...past, keysBefore, totalLength, cos, sin],
      { num_heads: heads, kv_num_heads: kvHeads, scale: { float: headDim ** -0.5 }, do_rotary: 1, rotary_interleaved: 0 },
      MICROSOFT,
      [`attention_${i}`, `present.${i}.key`, `present.${i}.value`],
    );
    for (const kind of ['key', 'value']) file.output(`present.${i}.${kind}`, 'float32', presentDims);
    addAndNorm(`post_attention_${i}`, file.matMul4(`o_proj_${i}`, attended, hidden, heads * headDim));
    const gate = file.node('FastGelu', [file.matMul4(`gate_proj_${i}`, normed, inner, hidden)], {}, MICROSOFT);
    const product = file.node('Mul', [gate, file.matMul4(`up_proj_${i}`, normed, inner, hidden)]);
    addAndNorm(`norm_${i + 1}`, file.matMul4(`down_proj_${i}`, product, hidden, inner));
  }
  const start = file.node('Unsqueeze', [file.node('Neg', [keep]), file.int64([0])]);
  // -0 is the first row, so that 0 keeps all
  const last = file.node('Slice', [normed, start, file.int64([Number.MAX_SAFE_INTEGER]), file.int64([1])]);
  file.matMul4('lm_head', last, text.vocab_size, hidden, 'logits');
  file.output('logits', 'float32', ['batch_size', 'num_logits', text.vocab_size]);
  return file;
}

/** Writes the folder, with the encoder both in float32 and in q4: which is faster depends on the machine. */
export async function writeTransformersJsFolder(folder: string, config: BenchConfig, accuracyLevel: number): Promise<void> {
  const onnx = join(folder, 'onnx');
  mkdirSync(onnx, { recursive: true });
  // one after another, since each holds its pools
  await visionEncoder(config, false, accuracyLevel).write(onnx);
  await visionEncoder(config, true, accuracyLevel).write(onnx);
  await embedTokens(config, accuracyLevel).write(onnx);
  await decoderModel(config, accuracyLevel).write(onnx);
  const { vision_config: vision, text_config: text } = config;
  const json = (name: string, value: object) => writeFileSync(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  json('config.json', {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    image_token_index: config.image_token_index,
    text_config: text,
    vision_config: vision,
    'transformers.js_config': { use_external_data_format: true },
  });
  // no end token: greedy decoding of random weights must not stop by chance
  json('generation_config.json', { bos_token_id: text.bos_token_id, pad_token_id: text.pad_token_id });
}
