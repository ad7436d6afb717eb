import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cocoRetrieval, flickr30kRetrieval } from './retrieval.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'retrieval-'));
const write = (name: string, value: string | Uint8Array) => {
  writeFileSync(join(folder, name), value);
  return join(folder, name);
};
const lines = (values: readonly object[]) => values.map((value) => JSON.stringify(value)).join('\n');
const dataset = (images: number, captions: number) =>
  JSON.stringify({
    images: Array.from({ length: images }, (_, i) => ({
      filename: `COCO_${i}.jpg`,
      split: 'test',
      cocoid: 500 + i,
      imgid: i,
      sentences: Array.from({ length: captions }, (_, k) => ({ raw: 'a', sentid: i * 100 + k })),
    })),
  });
/** A file of numpy.save. */
function npy(values: Float32Array | Float64Array, shape: string, more = "'fortran_order': False"): Uint8Array {
  const header = `{'descr': '<f${values.BYTES_PER_ELEMENT}', ${more}, 'shape': (${shape}), }`.padEnd(117).concat('\n');
  const start = Buffer.concat([Buffer.from('\x93NUMPY\x01\x00', 'latin1'), Buffer.from([header.length, 0]), Buffer.from(header)]);
  return Buffer.concat([start, Buffer.from(values.buffer)]);
}
const score = async (answers: string, questions: string, harness?: string) =>
  (await scoreAnswers(cocoRetrieval, { answers, questions: [questions], harness })).score;

