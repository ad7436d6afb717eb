import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { cocoCaptions, flickr30kCaptions } from './captions.ts';
import { scoreAnswers } from './score.ts';

const folder = mkdtempSync(join(tmpdir(), 'captions-'));
const write = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), JSON.stringify(value));
  return join(folder, name);
};
const sentences = (imgid: number, texts: readonly string[]) =>
  texts.map((raw, i) => ({ tokens: raw.toLowerCase().split(' '), raw, imgid, sentid: imgid * 10 + i }));
const texts = [
  ['A man rides a red bicycle down the street.', 'A person on a bike', 'The man is riding his bike!'],
  ['Two dogs play in the grass.', 'Dogs playing'],
  ['A cat.'],
];
const coco = write('dataset_coco.json', {
  images: [
    { split: 'train', filename: 'x.jpg', cocoid: 7, imgid: 9, sentences: [] },
    ...texts.map((captions, i) => ({
      filepath: 'val2014',
      sentids: [],
      filename: `COCO_val2014_00000000000${i}.jpg`,
      imgid: i,
      split: 'test',
      sentences: sentences(i, captions),
      cocoid: 100 + i,
    })),
  ],
  dataset: 'coco',
});
write('dataset_flickr30k.json', {
  images: texts.map((captions, i) => ({
    sentids: [],
    imgid: i,
    filename: `100009${i}.jpg`,
    split: 'test',
    sentences: sentences(i, captions),
  })),
});

describe('captions', () => {
  const answers = ['A man riding a bike, down the street', 'Two dogs, dogs play in grass.', '-'];
  const scores = {
    Bleu_1: expect.closeTo(0.7494664792550807, 9),
    Bleu_2: expect.closeTo(0.5940225776216786, 9),
    Bleu_3: expect.closeTo(0.38476090014020725, 9),
    Bleu_4: expect.closeTo(4.896152389540993e-5, 9),
    ROUGE_L: expect.closeTo(0.5106022052586938, 9),
    CIDEr: expect.closeTo(1.3616341429106076, 9),
  };

  it('of the test split are scored in the form of COCO', async () => {
    const results = write(
      'results.json',
      answers.map((caption, i) => ({ image_id: 100 + i, caption })),
    );
    const { score, judged } = await scoreAnswers(cocoCaptions, { answers: results, questions: [coco] });
    expect(score).toMatchObject({ n: 3, unparsed: 1, scores });
    expect(judged.map(({ credit }) => credit * 10)[0]).toBeCloseTo(1.7971520054807009, 9);
  });

  it('are matched by whatever names a picture', async () => {
    const names = [(i: number) => `100009${i}.jpg`, (i: number) => `100009${i}`, (i: number) => Number(`100009${i}`), (i: number) => i];
    for (const nameOf of names) {
      const results = write(
        'results.json',
        answers.map((caption, i) => ({ image_id: nameOf(i), caption })),
      );
      expect((await scoreAnswers(flickr30kCaptions, { answers: results, data: folder })).score.scores).toEqual(scores);
    }
    const twice = write(
      'twice.json',
      [100, 100, 101, 102].map((image_id) => ({ image_id, caption: 'a' })),
    );
    await expect(scoreAnswers(cocoCaptions, { answers: twice, questions: [coco] })).rejects.toThrow(/100 comes twice among the answers/);
    const few = write('few.json', [{ image_id: 101, caption: 'a' }]);
    await expect(scoreAnswers(cocoCaptions, { answers: few, questions: [coco] })).rejects.toThrow(
      /2 of 3 questions have no answer: 100, 102/,
    );
    const bad = write('bad.json', { images: [{ split: 'test', filename: 'a.jpg' }] });
    await expect(scoreAnswers(cocoCaptions, { answers: few, questions: [bad] })).rejects.toThrow(/bad.json, entry 1: sentences: /);
  });
});
