// Encoder and connector of a LLaVA as llama.cpp's mmproj: keys and names of tools/mtmd/clip-impl.h,
// arithmetic of tools/mtmd/models/llava.cpp (projector `mlp`). What that graph has no place for goes into
// the weights.

import { UserError } from '../errors.ts';
import { connectorDepth } from '../models/connector.ts';
import { imageSize, type LlavaConfig } from '../models/llava.ts';
import { patchesPerSide, prefixTokens, type VisionConfig } from '../models/vision.ts';
import type { GgufTensorType, GgufValue } from './gguf.ts';
import { FILE_TYPE, float32, string, uint32 } from './gguf-language.ts';
import { GgufTensors, type RowChange } from './gguf-tensors.ts';
import type { ExportSource } from './source.ts';

/** Where a family keeps the parts of a block. */
const NAMES = {
  clip: {
    block: (i: number) => `vision_tower.vision_model.encoder.layers.${i}`,
    norms: ['layer_norm1', 'layer_norm2'],
    attention: { attn_q: 'self_attn.q_proj', attn_k: 'self_attn.k_proj', attn_v: 'self_attn.v_proj', attn_out: 'self_attn.out_proj' },
    patches: 'vision_tower.vision_model.embeddings.patch_embedding',
  },
  dinov2: {
    block: (i: number) => `vision_tower.encoder.layer.${i}`,
    norms: ['norm1', 'norm2'],
    attention: {
      attn_q: 'attention.attention.query',
      attn_k: 'attention.attention.key',
      attn_v: 'attention.attention.value',
      attn_out: 'attention.output.dense',
    },
    patches: 'vision_tower.embeddings.patch_embeddings.projection',
  },
} as const;

/**
 * Where llama.cpp has the row of the class token: `last` since May 2025, before all others once its pull
 * request 25844 is in. The table of positions is written in that order.
 */
export type ClassToken = 'first' | 'last';

const bool = (value: boolean): GgufValue => ({ type: 'bool', value });

/** Metadata and tensors of encoder and connector. UserError for what llama.cpp would compute otherwise. */
export async function visionGguf(source: ExportSource, type: GgufTensorType, classToken: ClassToken = 'last') {
  const { config, processor, dir } = source;
  const { vision_config: vision, text_config: text } = config;
  checkVision(config, dir);
  const layers = selectedLayers(config);
  const blocks = Math.max(...layers);
  const metadata: Record<string, GgufValue> = {
    'general.architecture': string('clip'),
    'general.type': string('mmproj'),
    'general.file_type': uint32(FILE_TYPE[type]),
    'clip.has_vision_encoder': bool(true),
    'clip.projector_type': string('mlp'),
    'clip.use_gelu': bool(vision.hidden_act !== 'quick_gelu'),
    'clip.use_silu': bool(false),
    'clip.vision.image_size': uint32(imageSize(config)),
    'clip.vision.patch_size': uint32(vision.patch_size),
    'clip.vision.embedding_length': uint32(vision.hidden_size),
    'clip.vision.feed_forward_length': uint32(innerSize(vision)),
    'clip.vision.projection_dim': uint32(text.hidden_size),
    'clip.vision.block_count': uint32(blocks),
    'clip.vision.attention.head_count': uint32(vision.num_attention_heads),
    'clip.vision.attention.layer_norm_epsilon': float32(vision.layer_norm_eps),
    'clip.vision.feature_layer': { type: 'int32', value: layers },
    'clip.vision.image_mean': float32(processor.image_mean),
    'clip.vision.image_std': float32(processor.image_std),
  };
  const all = new GgufTensors(source, type);
  embeddings(all, source, classToken === 'last');
  for (let i = 0; i < blocks; i++) block(all, vision, i);
  projector(all, config);
  await all.readFactors();
  return { metadata, tensors: all.tensors };
}

const innerSize = (vision: VisionConfig) =>
  vision.model_type === 'dinov2' ? Math.trunc(vision.hidden_size * vision.mlp_ratio) : vision.intermediate_size;

/** Hidden states that the connector reads, counted from the embeddings, which are 0. */
function selectedLayers({ vision_feature_layer, vision_config: { num_hidden_layers: total } }: LlavaConfig): number[] {
  return [vision_feature_layer].flat().map((layer) => (layer < 0 ? total + 1 + layer : layer));
}

