import { createHash } from 'node:crypto';
import { mkdtempSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { contentOf, isSameContent, modelContent } from './content.ts';

const sha256 = (...parts: (Buffer | string)[]) => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

/** A folder of a model with so many bytes of weights. */
function folderOf(weights: Buffer): { folder: string; path: string } {
  const folder = mkdtempSync(join(tmpdir(), 'content-'));
  const path = join(folder, 'model.safetensors');
  writeFileSync(join(folder, 'config.json'), '{}');
  writeFileSync(path, weights);
  return { folder, path };
}

test('of large weights every byte counts, also those in the middle', async () => {
  const weights = Buffer.alloc(5 << 20, 1);
  const { folder, path } = folderOf(weights);
  const before = [await contentOf(path), await modelContent(folder)];
  // another connector, between the encoder and the language model
  weights[weights.length >> 1] = 2;
  writeFileSync(path, weights);
  const later = new Date(statSync(path).mtimeMs + 2000);
  utimesSync(path, later, later);
  const after = [await contentOf(path), await modelContent(folder)];
  for (const i of [0, 1]) {
    expect(after[i]).not.toBe(before[i]);
    expect(isSameContent(before[i], after[i])).toBe(false);
    expect(isSameContent(after[i], after[i])).toBe(true);
  }
  expect([await contentOf(path), await modelContent(folder)]).toEqual(after);
});

test('what earlier versions kept of a model, which they began to train, is still known', async () => {
  const weights = Buffer.alloc(5 << 20, 1);
  const { folder, path } = folderOf(weights);
  const ends = sha256(weights.subarray(0, 1 << 20), weights.subarray(-(1 << 20)));
  const old = `${weights.length} bytes, sha256 ${ends}`;
  const config = `2 bytes, sha256 ${sha256('{}')}`;
  expect(isSameContent(old, await contentOf(path))).toBe(true);
  expect(isSameContent(old.replace(/.$/, 'x'), await contentOf(path))).toBe(false);
  expect(isSameContent(undefined, await contentOf(path))).toBe(false);
  const oldModel = sha256(`config.json: ${config}\nmodel.safetensors: ${old}\n`);
  expect(isSameContent(oldModel, await modelContent(folder))).toBe(true);
  // of small files nothing has changed
  const small = folderOf(Buffer.alloc(100, 1));
  const content = `100 bytes, sha256 ${sha256(Buffer.alloc(100, 1))}`;
  expect(await contentOf(small.path)).toBe(content);
  expect(await modelContent(small.folder)).toBe(sha256(`config.json: ${config}\nmodel.safetensors: ${content}\n`));
});
