import { expect, test } from 'vitest';
import { trainTokenizer } from '../text/bpe-trainer.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { checkVocabulary } from './load.ts';
import { hubTokenizerFiles } from './tokenizer-form.ts';

/** Files as those of Gemma 3, whose token of images lies behind the 365 of the vocabulary. */
function gemma3Files() {
  const { tokenizerJson, tokenizerConfig } = trainTokenizer([{ text: 'a red apple', weight: 9 }], { vocabSize: 365 });
  const json = structuredClone(tokenizerJson) as { added_tokens: { content: string }[] };
  json.added_tokens.find(({ content }) => content === '<image>')!.content = '<image_soft_token>';
  const images = { boi_token: '<start_of_image>', eoi_token: '<end_of_image>', image_token: '<image_soft_token>' };
  return { tokenizerJson: json, tokenizerConfig: { ...tokenizerConfig, ...images, extra_special_tokens: { ...images, other: '<mask>' } } };
}

test('a Gemma 3 of text, without a row for its token of images, becomes a language model', () => {
  const { tokenizerJson, tokenizerConfig } = gemma3Files();
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  expect(() => checkVocabulary(tokenizer, 365, 'here')).not.toThrow();
  expect(() => checkVocabulary(tokenizer, 364, 'here')).toThrow('here: the language model has 364 tokens, but the tokenizer has 365');
});

test('what is written names `<image>` as the token of images, which LlavaProcessor takes from the tokenizer', () => {
  const files = hubTokenizerFiles(gemma3Files());
  const config = JSON.parse(files['tokenizer_config.json']);
  expect(config).toMatchObject({ image_token: '<image>', extra_special_tokens: { image_token: '<image>', other: '<mask>' } });
  expect(Object.keys(config.extra_special_tokens)).toEqual(['other', 'image_token']);
  for (const text of Object.values(files)) expect(text).not.toMatch(/image_soft_token|start_of_image|end_of_image/);
  const list = { ...gemma3Files().tokenizerConfig, extra_special_tokens: ['<mask>', '<image_soft_token>'] };
  const listed = hubTokenizerFiles({ ...gemma3Files(), tokenizerConfig: list });
  expect(JSON.parse(listed['tokenizer_config.json']).extra_special_tokens).toEqual(['<mask>']);
  const plain = trainTokenizer([{ text: 'a red apple', weight: 9 }], { vocabSize: 365 });
  expect(hubTokenizerFiles(plain)['tokenizer_config.json']).not.toMatch(/image_token|extra_special_tokens/);
});
