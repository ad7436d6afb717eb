// Gemma's tokenizer: Hugging Face tokenizer.json files run by @huggingface/tokenizers, with the special
// tokens that LLaVA-Gemma needs. Follows Hugging Face tokenization_gemma.py (space becomes `▁`, byte
// fallback, no dummy prefix) and Intel's added_tokens.json, which puts `<image>` behind the last row of the
// language model.
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { UserError } from '../errors.ts';
import { chatTemplateOf } from './chat-template.ts';
import { createTextStream } from './stream.ts';

export const imageToken = '<image>';
export const startOfTurnToken = '<start_of_turn>';
export const endOfTurnToken = '<end_of_turn>';

export interface Tokenizer {
  /** Token ids of `text`. Special tokens written in the text become their ids; no `<bos>` is added. */
  encode(text: string): number[];
  /** The same where there is no picture: `<image>` is text like any other. */
  encodeWithoutImages(text: string): number[];
  /** The text of `ids`; invalid UTF-8 in byte tokens comes out as U+FFFD. */
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string;
  /** A token as the vocabulary writes it: `▁cat`, `<0x0A>`, `<bos>`. */
  token(id: number): string;
  isSpecial(id: number): boolean;
  bosTokenId: number;
  eosTokenId: number;
  padTokenId: number;
  unkTokenId: number;
  /**
   * Stands where the rows of an image go. Lies at the end of the vocabulary, so the language model needs no
   * row for it.
   */
  imageTokenId: number;
  /** Generation stops here, or at `<eos>`. */
  endOfTurnTokenId: number;
  newlineTokenId: number;
  bosToken: string;
  /** One more than the largest id, `<image>` included. */
  vocabSize: number;
  /** The Jinja source that lays out a conversation. */
  chatTemplate: string;
}

/** Characters that are encoded at a time to see whether a text is too long, and tokens that a cut may add. */
const SLICE = 4096;
const PER_CUT = 32;

/**
 * Whether a text certainly has more than `limit` tokens, at the cost of encoding about so many: a whole
 * log of some megabytes takes a minute, and gigabytes of memory.
 */
export function isLongerThan(tokenizer: Tokenizer, text: string, limit: number): boolean {
  let least = 0;
  for (let start = 0; start < text.length && least <= limit; start += SLICE)
    least += Math.max(0, tokenizer.encodeWithoutImages(text.slice(start, start + SLICE)).length - PER_CUT);
  return least > limit;
}

interface AddedToken {
  id: number;
  content: string;
  special: boolean;
}

export interface TokenizerJson {
  model: { vocab: Record<string, number>; byte_fallback?: boolean };
  added_tokens: AddedToken[];
}

function checkForm(json: unknown): asserts json is TokenizerJson {
  const { model, added_tokens: added } = (json ?? {}) as { model?: { vocab?: unknown; byte_fallback?: unknown }; added_tokens?: unknown };
  if (typeof model?.vocab !== 'object' || model.vocab === null || !Array.isArray(added)) {
    throw new UserError('tokenizer.json is not a Hugging Face tokenizer: it has no model.vocab or no added_tokens');
  }
  if (model.byte_fallback !== true) {
    throw new UserError("tokenizer.json is not of Gemma's form: its model has no byte fallback");
  }
}

/**
 * The file with the special tokens that it may lack: `<image>` gets the first free id, and the turn markers,
 * which some copies of Gemma's tokenizer keep in the vocabulary only, are added so that the text
 * `<start_of_turn>` is one token. UserError if it is not of Gemma's form.
 */
export function withSpecialTokens(json: unknown): TokenizerJson {
  checkForm(json);
  const added = [...json.added_tokens];
  const vocab = json.model.vocab;
  const add = (content: string, id: number) =>
    added.push({ id, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false } as AddedToken);
  const known = (content: string) => added.some((token) => token.content === content);
  for (const content of [startOfTurnToken, endOfTurnToken]) {
    if (known(content)) continue;
    if (!Object.hasOwn(vocab, content)) throw new UserError(`tokenizer.json is not Gemma's: it has no token ${content}`);
    add(content, vocab[content]);
  }
  if (!known(imageToken)) {
    const ids = [...Object.values(vocab), ...added.map((token) => token.id)];
    add(imageToken, ids.reduce((largest, id) => Math.max(largest, id), -1) + 1);
  }
  return { ...json, added_tokens: added };
}

function tokenText(value: unknown, fallback: string): string {
  if (typeof value === 'string') return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === 'string' ? content : fallback;
}

/**
 * A tokenizer from the parsed tokenizer.json and tokenizer_config.json of a Gemma-like model.
 * Throws UserError when the files are not of Gemma's form.
 */
export function createTokenizer(tokenizerJson: unknown, tokenizerConfig: unknown): Tokenizer {
  const config = (tokenizerConfig ?? {}) as Record<string, unknown>;
  const json = withSpecialTokens(tokenizerJson);
  let inner: HuggingFaceTokenizer;
  let withoutImages: HuggingFaceTokenizer;
  try {
    inner = new HuggingFaceTokenizer(json, config);
    // another splitter before the same model
    const added = json.added_tokens.filter(({ content }) => content !== imageToken);
    withoutImages = new HuggingFaceTokenizer({ ...json, model: { ...json.model, vocab: {}, merges: [] }, added_tokens: added }, config);
    withoutImages.model = inner.model;
  } catch (error) {
    throw new UserError(`tokenizer.json cannot be used: ${(error as Error).message}`);
  }

  const tokens: string[] = [];
  for (const [text, id] of Object.entries(json.model.vocab)) tokens[id] = text;
  for (const { id, content } of json.added_tokens) tokens[id] = content;
  const special = new Set(json.added_tokens.filter((token) => token.special).map((token) => token.id));

  const encode = (text: string) => inner.encode(text, { add_special_tokens: false }).ids;
  const single = (text: string) => {
    const ids = encode(text);
    if (ids.length !== 1) throw new UserError(`tokenizer.json is not Gemma's: ${JSON.stringify(text)} is not one token`);
    return ids[0];
  };
  const bosToken = tokenText(config.bos_token, '<bos>');
  const tokenizer: Tokenizer = {
    encode,
    encodeWithoutImages: (text) => withoutImages.encode(text, { add_special_tokens: false }).ids,
    decode: (ids, options) => {
      const stream = createTextStream(tokenizer, options);
      return ids.map((id) => stream.push(id)).join('') + stream.end();
    },
    token: (id) => tokens[id] ?? tokens[tokenizer.unkTokenId],
    // rows that pad an embedding table have no token: transformers decodes them to nothing
    isSpecial: (id) => special.has(id) || tokens[id] === undefined,
    bosTokenId: single(bosToken),
    eosTokenId: single(tokenText(config.eos_token, '<eos>')),
    padTokenId: single(tokenText(config.pad_token, '<pad>')),
    unkTokenId: single(tokenText(config.unk_token, '<unk>')),
    imageTokenId: single(imageToken),
    endOfTurnTokenId: single(endOfTurnToken),
    newlineTokenId: single('\n'),
    bosToken,
    vocabSize: tokens.length,
    chatTemplate: chatTemplateOf(config.chat_template),
  };
  return tokenizer;
}
