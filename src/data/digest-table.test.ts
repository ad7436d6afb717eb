import { hash } from 'node:crypto';
import { expect, test } from 'vitest';
import { createDigestTable } from './digest-table.ts';

const digestOf = (text: string) => hash('sha256', text, 'buffer');

test('gives back what was set last, after it has grown many times', () => {
  const table = createDigestTable();
  for (let i = 0; i < 20_000; i++) table.set(digestOf(`${i}`), i);
  for (let i = 0; i < 100; i++) table.set(digestOf(`${i}`), 2 ** 32 - 2 - i);
  expect(table.size).toBe(20_000);
  for (let i = 0; i < 20_000; i++) if (table.get(digestOf(`${i}`)) !== (i < 100 ? 2 ** 32 - 2 - i : i)) expect.unreachable(`${i}`);
  expect(table.get(digestOf('20000'))).toBeUndefined();
});

test('tells digests apart that begin at the same place, and takes no notice of what is behind 16 bytes', () => {
  const table = createDigestTable();
  const digest = (last: number) => Uint8Array.from({ length: 20 }, (_, i) => (i < 15 ? 7 : i === 15 ? last : 9));
  for (let last = 0; last < 256; last++) table.set(digest(last), last);
  for (let last = 0; last < 256; last++) expect(table.get(digest(last).subarray(0, 16))).toBe(last);
  table.set(digest(3).fill(1, 16), 1000);
  expect(table.get(digest(3))).toBe(1000);
  expect(table.size).toBe(256);
});
