// Draws the examples of the server's page, assets/page/examples/<n>.png: scenes of Noto Emoji's drawings.
//
//     npm run build && node scripts/page-examples.mjs
import { mkdirSync } from 'node:fs';
import sharp from 'sharp';
import { loadEmojiGlyphs } from '../dist/data/emoji/glyphs.js';
import { renderScene, sampleScene } from '../dist/data/emoji/scene.js';
import { createRandom } from '../dist/random.js';

const folder = 'assets/page/examples';
/** Twice the side that the bundled model sees: drawings have 64 pixels. */
const size = 192;
/** Concepts by cell: top left, top right, bottom left, bottom right. */
const scenes = [
  ['cat face', 'red apple', null, 'bicycle'],
  ['tent', 'fish', 'banana', null],
  ['rocket', null, 'cactus', 'hot beverage'],
  ['guitar', 'elephant', 'umbrella', 'pizza'],
];

const glyphs = await loadEmojiGlyphs();
const named = (name) => {
  const concept = glyphs.concepts.findIndex((each) => each.name === name && each.artists.includes('noto'));
  if (concept < 0) throw new Error(`no drawing of ${name}`);
  return concept;
};
mkdirSync(folder, { recursive: true });
for (const [i, names] of scenes.entries()) {
  const random = createRandom(7, 'page', i);
  const concepts = glyphs.concepts.flatMap(({ artists }, concept) => (artists.includes('noto') ? [concept] : []));
  const scene = sampleScene(random, glyphs, { concepts, artists: ['noto'], counts: [4], size });
  const placed = scene.glyphs.flatMap((glyph) => (names[glyph.cell] ? [{ ...glyph, concept: named(names[glyph.cell]) }] : []));
  const { data, width, height, channels } = renderScene({ ...scene, glyphs: placed }, glyphs);
  await sharp(data, { raw: { width, height, channels } })
    .png({ palette: true, effort: 9 })
    .toFile(`${folder}/${i + 1}.png`);
}
