// Trains a small tokenizer of Gemma's form: byte-pair encoding (Sennrich et al., 2016) over words that carry
// their leading space as `▁`, with digits, punctuation and line breaks as words of their own, and byte tokens
// for whatever the alphabet lacks. Deterministic: ties go to the pair that sorts first. Merges are written as
// in SentencePiece (every way to compose a token, best token first), so that tokenizers,
// @huggingface/tokenizers and llama.cpp, which knows only tokens, split a text the same way.
import { UserError } from '../errors.ts';
import { gemmaChatTemplate } from './chat-template.ts';
import { endOfTurnToken, imageToken, startOfTurnToken } from './tokenizer.ts';

export interface TrainingText {
  text: string;
  /** How many times the text counts; 1 if not given. */
  weight?: number;
}

export interface BpeOptions {
  /**
   * Rows of the language model's embedding: special tokens, bytes, characters and merges. `<image>` comes
   * after, as one more id.
   */
  vocabSize: number;
  /** Characters beyond ASCII that occur less often are left to the byte tokens. Default: 20. */
  minCharacterCount?: number;
}

export interface TrainedTokenizer {
  tokenizerJson: Record<string, unknown>;
  tokenizerConfig: Record<string, unknown>;
}

const gemmaSpecialTokens = ['<pad>', '<eos>', '<bos>', '<unk>', '<mask>', startOfTurnToken, endOfTurnToken];

/**
 * Words as the trainer counts them. No merge crosses from one to the next, so encoding needs no such split.
 */
const wordPattern = /▁?[\p{L}\p{M}]+|[^\p{L}\p{M}]/gu;

function countWords(texts: Iterable<TrainingText>): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { text, weight = 1 } of texts) {
    for (const [word] of text.replaceAll(' ', '▁').matchAll(wordPattern)) counts.set(word, (counts.get(word) ?? 0) + weight);
  }
  return counts;
}

function byteTokens(): string[] {
  return Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
}

/**
 * Printable ASCII and `▁`, then the corpus's other characters that occur often enough, most frequent first.
 */
function alphabetOf(words: ReadonlyMap<string, number>, minCharacterCount: number): string[] {
  const counts = new Map<string, number>();
  for (const [word, count] of words) for (const character of word) counts.set(character, (counts.get(character) ?? 0) + count);
  const ascii = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  const others = [...counts]
    .filter(([character, count]) => count >= minCharacterCount && character > '\x7f' && character !== '▁')
    .sort(([a, countA], [b, countB]) => countB - countA || (a < b ? -1 : 1));
  return ['▁', ...ascii, ...others.map(([character]) => character)];
}

/** A word that occurs `count` times, as the symbols it is split into so far. */
interface Word {
  symbols: string[];
  count: number;
}

const pairKey = (left: string, right: string) => `${left} ${right}`;

/** The `size` tokens that merging adds to the alphabet, in the order in which they are found. */
function learnMerges(counts: ReadonlyMap<string, number>, alphabet: readonly string[], size: number): string[] {
  const known = new Set(alphabet);
  const words: Word[] = [];
  for (const [word, count] of counts) {
    const symbols = Array.from(word);
    // A word with a character outside the alphabet is left out: its byte tokens never merge.
    if (symbols.length > 1 && symbols.every((symbol) => known.has(symbol))) words.push({ symbols, count });
  }
  const pairCounts = new Map<string, number>();
  const pairWords = new Map<string, Set<Word>>();
  const addPairs = (word: Word, sign: 1 | -1) => {
    for (let i = 1; i < word.symbols.length; i++) {
      const key = pairKey(word.symbols[i - 1], word.symbols[i]);
      const count = (pairCounts.get(key) ?? 0) + sign * word.count;
      if (count > 0) pairCounts.set(key, count);
      else pairCounts.delete(key);
      if (sign < 0) continue;
      const containing = pairWords.get(key);
      if (containing) containing.add(word);
      else pairWords.set(key, new Set([word]));
    }
  };
  for (const word of words) addPairs(word, 1);

  const found: string[] = [];
  while (found.length < size) {
    let best = '';
    let bestCount = 0;
    for (const [key, count] of pairCounts) {
      if (count > bestCount || (count === bestCount && key < best)) {
        best = key;
        bestCount = count;
      }
    }
    if (bestCount === 0) break;
    const [left, right] = best.split(' ');
    const merged = left + right;
    // Another pair may have produced the same token before; it gets no second row.
    if (!known.has(merged)) {
      known.add(merged);
      found.push(merged);
    }
    for (const word of pairWords.get(best) ?? []) {
      const { symbols } = word;
      if (!symbols.some((symbol, i) => symbol === left && symbols[i + 1] === right)) continue;
      addPairs(word, -1);
      const next: string[] = [];
      for (let i = 0; i < symbols.length; i++) {
        if (symbols[i] === left && symbols[i + 1] === right) {
          next.push(merged);
          i++;
        } else {
          next.push(symbols[i]);
        }
      }
      word.symbols = next;
      addPairs(word, 1);
    }
    pairWords.delete(best);
  }
  return found;
}

