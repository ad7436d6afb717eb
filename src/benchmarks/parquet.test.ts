import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { writeParquet } from '../../tests/parquet.ts';
import { ParquetFile } from './parquet.ts';

const folder = mkdtempSync(join(tmpdir(), 'parquet-'));

it('reads columns at once, pictures when they are shown', async () => {
  const path = join(folder, 'a.parquet');
  const image = [0, 1, 2, 3, 4].map((i) => (i === 3 ? null : { bytes: new Uint8Array([i, 255]), path: `${i}.png` }));
  writeParquet(path, { id: ['a', 'b', 'c', 'd', 'é'], image, index: [1, 2, 3, 4, 5] }, { pictures: ['image'] });
  const file = await ParquetFile.open(path);
  expect(file.columns).toEqual(['id', 'image', 'index']);
  expect((await file.read(['index', 'id']))[4]).toEqual({ id: 'é', index: 5 });
  const pictures = await Promise.all([0, 1, 2, 4].map((row) => file.picture('image', row, 'x').read()));
  expect(pictures.map((bytes) => [...(bytes as Uint8Array)])).toEqual([0, 1, 2, 4].map((i) => [i, 255]));
  await expect(file.picture('image', 3, 'x').read()).rejects.toThrow(/row 4 has no picture in the file's column image/);
  await expect(file.read(['answer'])).rejects.toThrow(/has no column answer; its columns are id, image, index/);
});

it('names files that are missing or cut short', async () => {
  const path = join(folder, 'cut.parquet');
  writeParquet(path, { id: ['a'] });
  writeFileSync(path, readFileSync(path).subarray(0, 40));
  await expect(ParquetFile.open(path)).rejects.toThrow(/cut.parquet: cannot be read as Parquet/);
  await expect(ParquetFile.open(join(folder, 'none.parquet'))).rejects.toThrow(/none.parquet: there is no such file/);
});
