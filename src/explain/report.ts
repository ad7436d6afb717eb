// What `explain` writes of one answer: explanation.json, described in docs/explain.md.

import type { Explanation, MapKind } from './explanation.ts';
import type { Faithfulness, MapsOfTarget } from './faithfulness.ts';
import { type Grid, meanMap } from './maps.ts';
import { verdict } from './verdict.ts';
import type { Word } from './words.ts';

/** The whole answer, or one word of it, with its maps. */
export interface ExplainedPart {
  text: string;
  /** Its tokens: `count` from `first` on. */
  first: number;
  count: number;
  maps: Record<MapKind, Float32Array>;
  /** Share of its relevancy on the picture, and on each word of the prompt. */
  onImage: number;
  onPrompt: number[];
  faithfulness?: Faithfulness;
}

const tokensOf = ({ first, count }: Pick<Word, 'first' | 'count'>) => Array.from({ length: count }, (_, i) => first + i);

/** The whole answer and, where it has several, each of its words: maps are means over their tokens. */
export function partsOf(explanation: Explanation): ExplainedPart[] {
  const { words, tokens, answer, maps, onImage, onPrompt, promptWords } = explanation;
  const whole: Word = { text: answer, first: 0, count: tokens.length };
  const shown = words.filter(({ text }) => text !== '');
  return [whole, ...(shown.length > 1 ? shown : [])].map((word) => {
    const own = tokensOf(word);
    const mean = (values: ArrayLike<number>) => own.reduce((sum, token) => sum + values[token], 0) / own.length;
    const prompt = meanMap(own.map((token) => onPrompt[token]));
    return {
      ...word,
      maps: Object.fromEntries(
        Object.entries(maps).map(([kind, each]: [string, Float32Array[]]) => [kind, meanMap(own.map((token) => each[token]))]),
      ) as Record<MapKind, Float32Array>,
      onImage: mean(onImage),
      onPrompt: promptWords.map(({ first, count }) => prompt.subarray(first, first + count).reduce((sum, value) => sum + value, 0)),
    };
  });
}

/** Where a part's answer tokens attend to on the picture: a map by layer and head, means over its tokens. */
export const headMaps = ({ heads, layout }: Explanation, part: Pick<ExplainedPart, 'first' | 'count'>): Float32Array[] => {
  const patches = layout.grid.rows * layout.grid.columns;
  const all = meanMap(tokensOf(part).map((token) => heads.toPatches[token]));
  return Array.from({ length: heads.layers * heads.heads }, (_, head) => all.subarray(head * patches, (head + 1) * patches));
};

/** What `measureFaithfulness` is asked about parts. */
export const targetsOf = (parts: readonly ExplainedPart[]): MapsOfTarget[] =>
  parts.map((part) => ({ tokens: tokensOf(part), maps: part.maps }));

/** explanation.json: docs/explain.md says what each field is. */
export interface ExplanationFile {
  model: string;
  prompt: string;
  answer: string;
  grid: Grid;
  promptTokens: Explanation['promptTokens'];
  promptWords: Word[];
  parts: (Pick<ExplainedPart, 'text' | 'first' | 'count' | 'onImage' | 'onPrompt' | 'faithfulness'> & {
    verdict?: string;
    maps: Partial<Record<MapKind, number[]>>;
  })[];
  tokens: (Explanation['tokens'][number] & {
    onImage: number;
    onPrompt: number[];
    onAnswer: number[];
    maps: Partial<Record<MapKind, number[]>>;
    /** By layer and head. */
    attention?: number[][][];
  })[];
  lens?: { texts: string[]; probabilities: number[] }[];
}

/** Five digits are more than a map is worth. */
const rounded = (values: ArrayLike<number>) => Array.from(values, (value) => Number(value.toPrecision(5)));

/**
 * The file's content; `withHeads` puts the attention of every layer and head into it, and `measured` is the
 * map that verdicts are about.
 */
export function explanationJson(
  explanation: Explanation,
  parts: readonly ExplainedPart[],
  model: string,
  { withHeads = true, measured = 'relevancy' }: { withHeads?: boolean; measured?: MapKind } = {},
): ExplanationFile {
  const { prompt, answer, layout, tokens, promptWords, promptTokens, maps, onImage, onPrompt, onAnswer, heads, lens } = explanation;
  const { rows, columns, patch, size } = layout.grid;
  const patches = rows * columns;
  const perHead = (all: Float32Array) =>
    Array.from({ length: heads.layers }, (_, layer) =>
      Array.from({ length: heads.heads }, (_, head) => {
        const at = (layer * heads.heads + head) * patches;
        return rounded(all.subarray(at, at + patches));
      }),
    );
  return {
    model,
    prompt,
    answer,
    grid: { rows, columns, patch, size },
    promptTokens,
    promptWords: promptWords.map(({ text, first, count }) => ({ text, first, count })),
    parts: parts.map(({ text, first, count, maps, onImage, onPrompt, faithfulness }) => ({
      text,
      first,
      count,
      onImage,
      onPrompt: rounded(onPrompt),
      maps: Object.fromEntries(Object.entries(maps).map(([kind, map]) => [kind, rounded(map)])),
      ...(faithfulness ? { faithfulness, verdict: verdict({ faithfulness }, measured) } : {}),
    })),
    tokens: tokens.map((token, t) => ({
      ...token,
      onImage: onImage[t],
      onPrompt: rounded(onPrompt[t]),
      onAnswer: rounded(onAnswer[t]),
      maps: Object.fromEntries(Object.entries(maps).map(([kind, each]: [string, Float32Array[]]) => [kind, rounded(each[t])])),
      ...(withHeads ? { attention: perHead(heads.toPatches[t]) } : {}),
    })),
    ...(lens ? { lens: lens.map(({ texts, probabilities }) => ({ texts, probabilities: rounded(probabilities) })) } : {}),
  };
}
