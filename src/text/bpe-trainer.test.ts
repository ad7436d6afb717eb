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
