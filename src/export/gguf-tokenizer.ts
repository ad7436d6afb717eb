// Gemma's tokenizer as llama.cpp has it: SentencePiece's vocabulary with scores (llama-vocab.cpp,
// llm_tokenizer_spm), of a tokenizer.json that was made from one. There, each step joins the two neighbors
// whose union has the highest score; here, those that come first in a list. Both do the same where the
// merges that give a token stand together and leave out none, and for runs of one character.

import { UserError } from '../errors.ts';
import type { Tokenizer, TokenizerJson } from '../text/tokenizer.ts';
import type { GgufValue } from './gguf.ts';

/** llama.cpp's kinds of tokens (llama_token_type). */
const KIND = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const uint32 = (value: number): GgufValue => ({ type: 'uint32', value });
const bool = (value: boolean): GgufValue => ({ type: 'bool', value });
const string = (value: string | string[]): GgufValue => ({ type: 'string', value });

interface BpeJson extends TokenizerJson {
  model: TokenizerJson['model'] & { merges?: (string | [string, string])[] };
}

/**
 * The metadata of a tokenizer with a row for each of `size` tokens. UserError where llama.cpp could not cut a
 * text as this tokenizer does.
 */
export function tokenizerMetadata(json: BpeJson, tokenizer: Tokenizer, size: number): Record<string, GgufValue> {
  const ranks = mergeRanks(json);
  const added = new Map(json.added_tokens.map((token) => [token.id, token]));
  const texts: string[] = [];
  for (const [text, id] of Object.entries(json.model.vocab)) texts[id] = text;
  for (const { id, content } of json.added_tokens) texts[id] = content;
  const kindOf = (id: number, text: string | undefined): number => {
    if (text === undefined) return KIND.unused;
    if (id === tokenizer.unkTokenId) return KIND.unknown;
    if (/^<0x[0-9A-F]{2}>$/.test(text)) return KIND.byte;
    const token = added.get(id);
    // llama.cpp writes a token of the user's as it is stored: runs of spaces would come out as `▁`. Their
    // merges give them as well, before all others.
    if (!token || (!token.special && /^▁+$/.test(text))) return KIND.normal;
    return token.special ? KIND.control : KIND.userDefined;
  };
  const tokens = Array.from({ length: size }, (_, id) => texts[id] ?? `[PAD${id}]`);
  return {
    'tokenizer.ggml.model': string('llama'),
    'tokenizer.ggml.pre': string('default'),
    'tokenizer.ggml.tokens': string(tokens),
    // what no merge gives is never chosen by its score
    'tokenizer.ggml.scores': { type: 'float32', value: tokens.map((text) => -(ranks.get(text) ?? ranks.size)) },
    'tokenizer.ggml.token_type': { type: 'int32', value: tokens.map((_, id) => kindOf(id, texts[id])) },
    'tokenizer.ggml.bos_token_id': uint32(tokenizer.bosTokenId),
    'tokenizer.ggml.eos_token_id': uint32(tokenizer.eosTokenId),
    'tokenizer.ggml.eot_token_id': uint32(tokenizer.endOfTurnTokenId),
    'tokenizer.ggml.unknown_token_id': uint32(tokenizer.unkTokenId),
    'tokenizer.ggml.padding_token_id': uint32(tokenizer.padTokenId),
    'tokenizer.ggml.add_bos_token': bool(true),
    'tokenizer.ggml.add_eos_token': bool(false),
    'tokenizer.ggml.add_space_prefix': bool(false),
    'tokenizer.chat_template': string(tokenizer.chatTemplate),
  };
}

/**
 * Whether one character is repeated. SentencePiece gives all runs of Gemma 2 and 3 one score, and Hugging
 * Face's converter sorts merges of one score by the length of their left part: those of a run do not stand
 * together, but longer runs come first. So a run grows from its left end, there as here.
 */
const isRun = (token: string): boolean => new Set(token).size === 1;

/** The place of each merged token in the order in which tokens are made. */
function mergeRanks({ model: { merges = [], vocab } }: BpeJson): Map<string, number> {
  const pairs = merges.map((merge) => (typeof merge === 'string' ? (merge.split(' ') as [string, string]) : merge));
  const ranks = new Map<string, number>();
  const splits = new Map<string, number>();
  let last: string | undefined;
  for (const pair of pairs) {
    const token = pair.join('');
    if (token !== last && ranks.has(token) && !isRun(token))
      throw new UserError(
        `tokenizer.json: the merges that give ${JSON.stringify(token)} do not stand together, as those of SentencePiece do: llama.cpp cannot have it`,
      );
    if (!ranks.has(token)) ranks.set(token, ranks.size);
    splits.set(token, (splits.get(token) ?? 0) + 1);
    last = token;
  }
  for (const [token, count] of splits) {
    let possible = 0;
    for (let i = 1; i < token.length; i++) if (Object.hasOwn(vocab, token.slice(0, i)) && Object.hasOwn(vocab, token.slice(i))) possible++;
    if (possible > count)
      throw new UserError(
        `tokenizer.json: ${JSON.stringify(token)} has parts that no merge joins, which llama.cpp would join: it cannot have this tokenizer`,
      );
  }
  return ranks;
}
