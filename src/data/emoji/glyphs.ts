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
  const sheets = new Map<string, Sheet>();
  for (const artist of artists) {
    const { data, info } = await sharp(await readFile(new URL(`${artist}.webp`, folder)))
      .ensureAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    sheets.set(artist, { pixels: data, width: info.width, drawings: new Map() });
  }
  return {
    concepts,
    artists,
    glyphSize,
    glyph(concept, artist) {
      const sheet = sheets.get(artist);
      if (!sheet || !concepts[concept]?.artists.includes(artist))
        throw new Error(`no drawing of concept ${concept} (${concepts[concept]?.name}) by ${artist}`);
      const known = sheet.drawings.get(concept);
      if (known) return known;
      const drawing = cut(sheet, concept % sheetColumns, Math.floor(concept / sheetColumns), glyphSize);
      sheet.drawings.set(concept, drawing);
      return drawing;
    },
  };
}

/** An artist's drawings. */
interface Sheet {
  /** RGBA, of all of them. */
  pixels: Uint8Array;
  /** In pixels. */
  width: number;
  /** Those that were asked for, by concept. */
  drawings: Map<number, Uint8Array>;
}

function cut({ pixels, width }: Sheet, column: number, row: number, side: number): Uint8Array {
  const drawing = new Uint8Array(side * side * 4);
  for (let y = 0; y < side; y++) {
    const start = ((row * side + y) * width + column * side) * 4;
    drawing.set(pixels.subarray(start, start + side * 4), y * side * 4);
  }
  return drawing;
}

/** Indices of the concepts that all six artists drew: the ones that scenes and questions are made of. */
export function sharedConcepts({ concepts, artists }: EmojiConcepts): number[] {
  return [...concepts.keys()].filter((index) => concepts[index].artists.length === artists.length);
}
