// Expected values: bleu.py, rouge.py and cider.py of pycocoevalcap, run in Python.
import { describe, expect, it } from 'vitest';
import { bleu, ciderD, rougeL } from './caption-metrics.ts';

const captions = [
  {
    candidate: 'a man riding a bike down the street',
    references: ['a man rides a red bicycle down the street', 'a person on a bike', 'the man is riding his bike'],
  },
  { candidate: 'two dogs dogs play in grass', references: ['two dogs play in the grass', 'dogs playing'] },
  { candidate: '', references: ['a cat'] },
];
const close = (values: readonly number[]) => values.map((value) => expect.closeTo(value, 12));

describe('scores of captions', () => {
  it('are those of pycocoevalcap', () => {
    expect(bleu(captions)).toEqual(close([0.7494664792550807, 0.5940225776216786, 0.38476090014020725, 4.896152389540993e-5]));
    expect(captions.map(rougeL)).toEqual(close([0.6984732824427481, 0.8333333333333334, 0]));
    expect(ciderD(captions)).toEqual(close([1.7971520054807009, 2.2877504232511225, 0]));
  });

  it('are the best there are where a caption is its reference', () => {
    const same = ['a man on a bike', 'two dogs in the grass'].map((caption) => ({ candidate: caption, references: [caption] }));
    expect(bleu(same)).toEqual([1, 1, 1, 1].map((value) => expect.closeTo(value, 8)));
    expect(same.map(rougeL)).toEqual([1, 1]);
    expect(ciderD(same)).toEqual(close([10, 10]));
  });
});
