// The graphs behind the maps of explain/: what an answer's token rests on, by gradient-weighted attention
// (Chefer, Gur & Wolf 2021, "Generic Attention-model Explainability", arXiv 2103.15679; its equations are
// named here by their numbers). Rules are tensors like any other, and only single rows of the N x N matrices
// are ever made: the last row of a product of matrices is a row times the first of them, times the next.

import type { Dim } from '../graph/dims.ts';
import { grad } from '../graph/grad.ts';
import { shareAxis } from '../graph/passes.ts';
import {
  add,
  argmax,
  concat,
  div,
  equal,
  flattenLeading,
  gather,
  matmul,
  maximum,
  mul,
  reduceMax,
  reduceMean,
  reduceSum,
  reshape,
  softmax,
  takeAlong,
  where,
} from '../graph/primitives.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import { gemmaRmsNorm } from '../nn/layers.ts';
import type { Parameters } from '../nn/parameters.ts';
import type { LastRow } from './decoder.ts';
import { labelLosses, logits } from './language.ts';
import { imageRows, imageSize, imageTokenCount, type LlavaConfig, type LlavaImages, llava } from './llava.ts';
import { causalBias } from './masks.ts';
import { type GraphOptions, graphOf } from './programs.ts';

// === Rules ===

/**
 * Rule (5): mean over heads of the positive part of gradient * attention, [batch, heads, n, n] -> [batch, n,
 * n].
 */
const weightedAttention = (attention: Tensor, gradient: Tensor) => reduceMean(maximum(mul(gradient, attention), 0), [1]);

/**
 * row [batch, 1, n] times a matrix over heads or their mean [.., n, n]; of the last layer there may be
 * nothing but the row [.., 1, n] that `row` selects, a query.
 */
const times = (row: Tensor, matrix: Tensor) => (matrix.dims.at(-2) === 1 ? matrix : matmul(row, matrix));

/**
 * Rule (6) over all layers, R <- R + Abar R with R0 = I, of which only the row that begins as `start`
 * [batch, 1, n] is made: start (I + Abar_L) .. (I + Abar_1), [batch, 1, n].
 */
export function relevancyRow(attentions: readonly Tensor[], gradients: readonly Tensor[], start: Tensor): Tensor {
  return attentions.reduceRight((row, attention, i) => add(row, times(row, weightedAttention(attention, gradients[i]))), start);
}

/**
 * Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928): rows of mean_h A + I that sum to 1, later
 * layers multiplied from the left; the row that begins as `start` [batch, 1, n].
 */
export function rolloutRow(attentions: readonly Tensor[], start: Tensor): Tensor {
  return attentions.reduceRight((row, attention) => {
    const mean = reduceMean(attention, [1]);
    // row (mean + I) / (row sums + 1), without an I: the division moves to the row
    const sums = add(reduceSum(mean, [2], true), 1);
    if (mean.dims[1] === 1) return div(add(row, mean), sums);
    const scaled = div(row, transposed(sums));
    return add(scaled, matmul(scaled, mean));
  }, start);
}

/** [batch, n, 1] -> [batch, 1, n]. */
const transposed = (column: Tensor) => reshape(column, [column.dims[0], 1, column.dims[1]]);

/** One query's attention in every layer and head: [batch, 1, n] -> [batch, layers, heads, n]. */
function attentionRows(attentions: readonly Tensor[], start: Tensor): Tensor {
  const [batch, , n] = start.dims;
  const query = reshape(start, [batch, 1, 1, n]);
  return concat(
    attentions.map((attention) => reshape(times(query, attention), [batch, 1, attention.dims[1], n])),
    1,
  );
}

// === Language model ===

const ids = (name: string, dims: Dim[] = ['batch', 'tokens']) => input(name, 'int32', dims);

/** Inputs of a pass over prompts with image rows, each row of the batch by itself. */
function passInputs(config: LlavaConfig) {
  return {
    input_ids: ids('input_ids'),
    position_ids: ids('position_ids'),
    key_positions: ids('key_positions'),
    image_rows: input('image_rows', 'float32', ['image_rows', config.text_config.hidden_size]),
  };
}

type PassInputs = ReturnType<typeof passInputs>;

const pass = (p: Parameters, config: LlavaConfig, inputs: PassInputs, lastRow?: LastRow) =>
  llava(p, config, {
    inputIds: inputs.input_ids,
    positionIds: inputs.position_ids,
    attentionBias: causalBias(inputs.position_ids, inputs.key_positions),
    images: { rows: inputs.image_rows },
    lastRow,
  });

/**
 * What the logits of an answer's tokens rest on. One prompt with its answer goes in, input_ids, position_ids,
 * key_positions [1, tokens] and image_rows [rows, hidden], and is read once; `batch` tokens of the answer are
 * asked about: `query` [batch, 1, tokens] is 1 where a token's logit is read and 0 elsewhere,
 * `query_positions` [batch, 1] its position, `targets` [batch] are the tokens. What stands behind a query
 * changes nothing. Of the last layer only the queries' rows are made. Outputs, for each query:
 *
 * - logits, probabilities [batch]: the targets';
 * - relevancy, rollout [batch, 1, tokens], relevancy before equations (8) and (9);
 * - attention [batch, layers, heads, tokens];
 * - image_gradients [batch * image_places, hidden]: d logit / d image_rows, read at `gradient_rows`, the
 *   places of the image tokens as flat indices into [batch, tokens].
 */
