// The shape as llama.cpp's files: the language model in Q4_0, encoder and connector ("mmproj") in float16.
// Keys and names follow llama.cpp's gguf-py/gguf/constants.py, conversion of GemmaForCausalLM and
// CLIPVisionModel in convert_hf_to_gguf.py, and tools/mtmd/clip-impl.h.
import { encodeGguf, type GgufTensor, type GgufTensorType, type GgufValue, ggufBytes, writeGguf } from '../../src/export/gguf.ts';
import type { BenchConfig } from './shapes.ts';
import { floatPool, piecesOf } from './weights.ts';

const uint32 = (value: number): GgufValue => ({ type: 'uint32', value });
const float32 = (value: number | number[]): GgufValue => ({ type: 'float32', value });
const string = (value: string | string[]): GgufValue => ({ type: 'string', value });
const bool = (value: boolean): GgufValue => ({ type: 'bool', value });

/** Number of Q4_0 in `general.file_type` (llama_ftype), and of float16. */
const FILE_TYPE = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7 };

/** Makers of tensors: matrices out of a pool, norms of ones, biases of zeros. */
function tensorMaker() {
  const pools = new Map<GgufTensorType, { bytes: Uint8Array; block: number }>();
  const pool = (type: GgufTensorType) => {
    const known = pools.get(type);
    if (known) return known;
    const made = { bytes: encodeGguf(type, floatPool()), block: ggufBytes(type, [type.startsWith('Q') ? 32 : 1]) };
    pools.set(type, made);
    return made;
  };
  const tensors = new Map<string, GgufTensor>();
  return {
    tensors,
    matrix(name: string, type: GgufTensorType, ...shape: number[]) {
      const { bytes, block } = pool(type);
      tensors.set(name, { type, shape, data: () => piecesOf(bytes, ggufBytes(type, shape), block, name) });
    },
    vector(name: string, size: number, value: number) {
      tensors.set(name, { type: 'F32', shape: [size], data: () => [encodeGguf('F32', new Float32Array(size).fill(value))] });
    },
  };
}

/**
 * A vocabulary in which every lower-case letter is a token and nothing merges, so that a text of n letters is
 * n tokens: <pad>, <eos>, <bos>, <unk>, the 256 bytes, the letters, and names for the rest.
 */
