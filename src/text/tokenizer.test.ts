import { expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { trainTokenizer } from './bpe-trainer.ts';
import { gemmaChatTemplate } from './chat-template.ts';
import { createTokenizer, isLongerThan } from './tokenizer.ts';

const { tokenizerJson, tokenizerConfig } = trainTokenizer([{ text: 'a red apple', weight: 9 }], { vocabSize: 365 });

type Json = { added_tokens: { content: string }[]; model: Record<string, unknown> };
function edited(edit: (json: Json) => void): unknown {
  const json = structuredClone(tokenizerJson) as Json;
  edit(json);
  return json;
}

test.each([
  ['words', 'a red apple '.repeat(2000)],
  ['one word', 'a'.repeat(20_000)],
  ['bytes', '\u{1F600}'.repeat(6000)],
  ['few', 'a red apple'],
  ['none', ''],
])('what is longer than a limit is told without encoding all of it: %s', (_, text) => {
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  const tokens = tokenizer.encode(text).length;
  expect(isLongerThan(tokenizer, text, tokens)).toBe(false);
  // within what the cuts may have added
  expect(isLongerThan(tokenizer, text, Math.max(0, Math.floor(0.9 * tokens) - 100))).toBe(tokens > 111);
  let encoded = 0;
  const counting = {
    ...tokenizer,
    encodeWithoutImages(part: string) {
      encoded += part.length;
      return tokenizer.encodeWithoutImages(part);
    },
  };
  expect(isLongerThan(counting, text, 50)).toBe(tokens > 111);
  expect(encoded).toBeLessThanOrEqual(Math.min(text.length, 4096));
});

test('a tokenizer without `<image>` gets it behind its last id, as the released LLaVA-Gemma has it', () => {
  const json = edited((copy) => {
    copy.added_tokens = copy.added_tokens.filter((token) => token.content !== '<image>');
  });
  const tokenizer = createTokenizer(json, tokenizerConfig);
  expect(tokenizer.imageTokenId).toBe(365);
  expect(tokenizer.vocabSize).toBe(366);
  expect(tokenizer.encode('<image>a')).toEqual([365, ...tokenizer.encode('a')]);
});

test('tokens that are added behave as those that are declared: special, and no eater of spaces', () => {
  const json = edited((copy) => {
    copy.added_tokens = copy.added_tokens.filter(({ content }) => content !== '<image>' && !content.includes('turn'));
  });
  const [added, declared] = [json, tokenizerJson].map((file) => createTokenizer(file, tokenizerConfig));
  for (const token of ['<image>', '<start_of_turn>', '<end_of_turn>']) {
    for (const text of [`a ${token} red`, `a${token}red`, ` ${token}\n`, `${token}${token}`])
      expect(added.encode(text), text).toEqual(declared.encode(text));
    const [id] = added.encode(token);
    expect(added.isSpecial(id)).toBe(true);
    expect(added.decode([id, ...added.encode('a')], { skipSpecialTokens: true })).toBe('a');
  }
});

test('turn markers that are declared need not be in the vocabulary as well', () => {
  const json = edited((copy) => {
    const vocab = copy.model.vocab as Record<string, number>;
    delete vocab['<start_of_turn>'];
    delete vocab['<end_of_turn>'];
  });
  const { encode, endOfTurnTokenId } = createTokenizer(json, tokenizerConfig);
  expect([encode('<start_of_turn>'), endOfTurnTokenId]).toEqual([[5], 6]);
});

test('a token that is added without being special is text', () => {
  const json = edited((copy) => {
    const more = { id: 400, content: '\n\n', special: false, normalized: false, single_word: false, lstrip: false, rstrip: false };
    copy.added_tokens.push(more);
  });
  const tokenizer = createTokenizer(json, tokenizerConfig);
  expect(tokenizer.encode('\n\n')).toEqual([400]);
  expect(tokenizer.isSpecial(400)).toBe(false);
  expect(tokenizer.decode([400], { skipSpecialTokens: true })).toBe('\n\n');
});

test('the config says which tokens begin, end, fill and stand for the unknown, and how to lay out a conversation', () => {
  const names = { bos_token: '<mask>', eos_token: { content: '<bos>' }, pad_token: '<unk>', unk_token: '<pad>' };
  const tokenizer = createTokenizer(tokenizerJson, { ...names, chat_template: '{{ bos_token }}' });
  const { bosTokenId, eosTokenId, padTokenId, unkTokenId } = tokenizer;
  expect([bosTokenId, eosTokenId, padTokenId, unkTokenId]).toEqual([4, 2, 3, 0]);
  expect(tokenizer.bosToken).toBe('<mask>');
  expect(tokenizer.chatTemplate).toBe('{{ bos_token }}');
  expect(tokenizer.token(9999)).toBe('<pad>');
});

test.each([null, undefined, {}, { bos_token: null, chat_template: null }])(
  'a config that says nothing of it, as %j, leaves everything to Gemma',
  (config) => {
    const tokenizer = createTokenizer(tokenizerJson, config);
    const { bosTokenId, eosTokenId, padTokenId, unkTokenId } = tokenizer;
    expect([bosTokenId, eosTokenId, padTokenId, unkTokenId]).toEqual([2, 1, 0, 3]);
    expect(tokenizer.bosToken).toBe('<bos>');
    expect(tokenizer.chatTemplate).toBe(gemmaChatTemplate);
  },
);

test('a config that names as one token what is several is refused', () => {
  const create = () => createTokenizer(tokenizerJson, { eos_token: 'the end' });
  expect(create).toThrow(UserError);
  expect(create).toThrow('"the end" is not one token');
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
  ['a model without a vocabulary', edited((json) => Object.assign(json.model, { vocab: null })), /no model\.vocab/],
  ['a vocabulary that is a word', edited((json) => Object.assign(json.model, { vocab: 'a' })), /no model\.vocab/],
  ['one without added tokens', edited((json) => Object.assign(json, { added_tokens: undefined })), /no model\.vocab or no added_tokens/],
  [
    'a normalizer of a kind that nobody knows',
    edited((json) => Object.assign(json, { normalizer: { type: 'Magic' } })),
    /cannot be used: /,
  ],
  ['a tokenizer without byte fallback', edited((json) => Object.assign(json.model, { byte_fallback: false })), /no byte fallback/],
  ['one of another family', { model: { vocab: { a: 0 }, byte_fallback: true }, added_tokens: [] }, /no token <start_of_turn>/],
])('%s is refused in one sentence', (_, json, pattern) => {
  expect(() => createTokenizer(json, {})).toThrow(UserError);
  expect(() => createTokenizer(json, {})).toThrow(pattern);
});

test('ids of rows that pad an embedding table are no text in an answer, as in transformers', () => {
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  const ids = [...tokenizer.encode('a red'), tokenizer.vocabSize + 3];
  expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe('a red');
});