export function relevancyGraph(config: LlavaConfig, options?: GraphOptions) {
  const attentions: Tensor[] = [];
  return graphOf(
    (p) => {
      const inputs = {
        ...passInputs(config),
        query: input('query', 'float32', ['batch', 1, 'tokens']),
        query_positions: ids('query_positions', ['batch', 1]),
        targets: ids('targets', ['batch']),
        gradient_rows: ids('gradient_rows', ['gradient_rows']),
      };
      const { lastHidden, hiddenStates } = pass(p, config, inputs, {
        select: inputs.query,
        positionIds: inputs.query_positions,
        attentionBias: causalBias(inputs.query_positions, inputs.key_positions),
      });
      const hidden = config.text_config.hidden_size;
      const queried = reshape(lastHidden, ['batch', hidden]);
      const all = p.module('language_model', (p) => logits(p, config.text_config, queried));
      const target = takeAlong(all, inputs.targets);
      const [embedGradient, ...gradients] = grad(reduceSum(target, [0]), [hiddenStates[0], ...attentions]);
      const outputs = {
        logits: target,
        probabilities: takeAlong(softmax(all), inputs.targets),
        relevancy: relevancyRow(attentions, gradients, inputs.query),
        rollout: rolloutRow(attentions, inputs.query),
        attention: attentionRows(attentions, inputs.query),
        image_gradients: gather(flattenLeading(embedGradient), inputs.gradient_rows),
      };
      return {
        inputs,
        outputs: shareAxis(outputs, 'batch', new Set(['query', 'query_positions', 'targets', 'gradient_rows'])) as typeof outputs,
      };
    },
    { ...options, onAttention: (_module, probabilities) => attentions.push(probabilities) },
  );
}

/**
 * What the lens reads: the inputs of a pass over one prompt -> hidden states of all layers at `state_rows`
 * [state_rows], [layers + 1, state_rows, hidden].
 */
export function statesGraph(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const inputs = { ...passInputs(config), state_rows: ids('state_rows', ['state_rows']) };
    const rows = (state: Tensor) =>
      reshape(gather(flattenLeading(state), inputs.state_rows), [1, 'state_rows', config.text_config.hidden_size]);
    return { inputs, outputs: { states: concat(pass(p, config, inputs).hiddenStates.map(rows), 0) } };
  }, options);
}

/**
 * The logit lens (nostalgebraist 2020): hidden states [rows, hidden] read as if they were the last ones ->
 * likeliest token and its probability, [rows] each. `normed` (int32, 1 or 0) says that the final norm is
 * behind them already.
 */
export function lensGraph(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const { hidden_size: size, rms_norm_eps: epsilon } = config.text_config;
    const inputs = { hidden: input('hidden', 'float32', ['rows', size]), normed: ids('normed', []) };
    const all = p.module('language_model', (p) => {
      const normed = p.module('model', (p) => gemmaRmsNorm(p, 'norm', inputs.hidden, epsilon));
      return logits(p, config.text_config, where(equal(inputs.normed, constant(1, [], 'int32')), inputs.hidden, normed));
    });
    return { inputs, outputs: { likeliest: argmax(all), probability: reduceMax(softmax(all), [1]) } };
  }, options);
}

/**
 * How likely given answers are: the inputs of a pass, label_rows [labels] as flat indices into the batch of
 * the states that predict labels [labels] -> losses [labels] in nats, -log P each.
 */
export function answerGraph(config: LlavaConfig, options?: GraphOptions) {
  return graphOf((p) => {
    const inputs = { ...passInputs(config), label_rows: ids('label_rows', ['labels']), labels: ids('labels', ['labels']) };
    const { lastHidden } = pass(p, config, inputs);
    const rows = gather(flattenLeading(lastHidden), inputs.label_rows);
    return { inputs, outputs: { losses: p.module('language_model', (p) => labelLosses(p, config.text_config, rows, inputs.labels)) } };
  }, options);
}

// === Encoder ===

/**
 * The way on from image rows to patches. pixel_values [1, 3, size, size] is one picture; for each of `images`
 * tokens, row_gradients [images, imageTokens, hidden] are d logit / d image rows and `start` [images, 1,
 * rows] is the relevancy of what leaves the encoder -> start R_vit [images, 1, rows], R_vit by rules (5) and
 * (6) over the blocks that the connector reads.
 */
export function encoderRelevancyGraph(config: LlavaConfig, encoderRows: number, options?: GraphOptions) {
  const attentions: Tensor[] = [];
  return graphOf(
    (p) => {
      const size = imageSize(config);
      const pixelValues = input('pixel_values', 'float32', ['images', 3, size, size]);
      const images: LlavaImages = { pixelValues };
      const shape = ['images', imageTokenCount(config), config.text_config.hidden_size];
      const rows = reshape(imageRows(p, config, images), shape);
      const inputs = {
        pixel_values: pixelValues,
        row_gradients: input('row_gradients', 'float32', shape),
        start: input('start', 'float32', ['images', 1, encoderRows]),
      };
      // the gradient of this sum in the rows is row_gradients: the chain rule, cut at the rows
      const gradients = grad(reduceSum(mul(rows, inputs.row_gradients), [0, 1, 2]), attentions);
      const outputs = { relevancy: relevancyRow(attentions, gradients, inputs.start) };
      return { inputs, outputs: shareAxis(outputs, 'images', new Set(['row_gradients', 'start'])) as typeof outputs };
    },
    { ...options, onAttention: (_module, probabilities) => attentions.push(probabilities) },
  );
}
