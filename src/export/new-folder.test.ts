import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { exportLlamaCpp } from './llama-cpp.ts';
import { checkDtypes, newFolder } from './new-folder.ts';
import type { ExportSource } from './source.ts';
import { exportTransformersJs } from './transformers-js.ts';

const folder = mkdtempSync(join(tmpdir(), 'new-folder-'));
const at = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

describe('the folder of an export', () => {
  test('is new, empty, or what a link leads to', () => {
    mkdirSync(at('empty'));
    symlinkSync(at('empty'), at('link'));
    expect(newFolder(at('new'))).toBe(at('new'));
    expect(newFolder(at('empty'))).toBe(at('empty'));
    expect(newFolder(at('link'))).toBe(realpathSync(at('empty')));
  });

  test('is none that holds something, no file, no dangling link, and not the one that this runs in', () => {
    mkdirSync(at('full'));
    writeFileSync(at('full/mine.txt'), '');
    symlinkSync(at('nowhere'), at('dangling'));
    const messageOf = (path: string) => {
      try {
        return newFolder(path);
      } catch (error) {
        expect(error).toBeInstanceOf(UserError);
        return (error as Error).message;
      }
    };
    expect(messageOf(at('full'))).toBe(`${at('full')} holds mine.txt; give a folder that is new or empty`);
    expect(messageOf(at('full/mine.txt'))).toBe(`${at('full/mine.txt')} is a file; give a folder`);
    expect(messageOf(at('dangling'))).toBe(`${at('dangling')} is a link to what is not there; give a folder`);
    mkdirSync(at('here'));
    const before = process.cwd();
    process.chdir(at('here'));
    try {
      expect(messageOf('.')).toBe('. is the folder that this runs in, which cannot be replaced; give one in it');
    } finally {
      process.chdir(before);
    }
  });

  test('keeps what is in it when an export is called from code', async () => {
    const source = {} as ExportSource;
    for (const written of [
      exportTransformersJs(source, at('full'), { dtypes: ['fp32'] }),
      exportLlamaCpp(source, at('full'), { dtypes: ['F16'], classToken: 'last' }),
    ])
      await expect(written).rejects.toThrow('holds mine.txt; give a folder that is new or empty');
  });

  test('is of types that there are', () => {
    expect(() => checkDtypes(['a', 'Q9'], ['a', 'b'])).toThrow('dtypes: there is no "Q9", but a, b');
    expect(() => checkDtypes([], ['a', 'b'])).toThrow('dtypes: give one or more of a, b');
  });
});
