// What the language model, as it is, says of captions given pictures: the A score, what pictures add to it,
// and retrieval by likelihood among K.

import { clusterBootstrap } from '../statistics/bootstrap.ts';
import type { Interval } from '../statistics/estimate.ts';
import { encodeConversation, ignoreIndex } from '../text/labels.ts';
import type { Rows } from './matrices.ts';
import type { AlignmentModel, EncodedText } from './model.ts';
import type { Caption } from './pictures.ts';
import { type Retrieval, retrievalOf } from './retrieval.ts';

/** A caption as the model reads it. */
export interface EncodedCaption extends EncodedText {
  /** Places of the tokens of its words, without what ends a turn. */
  words: number[];
}

/**
 * A caption laid out by a template of training. UserError, naming `id`, where nothing of it would be
 * trained, or where it is longer than the model reads before its answer begins.
 */
export function encodeCaption(
  { config, tokenizer }: Pick<AlignmentModel, 'config' | 'tokenizer'>,
  { turns, text }: Caption,
  options: { imageTokens: number; template: 'gemma' | 'plain'; id: string },
): EncodedCaption {
  const { imageTokens, template, id } = options;
  const maxLength = config.text_config.max_position_embeddings;
  const encoded = encodeConversation(tokenizer, turns, { imageTokens, template, maxLength, sampleId: id });
  const first = encoded.labels.findIndex((label) => label !== ignoreIndex);
  const ids = tokenizer.encodeWithoutImages(text);
  let count = 0;
  while (count < ids.length && encoded.inputIds[first + count] === ids[count]) count++;
  // a merge with what follows would leave none
  return { ...encoded, words: Array.from({ length: Math.max(1, count) }, (_, i) => first + i) };
}

const sumOf = (values: ArrayLike<number>) => Array.from(values).reduce((sum, value) => sum + value, 0);

// === A score ===

/** A number over all tokens, with its 95 % interval: pictures are drawn again. */
export interface TokenMean extends Interval {
  value: number;
}

export interface AScore extends TokenMean {
  /** As numbered in the code of 2408.16357: minus the held-out loss of stage 1, in nats a token. */
  version: 'v3';
  /** Tokens that are counted: what stage 1 would train, ends of turns too. */
  tokens: number;
  captions: number;
  /** The same before a blank picture. */
  blank: number;
  /** What the picture adds: `value` - `blank`, in nats a token. */
  imageGain: TokenMean;
}

/**
 * Losses of each caption's labels, with its own picture and with a blank one, and the picture it belongs
 * to.
 */
export interface CaptionLosses {
  own: Float32Array[];
  blank: Float32Array[];
  owners: readonly number[];
}

/** Draws of a bootstrap. */
const DRAWS = 2000;

/** The A score of captions whose losses are known. */
export function aScoreOf({ own, blank, owners }: CaptionLosses, seed: number): AScore {
  const pictures = owners.reduce((most, owner) => Math.max(most, owner + 1), 0);
  const [ownSums, blankSums, counts] = [own, blank, own].map(() => new Float64Array(pictures));
  owners.forEach((picture, i) => {
    ownSums[picture] += sumOf(own[i]);
    blankSums[picture] += sumOf(blank[i]);
    counts[picture] += own[i].length;
  });
  const perToken = (sums: (picture: number) => number): TokenMean => {
    const statistic = (drawn: Uint32Array) => {
      const total = (of: (picture: number) => number) => drawn.reduce((sum, times, picture) => sum + times * of(picture), 0);
      return total(sums) / total((picture) => counts[picture]);
    };
    const { value, low, high } = clusterBootstrap(pictures, statistic, { seed, draws: DRAWS });
    return { value, low, high };
  };
  const tokens = sumOf(counts);
  return {
    version: 'v3',
    ...perToken((picture) => -ownSums[picture]),
    tokens,
    captions: owners.length,
    blank: -sumOf(blankSums) / tokens,
    imageGain: perToken((picture) => blankSums[picture] - ownSums[picture]),
  };
}

// === Likelihood among K ===

export interface LikelihoodRetrieval {
  /** Candidates of each query. */
  ways: number;
  /** log P(text | picture) - log P(text | blank picture), a token. */
  withoutPrior: Retrieval;
  /** log P(text | picture) a token: likely texts win whatever the picture. */
  raw: Retrieval;
}

/** Mean log likelihood a token of the first text of each picture, and the same before a blank picture. */
export interface GroupScores {
  /** [pictures, texts], of one group. */
  given: number[][];
  blank: number[];
}

/**
 * Retrieval within groups of K pictures and their captions, taken together: each picture has K texts to
 * choose from, and each text K pictures. The blank term is the same for all pictures of a text, so that it
 * changes the choice of texts alone.
 */
export function likelihoodRetrieval(groups: readonly GroupScores[]): LikelihoodRetrieval {
  const ways = groups[0].blank.length;
  const among = (score: (group: GroupScores, picture: number, text: number) => number) =>
    retrievalOf(
      ...groups.map((group) => ({
        data: Float64Array.from({ length: ways * ways }, (_, at) => score(group, Math.floor(at / ways), at % ways)),
        pictures: ways,
        texts: ways,
        owners: group.blank.map((_, i) => i),
      })),
    );
  return {
    ways,
    withoutPrior: among(({ given, blank }, i, j) => given[i][j] - blank[j]),
    raw: among(({ given }, i, j) => given[i][j]),
  };
}

/** Reads each caption of a group of pictures given each picture of it. */
export async function readGroup(
  model: AlignmentModel,
  pictures: readonly Rows[],
  captions: readonly EncodedCaption[],
): Promise<number[][]> {
  const given: number[][] = [];
  for (const rows of pictures) {
    const readings = await model.read(rows, captions);
    given.push(readings.map(({ losses }) => -sumOf(losses) / losses.length));
  }
  return given;
}
