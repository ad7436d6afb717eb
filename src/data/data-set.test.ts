import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { createGrouping, type DataFile, indexData, onePerGroup, openData } from './data-set.ts';
import { readLlavaJson } from './llava-json.ts';
import { drawSamples, samplesPerEpoch } from './sample-order.ts';

const folder = mkdtempSync(join(tmpdir(), 'data-set-'));
afterAll(() => rmSync(folder, { recursive: true }));
for (const name of ['a.png', 'b.png']) writeFileSync(join(folder, name), '');

/** Writes samples about the pictures named, '' for none, all with the same id. */
function save(name: string, pictures: readonly string[], lines = false): DataFile {
  const samples = pictures.map((image, i) => ({
    id: 'same',
    ...(image === '' ? {} : { image }),
    conversations: [
      { from: 'human', value: `${image === '' ? '' : '<image>\n'}é ${i}?` },
      { from: 'gpt', value: name },
    ],
  }));
  const path = join(folder, name);
  writeFileSync(path, lines ? samples.map((sample) => JSON.stringify(sample)).join('\n') : JSON.stringify(samples, null, 2));
  return { path, imageFolder: folder, share: 1 };
}

describe('a data set', () => {
  it('has the samples of all its files, in any order that they are asked for', async () => {
    const files = [save('one.json', ['a.png', '', 'b.png']), save('two.jsonl', ['b.png', '', 'a.png', ''], true)];
    const expected = [];
    for (const { path, imageFolder } of files) expected.push(...(await readLlavaJson(path, imageFolder)));
    const data = openData(await indexData(files));
    expect(data.length).toBe(7);
    for (const i of [6, 0, 3, 2, 5, 1, 4]) {
      expect(data.sample(i)).toEqual(expected[i]);
      const texts = expected[i].conversations.map(({ value }) => Buffer.byteLength(value));
      expect(data.bytes(i)).toBeGreaterThan(texts.reduce((sum, bytes) => sum + bytes, 0));
    }
    data.close();
  });

  it('takes so many samples of a file an epoch as are asked for, or its share', async () => {
    const [one, two] = [save('one.json', ['a.png', '', 'b.png']), save('two.json', ['', 'b.png', '', '', '', '', ''])];
    for (const perEpoch of [1, 3, 5, 7, 20]) {
      const { files } = await indexData([one, { ...two, perEpoch }]);
      expect(samplesPerEpoch(files)).toBe(3 + perEpoch);
      const drawn = drawSamples(files, { seed: 1, stage: 'a' }, 2);
      expect([...drawn].filter((number) => number >= 3)).toHaveLength(perEpoch);
    }
    expect(samplesPerEpoch((await indexData([one, { ...two, share: 2 }])).files)).toBe(17);
  });

  it('groups samples by their pictures, across files; one without a picture is its own group', async () => {
    const data = openData(await indexData([save('one.json', ['a.png', '', 'b.png', 'a.png']), save('two.json', ['', 'b.png', ''])]));
    expect(Array.from({ length: 7 }, (_, i) => data.group(i))).toEqual([0, 1, 2, 0, 3, 2, 4]);
    expect([...onePerGroup(data)].map(({ images }) => images)).toEqual([[join(folder, 'a.png')], [], [join(folder, 'b.png')], [], []]);
    data.close();
  });

  it('is refused when a file has changed since, and by file and sample when one is wrong', async () => {
    const index = await indexData([save('one.json', ['a.png']), save('two.json', ['a.png'])]);
    save('two.json', ['a.png', 'b.png']);
    expect(() => openData(index)).toThrow(UserError);
    expect(() => openData(index)).toThrow(/two\.json: has changed since it was read/);
    rmSync(join(folder, 'two.json'));
    expect(() => openData(index)).toThrow(/two\.json: cannot be read: there is no such file or folder/);
    const wrong = indexData([save('one.json', ['a.png']), save('two.json', ['gone.png'])]);
    await expect(wrong).rejects.toThrow(/two\.json: sample same: image file .*gone\.png does not exist/);
  });
});

describe('grouping', () => {
  it('tells lists of pictures apart that read alike one behind the other', () => {
    const groupOf = createGrouping();
    const groups = [['a', 'bc'], ['ab', 'c'], ['a', 'bc'], [], [], ['abc']].map((images) => groupOf({ images }));
    expect(groups).toEqual([0, 1, 0, 2, 3, 4]);
  });

  it('of an index shows each sample with its place in its own file', async () => {
    const files = [save('first.json', ['a.png', '']), save('second.jsonl', ['b.png', ''], true)];
    const shown: [string, number, number][] = [];
    await indexData(files, { visit: ({ images }, { file, position }) => shown.push([file, position, images.length]) });
    expect(shown).toEqual(files.flatMap(({ path }) => [[path, 0, 1] as const, [path, 1, 0] as const]));
  });
});
