import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cellPicture, columnOf, decodeBase64, isMissing, readTable, wholeNumber } from './table.ts';

const folder = mkdtempSync(join(tmpdir(), 'table-'));
const file = (name: string, content: string | Uint8Array) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const cellsOf = (content: string | Uint8Array, name = 'a.tsv') =>
  readTable(file(name, content)).rows.map(({ cells }) => Object.values(cells));

describe('tables', () => {
  it('read quotes as pandas does: around a cell, and as text within one', () => {
    expect(cellsOf('a\tb\n"x ""y""\tz"\tit"s"\n"p\nq"r\t\n')).toEqual([
      ['x "y"\tz', 'it"s"'],
      ['p\nqr', ''],
    ]);
  });

  it('take tabs, commas or semicolons, whatever the name of the file', () => {
    for (const separator of ['\t', ',', ';']) expect(cellsOf(`a${separator}b\n1${separator}2`, 'a.csv')).toEqual([['1', '2']]);
    expect(cellsOf('a,b\n"1,5",2\n', 'a.tsv')).toEqual([['1,5', '2']]);
  });

  it('may have a byte order mark, CRLF, empty lines, short rows and empty cells behind the last', () => {
    expect(cellsOf('\ufeffa\tb\r\n1\t2\r\n\r\n3\r\n4\t5\t\t\r\n')).toEqual([
      ['1', '2'],
      ['3', ''],
      ['4', '5'],
    ]);
  });

  it('leave pictures in the file', async () => {
    const picture = Buffer.from('a picture'.repeat(1000));
    const text = `index\timage\n0\t${picture.toString('base64')}\n1\t"${picture.toString('base64')}"\n2\t0\nüß\tAA=A\n`;
    const { rows } = readTable(file('left.tsv', text), { leave: (column) => column === 'image' });
    expect(rows.map(({ cells }) => cells.image.length)).toEqual([64, 64, 1, 4]);
    for (const row of rows.slice(0, 2)) expect(await cellPicture(row.left.image, 'a').read()).toEqual(picture);
    await expect(cellPicture(rows[2].left.image, 'a').read()).rejects.toThrow(
      /left.tsv:4: the picture's base64 is broken \(it is cut short\)/,
    );
  });

  it('are read in pieces, quotes and characters being cut anywhere', () => {
    const cell = '"ü""ü"'.padEnd(1 << 21, 'x');
    const rows = cellsOf(`a\tb\n${Array.from({ length: 5 }, (_, i) => `${i}\t"${cell.replaceAll('"', '""')}"`).join('\n')}`);
    expect(rows.map(([a, b]) => [a, b === cell])).toEqual([0, 1, 2, 3, 4].map((i) => [String(i), true]));
  });

  it('name the line of what is wrong', () => {
    expect(() => cellsOf('a\tb\n1\t2\n"p\nq"\t2\n1\t2\t3\n')).toThrow(/a.tsv:5: has 3 cells, but there are 2 columns/);
    expect(() => cellsOf('a\tb\n1\t2\n1\t"2\n3\t4\n')).toThrow(/a.tsv:3: the row that begins here does not end; a quote is missing/);
    expect(() => cellsOf(Buffer.from('a\tb\n1\tcaf\xe9\n', 'latin1'))).toThrow(/line 2 is not UTF-8 \(it has the byte 0xE9\)/);
    expect(() => cellsOf(Buffer.from('a\tb\n', 'utf16le'))).toThrow(/is in UTF-16/);
    expect(() => cellsOf('PK\x03\x04xl/workbook')).toThrow(/is a workbook of Excel; export/);
    expect(() => cellsOf('')).toThrow(/is empty/);
    expect(() => readTable(join(folder, 'none.tsv'))).toThrow(/none.tsv: there is no such file/);
    const path = file('columns.tsv', 'Index\tb\n');
    expect(columnOf(readTable(path), path, 'index')).toBe('Index');
    expect(() => columnOf(readTable(path), path, 'answer', 'gold')).toThrow(/has no column answer or gold; its columns are Index, b/);
  });

  it('know missing values and whole numbers of pandas', () => {
    expect(['', 'nan', 'NaN', 'None', 'none', 'N/A', 'null'].every(isMissing)).toBe(true);
    expect(['no', 'nano', '0', ' '].some(isMissing)).toBe(false);
    expect(['241.0', ' 7', '1.5', 'x'].map(wholeNumber)).toEqual(['241', '7', '1.5', 'x']);
  });

  it('refuse broken base64', () => {
    expect(decodeBase64('data:image/png;base64,AAEC\n', 'x')).toEqual(Buffer.from([0, 1, 2]));
    expect(() => decodeBase64('AAE*', 'a.tsv:2')).toThrow(`a.tsv:2: the picture's base64 is broken (it has "*")`);
    expect(() => decodeBase64(' ', 'a.tsv:2')).toThrow('a.tsv:2: has no picture');
  });
});