/** For each token, in order of rank, every pair of tokens that compose it. */
function allMerges(merged: readonly string[], rank: ReadonlyMap<string, number>): string[] {
  return merged.flatMap((token) => {
    const characters = Array.from(token);
    const pairs: [number, number, string][] = [];
    for (let i = 1; i < characters.length; i++) {
      const left = characters.slice(0, i).join('');
      const right = characters.slice(i).join('');
      if (rank.has(left) && rank.has(right)) pairs.push([rank.get(left)!, rank.get(right)!, `${left} ${right}`]);
    }
    return pairs.sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, , text]) => text);
  });
}

/**
 * Learns a vocabulary of exactly `vocabSize` tokens from weighted texts and returns the two Hugging Face
 * files. Throws UserError if `vocabSize` is too small for the fixed tokens, or the texts are too few to fill
 * it.
 */
export function trainTokenizer(texts: Iterable<TrainingText>, { vocabSize, minCharacterCount = 20 }: BpeOptions): TrainedTokenizer {
  const words = countWords(texts);
  const alphabet = alphabetOf(words, minCharacterCount);
  const fixed = [...gemmaSpecialTokens, '\n', ...byteTokens(), ...alphabet];
  if (vocabSize < fixed.length) throw new UserError(`vocabSize ${vocabSize} is less than the ${fixed.length} tokens that are always there`);
  const merged = learnMerges(words, alphabet, vocabSize - fixed.length);
  const tokens = [...fixed, ...merged];
  if (tokens.length < vocabSize) throw new UserError(`the texts give only ${tokens.length} tokens, vocabSize asks for ${vocabSize}`);
  const rank = new Map([...alphabet, ...merged].map((token, i) => [token, i]));

  const special = (content: string, id: number) => {
    return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  };
  const tokenizerJson = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [...gemmaSpecialTokens.map(special), special(imageToken, vocabSize)],
    normalizer: { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<bos>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [
        { SpecialToken: { id: '<bos>', type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { SpecialToken: { id: '<bos>', type_id: 1 } },
        { Sequence: { id: 'B', type_id: 1 } },
      ],
      special_tokens: { '<bos>': { id: '<bos>', ids: [2], tokens: ['<bos>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: allMerges(merged, rank),
    },
  };
  const tokenizerConfig = {
    tokenizer_class: 'GemmaTokenizer',
    add_bos_token: true,
    add_eos_token: false,
    bos_token: '<bos>',
    eos_token: '<eos>',
    pad_token: '<pad>',
    unk_token: '<unk>',
    mask_token: '<mask>',
    additional_special_tokens: [startOfTurnToken, endOfTurnToken, imageToken],
    clean_up_tokenization_spaces: false,
    model_max_length: 2048,
    chat_template: gemmaChatTemplate,
  };
  return { tokenizerJson, tokenizerConfig };
}
