import fc from 'fast-check';
import { expect, test } from 'vitest';
import { trainTokenizer } from './bpe-trainer.ts';
import { createTextStream } from './stream.ts';
import { createTokenizer } from './tokenizer.ts';

const trained = trainTokenizer([{ text: 'what is at the top left? a red apple', weight: 40 }], { vocabSize: 380 });
const tokenizer = createTokenizer(trained.tokenizerJson, trained.tokenizerConfig);

const text = fc
  .array(fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('\uFEFF', '👩‍🚀', '<image>', '<end_of_turn>', '<0x41>', '\u0000')))
  .map((parts) =>
    parts
      .join('')
      .replaceAll('▁', ' ')
      .replaceAll(/[\uD800-\uDFFF]/gu, ''),
  );

test('decode gives back what was encoded', () => {
  fc.assert(
    fc.property(text, (original) => {
      expect(tokenizer.decode(tokenizer.encode(original))).toBe(original);
    }),
    { numRuns: 400 },
  );
});

const ids = fc.array(fc.oneof(fc.nat(tokenizer.vocabSize - 1), fc.integer({ min: 8, max: 263 })), { maxLength: 30 });

test('the pieces of any ids, valid or not, add up to their text, and hold whole characters only', () => {
  fc.assert(
    fc.property(ids, fc.boolean(), (list, skipSpecialTokens) => {
      const stream = createTextStream(tokenizer, { skipSpecialTokens });
      const pieces = list.map((id) => stream.push(id));
      expect(pieces.join('') + stream.end()).toBe(tokenizer.decode(list, { skipSpecialTokens }));
      for (const piece of pieces) expect(piece).not.toMatch(/\p{Cs}/u);
    }),
    { numRuns: 400 },
  );
});

test('an unfinished character is held back until it is whole, and shown as U+FFFD when it never is', () => {
  const stream = createTextStream(tokenizer);
  expect(tokenizer.encode('🍎').map((id) => stream.push(id))).toEqual(['', '', '', '🍎']);
  expect(stream.push(tokenizer.encode('🍎')[0])).toBe('');
  expect(stream.push(tokenizer.encode('a')[0])).toBe('\uFFFDa');
  expect(stream.push(tokenizer.encode('🍎')[0])).toBe('');
  expect(stream.end()).toBe('\uFFFD');
});

test('special tokens can be left out', () => {
  const list = [tokenizer.bosTokenId, ...tokenizer.encode('a red apple'), tokenizer.endOfTurnTokenId];
  expect(tokenizer.decode(list, { skipSpecialTokens: true })).toBe('a red apple');
  expect(tokenizer.decode(list)).toBe('<bos>a red apple<end_of_turn>');
  expect(tokenizer.decode([])).toBe('');
});

test('only a whole byte token is a byte, and only words have their space written as `▁`', () => {
  const tokens = ['x<0x41>', '<0x41>x', '<0x41>', '▁a▁b', '<▁>'];
  const stream = createTextStream({ token: (id) => tokens[id], isSpecial: (id) => id === 4 });
  expect(tokens.map((_, id) => stream.push(id))).toEqual(['x<0x41>', '<0x41>x', 'A', ' a b', '<▁>']);
});
