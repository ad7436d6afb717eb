import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { JsonFile } from './json-entries.ts';

const folder = mkdtempSync(join(tmpdir(), 'entries-'));
const open = (content: string | Uint8Array) => {
  const path = join(folder, 'file.json');
  writeFileSync(path, content);
  return new JsonFile(path, 'a test');
};

describe('entries of a JSON file', () => {
  it('are those that JSON.parse finds', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.array(fc.jsonValue()), fc.constantFrom(0, 2), (object, array, indent) => {
        const file = open(JSON.stringify(object, null, indent));
        const members = [...file.entries()].map(({ key, value }) => [key, value]);
        expect(members).toEqual(Object.entries(JSON.parse(JSON.stringify(object))));
        expect(file.keys()).toEqual(Object.keys(object));
        expect(file.isWhole).toBe(true);
        const nested = open(JSON.stringify({ info: object, data: array }, null, indent));
        expect([...nested.entries('data')].map(({ value }) => value)).toEqual(JSON.parse(JSON.stringify(array)));
        expect(open(JSON.stringify(array, null, indent)).kind).toBe('array');
      }),
    );
  });

  it('have their line, or their number in a file of one line', () => {
    expect([...open('[\r\n 1,\n\n 2\n]').entries()].map(({ where }) => where)).toEqual(['file.json:2', 'file.json:4']);
    expect([...open('[1, 2]\n').entries()].map(({ where }) => where)).toEqual(['file.json, entry 1', 'file.json, entry 2']);
  });

  it('tell JSON Lines from one object, with a mark of its encoding or not', () => {
    expect(open('\ufeff{"a": 1}\r\n{"a": 2}\r\n').isWhole).toBe(false);
    expect(open('\ufeff{"a": 1}\n').isWhole).toBe(true);
    expect(open('{}\n').isWhole).toBe(true);
    expect(open('a,b').kind).toBe('other');
  });

  it('are refused with the line where they are no JSON', () => {
    const entries = (content: string | Uint8Array) => [...open(content).entries()];
    expect(() => entries('[1,\n2')).toThrow(/file.json:2: is not JSON \(a comma is missing, or the end/);
    expect(() => entries('[1,\n{"a": [1}')).toThrow(/file.json:2: is not JSON/);
    expect(() => entries('{"a": 1,\n b: 2}')).toThrow(/file.json:2: is not JSON \(a key is missing\)/);
    expect(() => entries('{"a" 1}')).toThrow(/a colon is missing/);
    expect(() => entries('["a')).toThrow(/text that begins here does not end/);
    expect(() => entries('[1,\n nul]')).toThrow(/file.json:2: is not JSON/);
    expect(() => entries('  ')).toThrow(/is empty; it should be a test/);
    expect(() => [...open('{"a": []}').entries('data')]).toThrow(/has no data; it should be a test/);
    expect(() => open(Buffer.from('["caf\xe9"]', 'latin1'))).toThrow(/file.json: line 1 is not UTF-8 \(it has the byte 0xE9\)/);
    expect(() => open(Buffer.from('[1]', 'utf16le'))).toThrow(/is in UTF-16/);
  });
});
