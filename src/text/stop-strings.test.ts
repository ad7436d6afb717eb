import { array, assert, constantFrom, property } from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createStopFilter } from './stop-strings.ts';

/** What comes out, piece by piece. */
function filtered(pieces: readonly string[], stops: readonly string[]) {
  const filter = createStopFilter(stops);
  const out: string[] = [];
  for (const piece of pieces) {
    if (filter.found) break;
    out.push(filter.push(piece));
  }
  if (!filter.found) out.push(filter.end());
  return { out, text: out.join(''), found: filter.found };
}

describe('a stop filter', () => {
  it('ends the text at the first stop string, however the text is cut', () => {
    const letters = constantFrom('a', 'b', 'ab', 'ba', 'aab');
    const pieces = array(letters, { maxLength: 12 });
    const stops = array(constantFrom('aba', 'bb', 'aaab', 'babab'), { minLength: 1, maxLength: 3 });
    assert(
      property(pieces, stops, (pieces, stops) => {
        const whole = pieces.join('');
        const { text, found } = filtered(pieces, stops);
        // a stop string that is whole earlier ends the text, even where a longer one begins before it
        let expected = whole;
        for (let length = 1, at = -1; length <= whole.length && at < 0; length++) {
          const ends = pieceEnds(pieces).filter((end) => end >= length);
          const end = ends[0] ?? whole.length;
          const places = stops.map((stop) => whole.slice(0, end).indexOf(stop)).filter((place) => place >= 0);
          at = places.length > 0 ? Math.min(...places) : -1;
          if (at >= 0) expected = whole.slice(0, at);
        }
        expect(text).toBe(expected);
        expect(found).toBe(expected !== whole || stops.some((stop) => whole.includes(stop)));
      }),
    );
  });

  it('holds back what may be the beginning of one, and nothing more', () => {
    expect(filtered(['say ', 'EN', 'TER', ' END', '. more'], ['END.'])).toEqual({
      out: ['say ', '', 'ENTER', ' ', ''],
      text: 'say ENTER ',
      found: true,
    });
    expect(filtered(['a E', 'N'], ['END']).out).toEqual(['a ', '', 'EN']);
    expect(filtered(['abc', 'def'], []).out).toEqual(['abc', 'def', '']);
  });
});

/** Where pieces end in the whole. */
function pieceEnds(pieces: readonly string[]): number[] {
  let at = 0;
  return pieces.map((piece) => {
    at += piece.length;
    return at;
  });
}
