// Expected values: PTBTokenizer of Stanford CoreNLP, run in Java, without the punctuation that the COCO
// caption evaluation drops.
import { describe, expect, it } from 'vitest';
import { captionTokens } from './ptb-tokenizer.ts';

describe('tokens of captions', () => {
  it.each([
    ["A man isn't riding the grey horse's back; it can't stop.", "a man is n't riding the gray horse 's back it ca n't stop"],
    [
      'Two black-and-white dogs (one small) play "fetch" in the theatre...',
      'two black-and-white dogs -lrb- one small -rrb- play fetch in the theater',
    ],
    ["He said 'hello' at 10:30 a.m. on the corner of 5th St. and Main", 'he said hello at 10:30 a.m. on the corner of 5th st. and main'],
    [
      "A rock 'n' roll band, Mr. Smith's, cannot play and/or sing 1/2 of it.",
      "a rock 'n' roll band mr. smith 's can not play and\\/or sing 1\\/2 of it",
    ],
    ["The O'Brien boys' $5 colour TV costs 1,000.50 -- or less", "the o'brien boys $ 5 color tv costs 1,000.50 or less"],
    ['the dog,black-and-white one', 'the dog,black-and-white one'],
    ["I'm we'll they've you're he'd", "i 'm we 'll they 've you 're he 'd"],
    ['Grey Colour, your four hours at the tour contour', 'grey colour your four hours at the tour contour'],
    ['  A cat\non   a mat !  ', 'a cat on a mat'],
    ['two  2 1/2 pizzas', 'two 2\u00a01\\/2 pizzas'],
    ['. , - "', ''],
  ])('%s', (caption, tokens) => {
    expect(captionTokens(caption)).toBe(tokens);
  });

  it('ends with every text', () => {
    for (let code = 1; code < 0x3000; code++) expect(typeof captionTokens(`a${String.fromCharCode(code)}b`)).toBe('string');
  });
});
