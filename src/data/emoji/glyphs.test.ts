import { beforeAll, describe, expect, it } from 'vitest';
import { type EmojiGlyphs, loadEmojiGlyphs, sharedConcepts } from './glyphs.ts';
import { categories } from './questions.ts';
import { splitConcepts } from './split.ts';

let glyphs: EmojiGlyphs;
beforeAll(async () => {
  glyphs = await loadEmojiGlyphs();
});

describe('the embedded emoji', () => {
  it('are 365 concepts drawn by all six artists, and more drawn by some', () => {
    expect(glyphs.artists).toEqual(['emojione', 'fluent-emoji-flat', 'fxemoji', 'noto', 'noto-v1', 'twemoji']);
    expect(sharedConcepts(glyphs).length).toBe(365);
    expect(glyphs.concepts.length).toBe(829);
  });

  it('have names that are plain, lower case and unique, and phrases that end in them', () => {
    const names = glyphs.concepts.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { name, phrase } of glyphs.concepts) {
      expect(name).toMatch(/^[a-z0-9][a-z0-9' -]*$/);
      expect(phrase).toMatch(new RegExp(`^(an? |the )?${name}$`));
    }
  });

  it('have drawings that can be seen, and none where the artist made none', () => {
    for (const [index, concept] of glyphs.concepts.entries()) {
      for (const artist of glyphs.artists) {
        if (!concept.artists.includes(artist)) {
          expect(() => glyphs.glyph(index, artist)).toThrow(/no drawing/);
          continue;
        }
        const pixels = glyphs.glyph(index, artist);
        let opaque = 0;
        for (let i = 3; i < pixels.length; i += 4) if (pixels[i] > 127) opaque++;
        expect(opaque, `${concept.name} by ${artist}`).toBeGreaterThan(150);
      }
    }
  });

  it('have one of ten kinds, or none', () => {
    const used = new Set(sharedConcepts(glyphs).map((index) => glyphs.concepts[index].category));
    used.delete(null);
    expect([...used].sort()).toEqual([...categories]);
  });
});

describe('splitConcepts', () => {
  it('holds out about forty concepts in whole families, also from pretraining', () => {
    const { seen, unseen, pretraining } = splitConcepts(glyphs);
    expect(unseen.length).toBeGreaterThanOrEqual(40);
    expect(unseen.length).toBeLessThan(45);
    expect(seen.length + unseen.length).toBe(365);
    const families = new Set(unseen.map((index) => glyphs.concepts[index].family));
    for (const index of [...seen, ...pretraining]) expect(families).not.toContain(glyphs.concepts[index].family);
    for (const index of seen) expect(pretraining).toContain(index);
  });
});
