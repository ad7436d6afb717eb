import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { createTokenizer } from '../text/tokenizer.ts';
import { readTokenizerFiles } from './tokenizer-files.ts';

const dir = mkdtempSync(join(tmpdir(), 'tokenizer-'));
afterAll(() => rmSync(dir, { recursive: true }));
const embedded = fileURLToPath(new URL('../../assets/tokenizer', import.meta.url));

// Ids as tokenizers 0.23.2 and transformers 5.18.0 (AutoTokenizer) give them for these files.
test.each([
  [
    'What is at the top left?\nAnswer the question using a single word or phrase.',
    [457, 385, 391, 363, 416, 402, 295, 7, 405, 363, 428, 425, 360, 424, 427, 401, 430, 278],
  ],
  ['red apple', [864, 977]],
  [' red apple', [1003, 977]],
  [
    'naïve 12 — 👩\u200d🚀\t<0x41>',
    [
      926, 203, 183, 479, 264, 281, 282, 264, 234, 136, 156, 264, 248, 167, 153, 177, 234, 136, 149, 248, 167, 162, 136, 17, 292, 280, 352,
      284, 281, 294,
    ],
  ],
  ['<start_of_turn>model\nyes<end_of_turn>\n', [5, 730, 7, 588, 6, 7]],
])('the embedded tokenizer gives %j the ids that the Python libraries give', async (text, ids) => {
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(embedded);
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  expect(tokenizer.encode(text)).toEqual(ids);
  expect(tokenizer.decode(ids)).toBe(text);
});

test('the embedded tokenizer has 4,096 rows, and `<image>` behind them', async () => {
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(embedded);
  const { imageTokenId, vocabSize } = createTokenizer(tokenizerJson, tokenizerConfig);
  expect([imageTokenId, vocabSize]).toEqual([4096, 4097]);
});

test('a chat_template.jinja beside the files is the template', async () => {
  writeFileSync(join(dir, 'tokenizer.json'), '{}');
  writeFileSync(join(dir, 'tokenizer_config.json'), '{"bos_token":"<bos>","chat_template":"old"}');
  writeFileSync(join(dir, 'chat_template.jinja'), '{{ messages }}');
  const { tokenizerConfig } = await readTokenizerFiles(dir);
  expect(tokenizerConfig).toEqual({ bos_token: '<bos>', chat_template: '{{ messages }}' });
});

test('a missing or broken file is named', async () => {
  await expect(readTokenizerFiles(join(dir, 'none'))).rejects.toThrow(/none.tokenizer\.json: no such file/);
  writeFileSync(join(dir, 'tokenizer_config.json'), '{');
  await expect(readTokenizerFiles(dir)).rejects.toThrow(/tokenizer_config\.json: not valid JSON/);
});
