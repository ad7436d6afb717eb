// A LLaVA in the three graphs that the hub's ONNX folders have, and transformers.js runs: vision_encoder
// with the connector inside, embed_tokens, decoder_model_merged over rows and a cache. Built from the same
// functions as programs.ts; ports are named as by optimum (exporters/onnx/model_configs.py). `batch_size`
// is spelled as transformers.js looks for it, and the sizes of the cache are numbers, or it could not make
// an empty one.

import type { Dim } from '../graph/dims.ts';
import { cast, concat, cumsum, equal, reshape, sub, takeLast, where } from '../graph/primitives.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import type { LayerCache } from './decoder.ts';
import { embedTokens, languageModel, logits } from './language.ts';
import { imageRows, imageSize, imageTokenCount, type LlavaConfig } from './llava.ts';
import { causalBias, HIDDEN_POSITION } from './masks.ts';
import { type GraphOptions, graphOf, withoutImageToken } from './programs.ts';

const BATCH = 'batch_size';
const TOKENS = 'sequence_length';
const PAST = 'past_sequence_length';
const TOTAL = `${PAST}+${TOKENS}`;

/**
 * pixel_values [batch_size, 3, size, size] -> image_features [batch_size, imageTokens, hidden], as they enter
 * the language model: the connector is inside, and the scale of image rows, where a model has one.
 */
export function visionEncoderPart(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const size = imageSize(config);
    const pixel_values = input('pixel_values', 'float32', [BATCH, 3, size, size]);
    const rows = imageRows(p, config, { pixelValues: pixel_values });
    const image_features = reshape(rows, [BATCH, imageTokenCount(config), config.text_config.hidden_size]);
    return { inputs: { pixel_values }, outputs: { image_features } };
  }, options);
}

/**
 * input_ids int64 [batch_size, tokens] -> inputs_embeds [batch_size, tokens, hidden], scaled by sqrt(hidden).
 * The image token is looked up as any other: the table must have a row for it (pretrained/hub-form.ts).
 */
export function embedTokensPart(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const input_ids = input('input_ids', 'int64', [BATCH, TOKENS]);
    const inputs_embeds = p.module('language_model', (p) => embedTokens(p, config.text_config, input_ids));
    return { inputs: { input_ids }, outputs: { inputs_embeds } };
  }, options);
}

/**
 * inputs_embeds [batch_size, tokens, hidden], attention_mask int64 [batch_size, past + tokens] (1 is real),
 * position_ids int64 [batch_size, tokens], num_logits_to_keep int64 (of how many last rows; 0 is all) and
 * past_key_values.N.key and .value [batch_size, kvHeads, past, headDim] -> logits [batch_size, kept, vocab],
 * present.N.key and .value with the new tokens appended. Padding may stand at either side.
 */
export function decoderPart(config: LlavaConfig, options?: GraphOptions) {
  const { text_config: text } = config;
  return graphOf((p) => {
    const fed = {
      inputs_embeds: input('inputs_embeds', 'float32', [BATCH, TOKENS, text.hidden_size]),
      attention_mask: input('attention_mask', 'int64', [BATCH, TOTAL]),
      position_ids: input('position_ids', 'int64', [BATCH, TOKENS]),
      num_logits_to_keep: input('num_logits_to_keep', 'int64', []),
    };
    const past = pastInputs(config);
    const positionIds = cast(fed.position_ids, 'int32');
    const { lastHidden, present } = p.module('language_model', (p) =>
      languageModel(p, text, {
        inputsEmbeds: fed.inputs_embeds,
        positionIds,
        attentionBias: causalBias(positionIds, keyPositions(fed.attention_mask)),
        past,
      }),
    );
    const kept = takeLast(lastHidden, 1, fed.num_logits_to_keep, 'num_logits');
    const all = p.module('language_model', (p) => logits(p, text, kept));
    const grown = (layer: number, kind: keyof LayerCache) => concat([past[layer][kind], present[layer][kind]], 2);
    return {
      inputs: { ...fed, ...named('past_key_values', past, ({ key, value }) => ({ key, value })) },
      outputs: {
        logits: withoutImageToken(all, config),
        ...named('present', past, (_, layer) => ({ key: grown(layer, 'key'), value: grown(layer, 'value') })),
      },
    };
  }, options);
}

/** Where each key stands in its row; padding stands where no query looks. int64 [batch, keys] -> int32. */
function keyPositions(attentionMask: Tensor): Tensor {
  const mask = cast(attentionMask, 'int32');
  const one = constant(1, [], 'int32');
  return where(equal(mask, one), sub(cumsum(mask), one), constant(HIDDEN_POSITION, [], 'int32'));
}

function pastInputs({ text_config }: LlavaConfig): LayerCache[] {
  const { num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim } = text_config;
  const dims: Dim[] = [BATCH, kvHeads, PAST, headDim];
  const past = (layer: number, kind: keyof LayerCache) => input(`past_key_values.${layer}.${kind}`, 'float32', dims);
  return Array.from({ length: layers }, (_, layer) => ({ key: past(layer, 'key'), value: past(layer, 'value') }));
}

/** The keys and values of all layers by the names of their ports. */
function named(
  prefix: string,
  caches: readonly LayerCache[],
  of: (cache: LayerCache, layer: number) => LayerCache,
): Record<string, Tensor> {
  return Object.fromEntries(
    caches.flatMap((cache, layer) => Object.entries(of(cache, layer)).map(([kind, tensor]) => [`${prefix}.${layer}.${kind}`, tensor])),
  );
}
