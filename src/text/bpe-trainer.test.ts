import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { type TrainingText, trainTokenizer } from './bpe-trainer.ts';
import { createTokenizer } from './tokenizer.ts';

const texts: TrainingText[] = [
  { text: 'what is at the top left? a red apple.\nhow many things are in the picture? 3', weight: 40 },
  { text: 'a cat is a feline mammal usually having thick soft fur; domestic cats and wild cats', weight: 10 },
  { text: 'café crème: naïve façade, 10 °C', weight: 30 },
];
const trained = trainTokenizer(texts, { vocabSize: 450 });
const tokenizer = createTokenizer(trained.tokenizerJson, trained.tokenizerConfig);
const words = (text: string) => tokenizer.encode(text).map((id) => tokenizer.token(id));

test('the ids of the special tokens are those of Gemma, `<image>` lies behind the vocabulary', () => {
  expect([0, 1, 2, 3, 4, 5, 6, 7].map((id) => tokenizer.token(id))).toEqual([
    '<pad>',
    '<eos>',
    '<bos>',
    '<unk>',
    '<mask>',
    '<start_of_turn>',
    '<end_of_turn>',
    '\n',
  ]);
  const { padTokenId, eosTokenId, bosTokenId, unkTokenId, imageTokenId, vocabSize } = tokenizer;
  expect([padTokenId, eosTokenId, bosTokenId, unkTokenId, imageTokenId, vocabSize]).toEqual([0, 1, 2, 3, 450, 451]);
});

test('frequent words become one token with their space; digits, punctuation and line breaks stay alone', () => {
  expect(words('what is at the top left?')).toEqual(['what', '▁is', '▁at', '▁the', '▁top', '▁left', '?']);
  expect(words('2023.\n\nwhat')).toEqual(['2', '0', '2', '3', '.', '\n', '\n', 'what']);
  expect(words('a <image>\nb')).toEqual(['a', '▁', '<image>', '\n', 'b']);
});

test('what the alphabet lacks becomes bytes', () => {
  expect(words('é')).toEqual(['é']);
  expect(words('\t🍎')).toEqual(['<0x09>', '<0xF0>', '<0x9F>', '<0x8D>', '<0x8E>']);
});

test('training twice gives the same files; the order of the texts does not matter', () => {
  const again = trainTokenizer([...texts].reverse(), { vocabSize: 450 });
  expect(JSON.stringify(again)).toBe(JSON.stringify(trained));
});

test('no merge joins two words, a digit or punctuation: a text is encoded as its words are', () => {
  const model = trained.tokenizerJson.model as { merges: string[] };
  for (const merge of model.merges) expect(merge.replace(' ', '')).toMatch(/^▁?[\p{L}\p{M}]+$/u);
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom('▁red', 'ap', 'ple', ' ', ' cat', 's', '\n', '3', '. ', 'é', '🍎', 'zz'), { maxLength: 12 }),
      (parts) => {
        const text = parts.join('').replaceAll('▁', ' ');
        const pieces = text.match(/ ?[\p{L}\p{M}]+|[^\p{L}\p{M}]/gu) ?? [];
        expect(tokenizer.encode(text)).toEqual(pieces.flatMap((piece) => tokenizer.encode(piece)));
      },
    ),
  );
});

test('a vocabulary that cannot be filled, or is too small for the fixed tokens, is refused', () => {
  expect(() => trainTokenizer([{ text: 'a b' }], { vocabSize: 450 })).toThrow(UserError);
  expect(() => trainTokenizer(texts, { vocabSize: 100 })).toThrow(/vocabSize 100 is less than/);
});

/** Tokens in the order of their ids. */
const vocabulary = (list: TrainingText[], vocabSize: number, minCharacterCount?: number) => {
  const { vocab } = trainTokenizer(list, { vocabSize, minCharacterCount }).tokenizerJson.model as { vocab: Record<string, number> };
  const entries = Object.entries(vocab).sort(([, a], [, b]) => a - b);
  expect(entries.map(([, id]) => id)).toEqual([...entries.keys()]);
  return entries.map(([token]) => token);
};
/** Special tokens, the line break, bytes, `▁` and ASCII. */
const ALWAYS = 7 + 1 + 256 + 95;

