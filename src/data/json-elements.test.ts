import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, it } from 'vitest';
import { forEachElement, lineInFile } from './json-elements.ts';

const folder = mkdtempSync(join(tmpdir(), 'elements-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'data.json');

/** The elements of a file, each with whether its place is where its bytes are. */
async function elementsOf(content: string) {
  const bytes = Buffer.from(content);
  writeFileSync(path, bytes);
  const elements: unknown[] = [];
  await forEachElement(path, (json, offset) => {
    expect(Buffer.compare(json, bytes.subarray(offset, offset + json.length))).toBe(0);
    elements.push(JSON.parse(Buffer.from(json).toString()));
  });
  return elements;
}

// strings full of what borders are made of
const awkward = fc.string({ unit: fc.constantFrom('"', '\\', ',', '[', ']', '{', '}', '\n', ' ', 'é', '漢', 'a'), maxLength: 12 });
const value = fc.oneof(awkward, fc.jsonValue({ maxDepth: 3 }), fc.array(fc.dictionary(awkward, awkward), { maxLength: 3 }));

it('are those of JSON.parse, whatever they are and however they are laid out', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(value), fc.constantFrom(0, 2, '\t'), fc.constantFrom('', '\ufeff', '\r\n '), async (list, indent, before) => {
      expect(await elementsOf(before + JSON.stringify(list, null, indent))).toEqual(JSON.parse(JSON.stringify(list)));
      const lines = (await elementsOf(JSON.stringify(list))).map((messages) => ({ messages }));
      if (lines.length > 0) expect(await elementsOf(before + lines.map((line) => JSON.stringify(line)).join('\n'))).toEqual(lines);
    }),
    { numRuns: 200 },
  );
});

it('are found across the pieces in which a file is read', async () => {
  // borders, escapes and characters of several bytes fall on every side of the cuts at 4 MB
  const list = Array.from({ length: 60 }, (_, i) => ({ messages: `${'é"\\'.repeat(40_000 + i)}`, i }));
  expect(await elementsOf(JSON.stringify(list))).toEqual(list);
  expect(await elementsOf(list.map((line) => JSON.stringify(line)).join('\n'))).toEqual(list);
});

it('end at 64 MB: a missing quote does not lead through the whole file', async () => {
  const sample = `{"a": "${'x'.repeat(1_000_000)}"},\n`;
  writeFileSync(path, `[\n${sample}{"a": "x},\n${sample.replaceAll('"', '').repeat(70)}{}]`);
  const refused = forEachElement(path, () => {});
  await expect(refused).rejects.toThrow(`${path}: is not JSON: line 3: the sample that begins here does not end`);
});

it('have lines by which they are found', () => {
  writeFileSync(path, 'a\nbc\n\nd');
  expect([0, 1, 2, 3, 5, 6].map((offset) => lineInFile(path, offset))).toEqual([1, 1, 2, 2, 3, 4]);
});
