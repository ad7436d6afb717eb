// Attention masks of the language models as additive biases. Positions alone decide which query sees which
// key, wherever a key is stored in a row or in the cache. Windows as in transformers 5.18 masking_utils.py
// (sliding_window_overlay).

import { maskBias } from '../graph/composites.ts';
import { add, equal, greater, lessOrEqual, logicalAnd, logicalOr, reshape } from '../graph/primitives.ts';
import { constant, type Tensor } from '../graph/tensor.ts';

/** The position of a key that no query may see: padding is placed where no query reaches. */
export const HIDDEN_POSITION = 1 << 30;

/**
 * Bias of a layer's scores, which broadcasts to [batch, heads, tokens, past + tokens]: 0 keeps, -1e9 hides.
 * With a window, a query sees that many positions, its own included; without one, all up to its own. Layers
 * that ask for the same window get the same tensor.
 */
export type AttentionBias = (window?: number) => Tensor;

function attentionBias(visible: (window?: number) => Tensor): AttentionBias {
  const known = new Map<number | undefined, Tensor>();
  return (window) => {
    const bias = known.get(window) ?? maskBias(visible(window));
    known.set(window, bias);
    return bias;
  };
}

/**
 * Whether a key's position j satisfies i - window < j <= i, where i is the query's; the operands broadcast.
 */
function inReach(queries: Tensor, keys: Tensor, window?: number): Tensor {
  const earlier = lessOrEqual(keys, queries);
  return window === undefined ? earlier : logicalAnd(earlier, greater(add(keys, window), queries));
}

/**
 * Bias that lets a query at position i see keys at positions <= i: int32 [batch, tokens], [batch, keys] ->
 * [batch, 1, tokens, keys].
 */
export function causalBias(queryPositions: Tensor, keyPositions: Tensor): AttentionBias {
  const [batch, tokens] = queryPositions.dims;
  const queries = reshape(queryPositions, [batch, 1, tokens, 1]);
  const keys = reshape(keyPositions, [batch, 1, 1, keyPositions.dims[1]]);
  return attentionBias((window) => inReach(queries, keys, window));
}

/**
 * Bias for packed rows. Tokens see earlier tokens of the same sample. Samples that share a prefix (branch 0:
 * the image) are branches that see the prefix and themselves, never each other: the loss equals that of
 * separate rows. All int32 [batch, tokens].
 */
export function packedBias(ids: { positionIds: Tensor; sampleIds: Tensor; branchIds: Tensor }): AttentionBias {
  const { positionIds, sampleIds, branchIds } = ids;
  const [batch, tokens] = positionIds.dims;
  const rows = (x: Tensor) => reshape(x, [batch, 1, tokens, 1]);
  const columns = (x: Tensor) => reshape(x, [batch, 1, 1, tokens]);
  const sameSample = equal(rows(sampleIds), columns(sampleIds));
  const visibleBranch = logicalOr(equal(columns(branchIds), constant(0, [], 'int32')), equal(rows(branchIds), columns(branchIds)));
  const together = logicalAnd(sameSample, visibleBranch);
  return attentionBias((window) => logicalAnd(together, inReach(rows(positionIds), columns(positionIds), window)));
}
