import { expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { trainTokenizer } from './bpe-trainer.ts';
import { gemmaChatTemplate } from './chat-template.ts';
import { createTokenizer } from './tokenizer.ts';

const { tokenizerJson, tokenizerConfig } = trainTokenizer([{ text: 'a red apple', weight: 9 }], { vocabSize: 365 });

type Json = { added_tokens: { content: string }[]; model: Record<string, unknown> };
function edited(edit: (json: Json) => void): unknown {
  const json = structuredClone(tokenizerJson) as Json;
  edit(json);
  return json;
}

test('a tokenizer without `<image>` gets it behind its last id, as the released LLaVA-Gemma has it', () => {
  const json = edited((copy) => {
    copy.added_tokens = copy.added_tokens.filter((token) => token.content !== '<image>');
  });
  const tokenizer = createTokenizer(json, tokenizerConfig);
  expect(tokenizer.imageTokenId).toBe(365);
  expect(tokenizer.vocabSize).toBe(366);
  expect(tokenizer.encode('<image>a')).toEqual([365, ...tokenizer.encode('a')]);
});

test('turn markers that are in the vocabulary but not declared special are one token all the same', () => {
  const json = edited((copy) => {
    copy.added_tokens = copy.added_tokens.filter((token) => !token.content.includes('turn'));
  });
  expect(createTokenizer(json, tokenizerConfig).encode('<start_of_turn>')).toEqual([5]);
});

test('encode adds no <bos>; special tokens may be written as objects in the config; a missing template is Gemma’s', () => {
  const tokenizer = createTokenizer(tokenizerJson, { bos_token: { content: '<bos>' } });
  expect(tokenizer.encode('')).toEqual([]);
  expect(tokenizer.encode('a')).not.toContain(tokenizer.bosTokenId);
  expect(tokenizer.encode('<bos>')).toEqual([2]);
  expect(tokenizer.chatTemplate).toBe(gemmaChatTemplate);
});

test.each([
  ['null', null, /no model\.vocab/],
  ['an empty object', {}, /no model\.vocab/],
  ['a tokenizer without byte fallback', edited((json) => Object.assign(json.model, { byte_fallback: false })), /no byte fallback/],
  ['one of another family', { model: { vocab: { a: 0 }, byte_fallback: true }, added_tokens: [] }, /no token <start_of_turn>/],
])('%s is refused in one sentence', (_, json, pattern) => {
  expect(() => createTokenizer(json, {})).toThrow(UserError);
  expect(() => createTokenizer(json, {})).toThrow(pattern);
});