describe('retrieval', () => {
  const three = write('three.json', dataset(3, 2));
  // captions 0, 1 of picture 0; 100, 101 of 1; 200, 201 of 2
  const matrix = [
    [0.9, 0.1, 0.5, 0.2, 0.3, 0.4],
    [0.8, 0.2, 0.7, 0.6, 0.1, 0.1],
    [0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
  ];
  const pairs = matrix.flatMap((row, i) => row.map((score, j) => ({ image: 500 + i, caption_id: 100 * (j >> 1) + (j % 2), score })));
  // to text: ranks 1, 2, 5 (ties earn nothing); to a picture: 1, 3, 1, 1, 1, 1
  const expected = {
    image_to_text_median_rank: 2,
    text_to_image_median_rank: 1,
    'image_to_text_recall@1': expect.closeTo(100 / 3, 9),
    'image_to_text_recall@5': 100,
    'image_to_text_recall@10': 100,
    'text_to_image_recall@1': expect.closeTo((5 / 6) * 100, 9),
    'text_to_image_recall@5': 100,
    'text_to_image_recall@10': 100,
    mean_recall: expect.closeTo((100 / 3 + 500 / 6 + 400) / 6, 9),
  };

  it('is scored from all pairs, in any order, and from a matrix', async () => {
    const found = await score(write('pairs.jsonl', lines(pairs.toReversed())), three);
    expect(found).toMatchObject({ n: 9, unparsed: 0, scores: expected });
    expect(found.groups.direction.image_to_text).toMatchObject({ n: 3, median_rank: 2 });
    expect((await score(write('m.npy', npy(Float64Array.from(matrix.flat()), '3, 6')), three)).scores).toEqual(expected);
    expect((await score(write('m.npy', npy(Float32Array.from(matrix.flat()), '3, 6')), three)).scores).toEqual(expected);
  });

  it('is scored from lists, whose right answer may be missing', async () => {
    const byScore = (scores: number[], names: (string | number)[]) =>
      names.toSorted((a, b) => scores[names.indexOf(b)] - scores[names.indexOf(a)]);
    const captions = [0, 1, 100, 101, 200, 201];
    const toText = matrix.map((row, i) => ({ image: `COCO_${i}.jpg`, captions: byScore(row, captions) }));
    const toImage = captions.map((caption_id, j) => ({
      caption_id,
      images: byScore(
        matrix.map((row) => row[j]),
        [500, 501, 502],
      ),
    }));
    const found = await score(write('lists.jsonl', lines([...toText, ...toImage])), three);
    expect(found.scores['image_to_text_recall@1']).toBeCloseTo(100 / 3, 9);
    expect(found.scores['text_to_image_recall@1']).toBeCloseTo((5 / 6) * 100, 9);
    const many = write('many.json', dataset(12, 1));
    const names = Array.from({ length: 12 }, (_, i) => i);
    const last = (own: number, all: number[]) => all.filter((one) => one !== own).slice(0, 10);
    const lost = [
      ...names.map((i) => ({
        image: 500 + i,
        captions:
          i < 5
            ? [
                100 * i,
                ...last(
                  100 * i,
                  names.map((k) => 100 * k),
                ),
              ]
            : last(
                100 * i,
                names.map((k) => 100 * k),
              ),
      })),
      ...names.map((i) => ({
        caption_id: 100 * i,
        images: [
          500 + i,
          ...last(
            500 + i,
            names.map((k) => 500 + k),
          ),
        ],
      })),
    ];
    const { scores, unparsed } = await score(write('lost.jsonl', lines(lost)), many);
    expect(unparsed).toBe(7);
    expect(scores['image_to_text_recall@10']).toBeCloseTo((5 / 12) * 100, 9);
    expect('image_to_text_median_rank' in scores).toBe(false);
    const short = write('short.jsonl', lines([{ image: 500, captions: [0, 100] }]));
    await expect(score(short, many)).rejects.toThrow(/short.jsonl:1: the list has 2 entries; at least 10 are needed/);
  });

  it('counts five captions of a picture', async () => {
    const seven = write('seven.json', dataset(2, 7));
    const all = [0, 1].flatMap((i) =>
      Array.from({ length: 14 }, (_, j) => ({
        image: 500 + i,
        caption_id: 100 * Math.floor(j / 7) + (j % 7),
        score: Number(j >= 7 === (i === 1)),
      })),
    );
    expect(await score(write('seven.jsonl', lines(all)), seven)).toMatchObject({ n: 12, scores: { mean_recall: 100 } });
  });

  it('is scored in folds of a thousand pictures', async () => {
    const thousands = write('folds.json', dataset(2000, 1));
    const values = new Float32Array(2000 * 2000);
    // a picture's own caption is beaten by that of the same place in the other fold alone
    for (let i = 0; i < 2000; i++) {
      values[i * 2000 + i] = 1;
      values[i * 2000 + ((i + 1000) % 2000)] = 2;
    }
    const path = write('folds.npy', npy(values, '2000, 2000'));
    expect((await score(path, thousands)).scores['image_to_text_recall@1']).toBe(0);
    expect((await score(path, thousands, 'folds')).scores).toMatchObject({ mean_recall: 100, text_to_image_median_rank: 1 });
  });

  it('names what is missing or malformed', async () => {
    const some = (values: readonly object[]) => score(write('some.jsonl', lines(values)), three);
    await expect(some(pairs.slice(1))).rejects.toThrow(/1 of 18 pairs have no score, the first of picture COCO_0.jpg and caption 0/);
    await expect(some([...pairs, pairs[3]])).rejects.toThrow(/some.jsonl:19: picture 500 and caption 101 come twice/);
    await expect(some([{ ...pairs[0], caption_id: 999 }])).rejects.toThrow(/there is no caption 999 in the test split/);
    await expect(some([{ ...pairs[0], score: 'high' }])).rejects.toThrow(/some.jsonl:1: is none of these/);
    await expect(some([pairs[0], { image: 500, captions: [0] }])).rejects.toThrow(/some.jsonl:2: is a list among pairs/);
    await expect(some([{ image: 500, captions: [0, 1, 100, 101, 200, 201] }])).rejects.toThrow(/there is no list for 501/);
    await expect(some([{ image: 500, captions: [0, 0, 1] }])).rejects.toThrow(/has an entry twice/);
    const matrixOf = (content: Uint8Array) => score(write('bad.npy', content), three);
    const values = Float32Array.from(matrix.flat());
    await expect(matrixOf(npy(values, '6, 3'))).rejects.toThrow(/its shape is \[6,3\]; it should be .*\[3, 6\]/);
    await expect(matrixOf(npy(values, '3, 6', "'fortran_order': True"))).rejects.toThrow(/stored by column/);
    await expect(matrixOf(npy(values.slice(2), '3, 6'))).rejects.toThrow(/ends within row 3/);
    await expect(matrixOf(npy(values.with(4, Number.NaN), '3, 6'))).rejects.toThrow(/score of picture 1 and caption 5 is no number/);
    await expect(matrixOf(Buffer.from('no numpy'))).rejects.toThrow(/is no file of numpy.save/);
    await expect(scoreAnswers(flickr30kRetrieval, { answers: three, questions: [three], harness: 'folds' })).rejects.toThrow(
      /not scored as folds/,
    );
  });
});
