// What the Gemma families share: the fields of their configs, and a stack of blocks with RoPE, grouped-query
// attention over a cache, and a gated MLP. Numerics as in transformers 5.18 models/gemma/modeling_gemma.py;
// gemma.ts, gemma2.ts and gemma3.ts define what a block is.

import { z } from 'zod';
import { concat, hold, matmul, mul } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { ACTIVATIONS, type ActivationName } from '../nn/activations.ts';
import { gemmaRmsNorm, linear, mergeHeads, selfAttention, splitHeads } from '../nn/layers.ts';
import type { Parameters } from '../nn/parameters.ts';
import { applyRope, type RopeTables, ropeTables } from '../nn/rope.ts';
import type { AttentionBias } from './masks.ts';

// === Configs ===

const ropeTypeSchema = z.enum(['default', 'linear']).optional();

/** `rope_parameters` of transformers 5, or the older `rope_scaling`. */
export const ropeParametersSchema = z
  .looseObject({
    rope_type: ropeTypeSchema,
    // an older name of rope_type
    type: ropeTypeSchema,
    rope_theta: z.number().positive().optional(),
    factor: z.number().positive().optional(),
  })
  .refine((rope) => !isLinear(rope) || rope.factor !== undefined, { error: 'linear scaling needs a factor', path: ['factor'] });

type RopeParameters = z.infer<typeof ropeParametersSchema>;

function isLinear({ rope_type, type }: { rope_type?: string; type?: string }): boolean {
  return (rope_type ?? type) === 'linear';
}

/** Config fields that every family has with the same default. */
export const decoderFields = {
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().optional(),
  rope_scaling: ropeParametersSchema.nullish(),
  attention_bias: z.literal(false).optional(),
  tie_word_embeddings: z.literal(true).default(true),
  initializer_range: z.number().positive().default(0.02),
  // true would not be a causal language model
  use_bidirectional_attention: z.literal(false).nullish(),
};
const decoderConfigSchema = z.looseObject(decoderFields);

/** What the families' configs have in common; the sizes have each family's own defaults. */
export interface DecoderConfig extends z.infer<typeof decoderConfigSchema> {
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  head_dim: number;
  max_position_embeddings: number;
}

/** What RoPE tables are made of: the base of the frequencies, and the factor of linear scaling. */
export interface Rope {
  theta: number;
  factor: number;
}

/** The RoPE that `parameters` ask for; `theta` is used where they have none. */
export function ropeOf(theta: number, parameters?: Partial<RopeParameters> | null): Rope {
  const { rope_theta = theta, factor = 1 } = parameters ?? {};
  return { theta: rope_theta, factor: parameters && isLinear(parameters) ? factor : 1 };
}

/** RoPE tables for all positions of a model. */
export function modelRope(config: DecoderConfig, { theta, factor }: Rope): RopeTables {
  return ropeTables(config.max_position_embeddings, config.head_dim, theta, factor);
}

// === Inputs and outputs ===

/**
 * Keys and values of one layer for the tokens so far: each [batch, kvHeads, past, headDim]; keys are rotated.
 */
export interface LayerCache {
  key: Tensor;
  value: Tensor;
}

export interface LanguageInputs {
  /** [batch, tokens, hidden]: embedded tokens, scaled (`embedTokens`), with image rows merged in. */
  inputsEmbeds: Tensor;
  /** int32 [batch, tokens]. */
  positionIds: Tensor;
  attentionBias: AttentionBias;
  /** One entry per layer when decoding with a cache. */
  past?: readonly LayerCache[];
  lastRow?: LastRow;
}

/**
 * The only row of each prompt that is wanted of the last layer, which is made for it alone, over the keys and
 * values of all: `lastHidden`, and the last of `hiddenStates`, are [batch, 1, hidden].
 */
export interface LastRow {
  /** [batch, 1, tokens]: 1 at the row, 0 elsewhere. */
  select: Tensor;
  /** The row's position, int32 [batch, 1], and its bias [batch, 1, 1, keys]. */
  positionIds: Tensor;
  attentionBias: AttentionBias;
}

export interface LanguageOutputs {
  /** After the final norm: [batch, tokens, hidden]. */
  lastHidden: Tensor;
  /**
   * Input of the first layer, then the output of each layer, the last one after the final norm as in Hugging
   * Face: layers + 1 entries, each [batch, tokens, hidden].
   */
  hiddenStates: Tensor[];
  /** Keys and values of these tokens, per layer: each [batch, kvHeads, tokens, headDim]; keys are rotated. */
  present: LayerCache[];
}

// === The stack ===