function embeddings(all: GgufTensors, { config, has }: ExportSource, turned: boolean): void {
  const { vision_config: vision } = config;
  const { hidden_size: width, patch_size: patch } = vision;
  const rows = prefixTokens(vision) + patchesPerSide(vision, imageSize(config)) ** 2;
  const { patches } = vision.model_type === 'dinov2' ? NAMES.dinov2 : NAMES.clip;
  // a convolution is computed in float16 or float32 alone
  const type = all.type === 'F32' ? 'F32' : 'F16';
  all.matrix('v.patch_embd.weight', `${patches}.weight`, [width, 3, patch, patch], { type });
  if (has(`${patches}.bias`)) all.plain('v.patch_embd.bias', `${patches}.bias`, [width]);
  if (vision.model_type === 'dinov2') {
    all.plain('v.class_embd', 'vision_tower.embeddings.cls_token', [1, 1, width], { shape: [width] });
    all.plain('v.position_embd.weight', 'vision_tower.embeddings.position_embeddings', [1, rows, width], { shape: [rows, width], turned });
    return;
  }
  const model = 'vision_tower.vision_model';
  if (vision.model_type === 'clip_vision_model') {
    all.plain('v.class_embd', `${model}.embeddings.class_embedding`, [width]);
    for (const kind of ['weight', 'bias']) all.plain(`v.pre_ln.${kind}`, `${model}.pre_layrnorm.${kind}`, [width]);
  }
  const isTurned = turned && prefixTokens(vision) > 0;
  all.plain('v.position_embd.weight', `${model}.embeddings.position_embedding.weight`, [rows, width], { turned: isTurned });
}

function block(all: GgufTensors, vision: VisionConfig, i: number): void {
  const { hidden_size: width } = vision;
  const inner = innerSize(vision);
  const names = vision.model_type === 'dinov2' ? NAMES.dinov2 : NAMES.clip;
  const linear = (to: string, from: string, [out, columns]: readonly number[], scale?: string) => {
    const change = scale === undefined ? undefined : all.rowScale(`${names.block(i)}.${scale}.lambda1`, out);
    all.matrix(`v.blk.${i}.${to}.weight`, `${names.block(i)}.${from}.weight`, [out, columns], { change });
    if (all.has(`${names.block(i)}.${from}.bias`)) all.plain(`v.blk.${i}.${to}.bias`, `${names.block(i)}.${from}.bias`, [out], { change });
  };
  names.norms.forEach((norm, at) => {
    for (const kind of ['weight', 'bias']) all.plain(`v.blk.${i}.ln${at + 1}.${kind}`, `${names.block(i)}.${norm}.${kind}`, [width]);
  });
  // DINOv2's LayerScale is a factor on each output of the two branches: of the rows of their last weights
  const scaled = vision.model_type === 'dinov2';
  for (const [to, from] of Object.entries(names.attention))
    linear(to, from, [width, width], scaled && to === 'attn_out' ? 'layer_scale1' : undefined);
  linear('ffn_up', 'mlp.fc1', [inner, width]);
  linear('ffn_down', 'mlp.fc2', [width, inner], scaled ? 'layer_scale2' : undefined);
}

/** Gemma 1 and 2 multiply image rows by sqrt(hidden) there: the last layer is divided by it. */
function projector(
  all: GgufTensors,
  { mm_projector_type, text_config: text, vision_config: vision, vision_feature_layer }: LlavaConfig,
): void {
  const factor = text.model_type === 'gemma3_text' ? 1 : 1 / Math.sqrt(text.hidden_size);
  const divided: RowChange | undefined = factor === 1 ? undefined : (row) => row.map((value) => value * factor);
  const width = vision.hidden_size * [vision_feature_layer].flat().length;
  const depth = connectorDepth(mm_projector_type);
  for (let layer = 1; layer <= depth; layer++) {
    const change = layer === depth ? divided : undefined;
    const [to, from] = [`mm.${2 * (layer - 1)}`, `multi_modal_projector.linear_${layer}`];
    all.matrix(`${to}.weight`, `${from}.weight`, [text.hidden_size, layer === 1 ? width : text.hidden_size], { change });
    all.plain(`${to}.bias`, `${from}.bias`, [text.hidden_size], { change });
  }
}

/** UserError for what the graph of llama.cpp does not have. */
function checkVision(config: LlavaConfig, dir: string): void {
  const refuse = (what: string) => new UserError(`${dir}: ${what}, which llama.cpp's image encoder does not compute`);
  const { vision_config: vision, mm_projector_type: type, projector_hidden_act: activation } = config;
  const hasClass = prefixTokens(vision) > 0;
  if (hasClass !== (config.vision_feature_select_strategy === 'default'))
    throw refuse(
      `vision_feature_select_strategy ${config.vision_feature_select_strategy} ${hasClass ? 'keeps the class token' : 'drops a patch'}`,
    );
  if (connectorDepth(type) !== 2) throw refuse(`the connector is ${type}`);
  if (!activation.startsWith('gelu')) throw refuse(`projector_hidden_act is ${activation}`);
  if (vision.model_type === 'dinov2' && vision.use_swiglu_ffn) throw refuse('use_swiglu_ffn is true');
  if (vision.model_type !== 'dinov2' && !['quick_gelu', 'gelu', 'gelu_pytorch_tanh'].includes(vision.hidden_act))
    throw refuse(`hidden_act is ${vision.hidden_act}`);
  if (vision.model_type === 'dinov2' && imageSize(config) !== vision.image_size)
    throw refuse(`pictures of ${imageSize(config)} pixels ask for a position table other than that of ${vision.image_size}`);
  const layers = selectedLayers(config);
  if (layers.some((layer, i) => i > 0 && layer <= layers[i - 1])) throw refuse('vision_feature_layer is not ascending');
}