test('characters beyond ASCII that are frequent enough come most frequent first, then in their order', () => {
  const list = [{ text: 'ä'.repeat(3), weight: 7 }, { text: 'éü', weight: 20 }, { text: 'ô', weight: 19 }, { text: 'ñ ñ ñ' }];
  expect(vocabulary(list, ALWAYS + 3).slice(ALWAYS)).toEqual(['ä', 'é', 'ü']);
  expect(vocabulary(list, ALWAYS + 5, 3).slice(ALWAYS)).toEqual(['ä', 'é', 'ü', 'ô', 'ñ']);
});

test('the vocabulary grows by the most frequent pair, the first in the alphabet of equals, as counting anew after each merge finds it', () => {
  /** The same in the plainest way. */
  function merges(counts: ReadonlyMap<string, number>, size: number): string[] {
    const split = [...counts].map(([word, count]) => ({ symbols: Array.from(word), count }));
    const known = new Set(split.flatMap(({ symbols }) => symbols));
    const found: string[] = [];
    while (found.length < size) {
      const pairs = new Map<string, number>();
      for (const { symbols, count } of split)
        for (let i = 1; i < symbols.length; i++) {
          const key = `${symbols[i - 1]} ${symbols[i]}`;
          pairs.set(key, (pairs.get(key) ?? 0) + count);
        }
      const [best] = [...pairs].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
      if (!best) break;
      const [left, right] = best[0].split(' ');
      for (const word of split) {
        const next: string[] = [];
        for (const symbol of word.symbols)
          if (symbol === right && next.at(-1) === left) next.splice(-1, 1, left + right);
          else next.push(symbol);
        // of `a a a` the first two are joined, so a joined token must not be taken for its own left part
        word.symbols = next;
      }
      if (!known.has(left + right)) found.push(left + right);
      known.add(left + right);
    }
    return found;
  }
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(word, fc.integer({ min: 1, max: 4 })), { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 1, max: 9 }),
      (list, size) => {
        const counts = new Map<string, number>();
        for (const [text, weight] of list) counts.set(text, (counts.get(text) ?? 0) + weight);
        const expected = merges(counts, size);
        const trainingTexts = list.map(([text, weight]) => ({ text, weight }));
        expect(vocabulary(trainingTexts, ALWAYS + expected.length).slice(ALWAYS)).toEqual(expected);
        if (expected.length < size)
          expect(() => trainTokenizer(trainingTexts, { vocabSize: ALWAYS + size })).toThrow(/give only \d+ tokens/);
      },
    ),
    { numRuns: 60 },
  );
});

test('a learnt token has every way to put it together as a merge, the likelier tokens first', () => {
  const { vocab, merges } = trained.tokenizerJson.model as { vocab: Record<string, number>; merges: string[] };
  const first = vocab['▁'];
  const learnt = Object.keys(vocab).filter((token) => Array.from(token).length > 1 && vocab[token] > first);
  const expected = learnt.flatMap((token) => {
    const characters = Array.from(token);
    const ways = characters.slice(1).map((_, i) => [characters.slice(0, i + 1).join(''), characters.slice(i + 1).join('')]);
    return ways
      .filter((parts) => parts.every((part) => vocab[part] >= first))
      .sort(([a, c], [b, d]) => vocab[a] - vocab[b] || vocab[c] - vocab[d])
      .map((parts) => parts.join(' '));
  });
  expect(merges).toEqual(expected);
  expect(merges.length).toBeGreaterThan(learnt.length);
});

test('but for its words, the files are those of the tokenizer that comes along', () => {
  const shipped = (name: string) => JSON.parse(readFileSync(new URL(`../../assets/tokenizer/${name}`, import.meta.url), 'utf8'));
  const form = ({ model, added_tokens, ...rest }: Record<string, unknown>) => {
    const { vocab: _, merges: __, ...how } = model as Record<string, unknown>;
    const added = (added_tokens as { id: number; content: string }[]).map((token) =>
      token.content === '<image>' ? { ...token, id: 0 } : token,
    );
    return { ...rest, model: how, added };
  };
  expect(form(trained.tokenizerJson)).toEqual(form(shipped('tokenizer.json')));
  expect(trained.tokenizerConfig).toEqual(shipped('tokenizer_config.json'));
});

test('the alphabet begins with `▁` and printable ASCII; a word with a character that it lacks teaches nothing', () => {
  const printable = Array.from({ length: 0x7f - 0x21 }, (_, i) => String.fromCharCode(0x21 + i));
  const rare = [{ text: 'abé', weight: 5 }, { text: 'cd' }];
  expect(vocabulary(rare, ALWAYS + 1).slice(7 + 1 + 256)).toEqual(['▁', ...printable, 'cd']);
});