export interface AttentionOptions {
  rope: RopeTables;
  /** Factor applied to the products of queries and keys. */
  scale: number;
  /** Soft cap on the scaled products (composites.ts `attention`). */
  softcap?: number;
  /** Positions that a query sees, its own included. Default: all up to its own. */
  window?: number;
  /** RMSNorm of each head's queries and keys before they are rotated. */
  queryKeyNorm?: boolean;
}

/** Self-attention of the block being built: x [batch, tokens, hidden] -> the same. */
export type Attend = (x: Tensor, options: AttentionOptions) => Tensor;

/** A block of the stack: hidden [batch, tokens, hidden] -> the same. */
export type Block = (p: Parameters, hidden: Tensor, attend: Attend, layer: number) => Tensor;

/** What a block gives to its attention, [batch, tokens, hidden]. */
function attentionInput(p: Parameters, hidden: Tensor, block: Block, layer: number): Tensor {
  let given = hidden;
  // the rest of this block is read by nobody, so it is no part of the graph
  block(
    p,
    hidden,
    (x) => {
      given = x;
      return x;
    },
    layer,
  );
  return given;
}

/** `x` gives the queries; keys and values are those of `context`, of all rows where x is one of them. */
interface AttentionInputs {
  x: Tensor;
  context?: Tensor;
  inputs: LanguageInputs;
  row?: Omit<LastRow, 'select'>;
}

/** The blocks and the final norm. Parameters are named `model.layers.N...`, `model.norm.weight`. */
export function decoder(p: Parameters, config: DecoderConfig, inputs: LanguageInputs, block: Block): LanguageOutputs {
  let hidden = hold(inputs.inputsEmbeds);
  const hiddenStates = [hidden];
  const present: LayerCache[] = [];
  p.module('model', (p) => {
    for (let layer = 0; layer < config.num_hidden_layers; layer++) {
      hidden = p.module(`layers.${layer}`, (p) => {
        const row = layer === config.num_hidden_layers - 1 ? inputs.lastRow : undefined;
        const attendFrom =
          (context?: Tensor): Attend =>
          (x, options) => {
            const { output, cache } = attendOverCache(p, config, { x, context, inputs, row }, inputs.past?.[layer], options);
            present.push(cache);
            return output;
          };
        if (!row) return hold(block(p, hidden, attendFrom(), layer));
        return hold(block(p, matmul(row.select, hidden), attendFrom(attentionInput(p, hidden, block, layer)), layer));
      });
      hiddenStates.push(hidden);
    }
    hidden = gemmaRmsNorm(p, 'norm', hidden, config.rms_norm_eps);
    hiddenStates[hiddenStates.length - 1] = hidden;
  });
  return { lastHidden: hidden, hiddenStates, present };
}

function attendOverCache(
  p: Parameters,
  config: DecoderConfig,
  { x, context = x, inputs, row = inputs }: AttentionInputs,
  past: LayerCache | undefined,
  { rope, scale, softcap, window, queryKeyNorm }: AttentionOptions,
): { output: Tensor; cache: LayerCache } {
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim, initializer_range: std } = config;
  return p.module('self_attn', (p) => {
    const projected = (name: string, from: Tensor, count: number) =>
      splitHeads(linear(p, `${name}_proj`, from, count * headDim, { std }), count);
    const rotated = (name: string, from: Tensor, count: number, positionIds: Tensor) => {
      const states = projected(name, from, count);
      return applyRope(queryKeyNorm ? gemmaRmsNorm(p, `${name}_norm`, states, config.rms_norm_eps) : states, positionIds, rope);
    };
    const queryStates = rotated('q', x, heads, row.positionIds);
    const key = rotated('k', context, kvHeads, inputs.positionIds);
    const value = projected('v', context, kvHeads);
    const keys = past ? concat([past.key, key], 2) : key;
    const values = past ? concat([past.value, value], 2) : value;
    const attended = selfAttention(p, queryStates, keys, values, { scale, softcap, bias: row.attentionBias(window) });
    return { output: linear(p, 'o_proj', mergeHeads(attended), config.hidden_size, { std }), cache: { key, value } };
  });
}

/** GeGLU (Shazeer 2020): down(activation(gate x) * up x). */
export function gatedMlp(p: Parameters, config: DecoderConfig, activation: ActivationName, x: Tensor): Tensor {
  const { intermediate_size: size, initializer_range: std } = config;
  return p.module('mlp', (p) => {
    const gated = mul(ACTIVATIONS[activation](linear(p, 'gate_proj', x, size, { std })), linear(p, 'up_proj', x, size, { std }));
    return linear(p, 'down_proj', gated, config.hidden_size, { std });
  });
}
