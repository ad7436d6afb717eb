// The embedded drawings: one 64x64 sprite sheet an artist (assets/emoji/*.webp) and the concepts that they
// show (concepts.json), written by tools/assets/build-emoji.mjs. Licenses of the art: NOTICE.

import { readFile } from 'node:fs/promises';
import sharp from 'sharp';

const folder = new URL('../../../assets/emoji/', import.meta.url);

/** What one emoji shows, and how to speak of it. */
export interface Concept {
  hexcode: string;
  /** Unique, lower case: "red apple". */
  name: string;
  /** With its article: "a red apple", "cherries", "the statue of liberty". */
  phrase: string;
  /** "Are there cherries ...?" rather than "Is there ...?" */
  plural: boolean;
  /** The kind that a person would name, or null where people would disagree. */
  category: string | null;
  /** Emojibase's finer kind: "food-fruit". */
  subgroup: string;
  /**
   * Near-duplicates share it (cat, cat face): they are held out together and never stand against each other
   * in a question.
   */
  family: string;
  tags: string[];
  /** Who drew it. */
  artists: string[];
  /** By artist: the color that covers at least 60 % of the drawing, or null. */
  colour: Record<string, string | null>;
}

/** What there are drawings of. A concept is named by its index in `concepts` everywhere. */
export interface EmojiConcepts {
  concepts: Concept[];
  artists: string[];
}

/** The drawings in memory. */
export interface EmojiGlyphs extends EmojiConcepts {
  /** Side of a drawing in pixels. */
  glyphSize: number;
  /**
   * The concept's drawing, RGBA with straight alpha, `[glyphSize, glyphSize, 4]`; a view, not to be written
   * to.
   */
  glyph(concept: number, artist: string): Uint8Array;
}

interface ConceptsFile extends EmojiConcepts {
  glyphSize: number;
  sheetColumns: number;
}

/** Loads the concepts without the drawings, which take 80 MB. */
export async function loadEmojiConcepts(): Promise<ConceptsFile> {
  return JSON.parse(await readFile(new URL('concepts.json', folder), 'utf8'));
}

let loading: Promise<EmojiGlyphs> | undefined;

/** Loads sheets and concepts once; later calls give the same object. */
export function loadEmojiGlyphs(): Promise<EmojiGlyphs> {
  loading ??= readGlyphs();
  return loading;
}

async function readGlyphs(): Promise<EmojiGlyphs> {
  const { glyphSize, sheetColumns, artists, concepts } = await loadEmojiConcepts();
  const glyphBytes = glyphSize * glyphSize * 4;
  const drawings = new Map<string, Map<number, Uint8Array>>();
  for (const artist of artists) {
    const { data, info } = await sharp(await readFile(new URL(`${artist}.webp`, folder)))
      .ensureAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const byConcept = new Map<number, Uint8Array>();
    for (const [index, concept] of concepts.entries()) {
      if (!concept.artists.includes(artist)) continue;
      const left = (index % sheetColumns) * glyphSize;
      const top = Math.floor(index / sheetColumns) * glyphSize;
      const pixels = new Uint8Array(glyphBytes);
      for (let y = 0; y < glyphSize; y++) {
        const start = ((top + y) * info.width + left) * 4;
        pixels.set(data.subarray(start, start + glyphSize * 4), y * glyphSize * 4);
      }
      byConcept.set(index, pixels);
    }
    drawings.set(artist, byConcept);
  }
  return {
    concepts,
    artists,
    glyphSize,
    glyph(concept, artist) {
      const pixels = drawings.get(artist)?.get(concept);
      if (!pixels) throw new Error(`no drawing of concept ${concept} (${concepts[concept]?.name}) by ${artist}`);
      return pixels;
    },
  };
}

/** Indices of the concepts that all six artists drew: the ones that scenes and questions are made of. */
export function sharedConcepts({ concepts, artists }: EmojiConcepts): number[] {
  return [...concepts.keys()].filter((index) => concepts[index].artists.length === artists.length);
}