function vocabulary(size: number): Record<string, GgufValue> {
  const [UNKNOWN, NORMAL, CONTROL, BYTE] = [2, 1, 3, 6];
  const tokens: string[] = ['<pad>', '<eos>', '<bos>', '<unk>'];
  const types = [CONTROL, CONTROL, CONTROL, UNKNOWN];
  for (let byte = 0; byte < 256; byte++) {
    tokens.push(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
    types.push(BYTE);
  }
  for (const letter of 'abcdefghijklmnopqrstuvwxyz') tokens.push(letter);
  while (tokens.length < size) tokens.push(`T${tokens.length}`);
  while (types.length < size) types.push(NORMAL);
  return {
    'tokenizer.ggml.model': string('llama'),
    'tokenizer.ggml.pre': string('default'),
    'tokenizer.ggml.tokens': string(tokens),
    'tokenizer.ggml.scores': float32(tokens.map((_, i) => -i)),
    'tokenizer.ggml.token_type': { type: 'int32', value: types },
    'tokenizer.ggml.bos_token_id': uint32(2),
    'tokenizer.ggml.eos_token_id': uint32(1),
    'tokenizer.ggml.unknown_token_id': uint32(3),
    'tokenizer.ggml.padding_token_id': uint32(0),
    'tokenizer.ggml.add_bos_token': bool(true),
    'tokenizer.ggml.add_eos_token': bool(false),
    'tokenizer.ggml.add_space_prefix': bool(false),
  };
}

/**
 * The language model. `embedding` is the type of the one table that embeds and makes logits; llama-quantize's
 * own Q4_0 files keep it at Q6_K, which is slower, so Q4_0 asks more of us.
 */
export async function writeTextGguf(path: string, { text_config: text }: BenchConfig, embedding: GgufTensorType = 'Q4_0'): Promise<void> {
  const { hidden_size: hidden, intermediate_size: inner, head_dim: headDim, num_hidden_layers: layers } = text;
  const heads = text.num_attention_heads * headDim;
  const kvHeads = text.num_key_value_heads * headDim;
  const { tensors, matrix, vector } = tensorMaker();
  matrix('token_embd.weight', embedding, text.vocab_size, hidden);
  // Gemma's norms multiply by 1 + w; the converter writes the sum
  vector('output_norm.weight', hidden, 1);
  for (let i = 0; i < layers; i++) {
    vector(`blk.${i}.attn_norm.weight`, hidden, 1);
    matrix(`blk.${i}.attn_q.weight`, 'Q4_0', heads, hidden);
    matrix(`blk.${i}.attn_k.weight`, 'Q4_0', kvHeads, hidden);
    matrix(`blk.${i}.attn_v.weight`, 'Q4_0', kvHeads, hidden);
    matrix(`blk.${i}.attn_output.weight`, 'Q4_0', hidden, heads);
    vector(`blk.${i}.ffn_norm.weight`, hidden, 1);
    matrix(`blk.${i}.ffn_gate.weight`, 'Q4_0', inner, hidden);
    matrix(`blk.${i}.ffn_up.weight`, 'Q4_0', inner, hidden);
    matrix(`blk.${i}.ffn_down.weight`, 'Q4_0', hidden, inner);
  }
  await writeGguf(
    path,
    {
      'general.architecture': string('gemma'),
      'general.name': string('llava-gemma bench'),
      'general.file_type': uint32(FILE_TYPE.Q4_0),
      'general.quantization_version': uint32(2),
      'gemma.context_length': uint32(text.max_position_embeddings),
      'gemma.embedding_length': uint32(hidden),
      'gemma.block_count': uint32(layers),
      'gemma.feed_forward_length': uint32(inner),
      'gemma.attention.head_count': uint32(text.num_attention_heads),
      'gemma.attention.head_count_kv': uint32(text.num_key_value_heads),
      'gemma.attention.layer_norm_rms_epsilon': float32(text.rms_norm_eps),
      'gemma.attention.key_length': uint32(headDim),
      'gemma.attention.value_length': uint32(headDim),
      'gemma.rope.dimension_count': uint32(headDim),
      'gemma.rope.freq_base': float32(10000),
      ...vocabulary(text.vocab_size),
    },
    tensors,
  );
}

/**
 * Encoder and connector, float16 as the converter makes them; all layers but the last are run, which is
 * vision_feature_layer -2.
 */
export async function writeMmprojGguf(path: string, { vision_config, text_config: text }: BenchConfig): Promise<void> {
  const vision = vision_config as unknown as Record<string, number>;
  const { hidden_size: width, intermediate_size: inner, num_hidden_layers: layers, image_size: size, patch_size: patch } = vision;
  const { tensors, matrix, vector } = tensorMaker();
  const linear = (name: string, out: number, columns: number) => {
    matrix(`${name}.weight`, 'F16', out, columns);
    vector(`${name}.bias`, out, 0);
  };
  const norm = (name: string) => {
    vector(`${name}.weight`, width, 1);
    vector(`${name}.bias`, width, 0);
  };
  vector('v.class_embd', width, 0.02);
  matrix('v.patch_embd.weight', 'F16', width, 3, patch, patch);
  matrix('v.position_embd.weight', 'F32', 1 + (size / patch) ** 2, width);
  norm('v.pre_ln');
  // the last layer is not read, and left out as the converter leaves it
  for (let i = 0; i < layers - 1; i++) {
    norm(`v.blk.${i}.ln1`);
    for (const part of ['attn_q', 'attn_k', 'attn_v', 'attn_out']) linear(`v.blk.${i}.${part}`, width, width);
    norm(`v.blk.${i}.ln2`);
    linear(`v.blk.${i}.ffn_up`, inner, width);
    linear(`v.blk.${i}.ffn_down`, width, inner);
  }
  linear('mm.0', text.hidden_size, width);
  linear('mm.2', text.hidden_size, text.hidden_size);
  await writeGguf(
    path,
    {
      'general.architecture': string('clip'),
      'general.file_type': uint32(FILE_TYPE.F16),
      'clip.has_vision_encoder': bool(true),
      'clip.projector_type': string('mlp'),
      'clip.use_gelu': bool(false),
      'clip.use_silu': bool(false),
      'clip.vision.image_size': uint32(size),
      'clip.vision.patch_size': uint32(patch),
      'clip.vision.embedding_length': uint32(width),
      'clip.vision.feed_forward_length': uint32(inner),
      'clip.vision.projection_dim': uint32(text.hidden_size),
      'clip.vision.block_count': uint32(layers - 1),
      'clip.vision.attention.head_count': uint32(vision.num_attention_heads),
      'clip.vision.attention.layer_norm_epsilon': float32(vision.layer_norm_eps),
      'clip.vision.feature_layer': { type: 'int32', value: [layers - 1] },
      'clip.vision.image_mean': float32([0.48145466, 0.4578275, 0.40821073]),
      'clip.vision.image_std': float32([0.26862954, 0.26130258, 0.27577711]),
    },
    tensors,
  );
}
