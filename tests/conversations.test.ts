// Samples as people bring them come out as the token ids and labels that LLaVA's rules give
// (tests/reference/make_conversations.py).

import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { readTokenizerFiles } from '../src/checkpoint/tokenizer-files.ts';
import { conversationBatches } from '../src/data/conversations.ts';
import { indexData, openData } from '../src/data/data-set.ts';
import type { EncodedSample } from '../src/data/packing.ts';
import { createTokenizer } from '../src/text/tokenizer.ts';

interface Golden {
  sample: { image?: string | null; images?: string[] | null };
  inputIds: number[];
  labels: number[];
}

const goldens: Golden[] = JSON.parse(readFileSync('tests/reference/goldens/conversations.json', 'utf8'));
const encoded: EncodedSample[] = [];

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'conversations-'));
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles('assets/tokenizer');
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  writeFileSync(join(folder, 'a.png'), '');
  const path = join(folder, 'data.json');
  for (const { sample } of goldens) {
    writeFileSync(path, JSON.stringify([sample]));
    const data = openData(await indexData([{ path, imageFolder: folder, share: 1 }]));
    const options = { data, tokenizer, imageTokens: 3, template: 'gemma', maxLength: 500, batchSize: 1, seed: 1, stage: 'a' } as const;
    encoded.push(...conversationBatches(options).batch(0));
    data.close();
  }
});

test.each(goldens.map((golden, i) => [JSON.stringify(golden.sample), golden, i] as const))('%s', (_, { sample, inputIds, labels }, i) => {
  expect(encoded[i].inputIds).toEqual(inputIds);
  expect(encoded[i].labels).toEqual(labels);
  expect(encoded[i].images).toHaveLength(sample.image || sample.images ? 1 : 0);
});

test('a picture that is named in the middle or at the end of the first question is shared as one at its beginning', () => {
  const prefixes = encoded.slice(0, 6).map(({ inputIds, prefixLength }) => inputIds.slice(0, prefixLength));
  expect(prefixes[0]).toHaveLength(8);
  for (const prefix of prefixes) expect(prefix).toEqual(prefixes[0]);
});
