// Regenerates the embedded emoji set (assets/emoji/) from the artists' own vector drawings: one sprite sheet
// per artist, and concepts.json.
//   npm ci && npm ci --prefix tools/assets && node tools/assets/build-emoji.mjs
// The same package versions give the same bytes. Labels, tags and groups: emojibase (CLDR). Drawings: six
// @iconify-json sets (see NOTICE).
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import {
  categoryExceptions,
  categoryOfSubgroup,
  definite,
  families,
  massNouns,
  noArticle,
  plurals,
  renames,
  storedAs,
} from './emoji-tables.mjs';

const artists = ['emojione', 'fluent-emoji-flat', 'fxemoji', 'noto', 'noto-v1', 'twemoji'];
const groupsKept = ['animals-nature', 'food-drink', 'travel-places', 'activities', 'objects'];
const glyphSize = 64;
const sheetColumns = 32;
const minArtists = 3;
/**
 * Of the artist that is held out by default, drawings that no question can be asked about are useless;
 * without them the set stays small.
 */
const artistWithoutExtras = 'twemoji';
/** A drawing has a color if at least this share of its opaque pixels has one color name. */
const colorShare = 0.6;

const here = fileURLToPath(new URL('.', import.meta.url));
const out = fileURLToPath(new URL('../../assets/emoji/', import.meta.url));
const readPackageJson = (path) => JSON.parse(readFileSync(`${here}node_modules/${path}`, 'utf8'));
const squeeze = (text) =>
  text
    .toLowerCase()
    .normalize('NFD')
    .replace(/[^a-z0-9]/g, '');

// === Drawings ===

const sets = new Map(
  artists.map((artist) => {
    const icons = readPackageJson(`@iconify-json/${artist}/icons.json`);
    const byHexcode = readPackageJson(`@iconify-json/${artist}/chars.json`);
    const byName = new Map();
    for (const name of [...Object.keys(icons.icons), ...Object.keys(icons.aliases ?? {})]) {
      if (!byName.has(squeeze(name))) byName.set(squeeze(name), name);
    }
    return [artist, { icons, byHexcode, byName }];
  }),
);

/**
 * The set's icon for an emoji: by code point if the set lists them, else by its CLDR label; null or undefined
 * if none.
 */
function findIcon(artist, emoji) {
  const exception = storedAs[artist]?.[emoji.label];
  if (exception !== undefined) return exception;
  const { byHexcode, byName } = sets.get(artist);
  const full = emoji.hexcode.toLowerCase();
  const bare = full
    .split('-')
    .filter((part) => part !== 'fe0f')
    .join('-');
  return byHexcode[bare] ?? byHexcode[full] ?? byName.get(squeeze(emoji.label));
}

function iconSvg(artist, name) {
  const { icons } = sets.get(artist);
  let icon = icons.icons[name];
  for (let alias = name; !icon; ) {
    const { parent, ...changes } = icons.aliases[alias];
    if (Object.keys(changes).length > 0)
      throw new Error(`${artist}: alias ${alias} changes its parent (${Object.keys(changes)}), which is not handled`);
    alias = parent;
    icon = icons.icons[alias];
  }
  const width = icon.width ?? icons.width ?? 16;
  const height = icon.height ?? icons.height ?? 16;
  const box = `${icon.left ?? 0} ${icon.top ?? 0} ${width} ${height}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${glyphSize}" height="${glyphSize}" viewBox="${box}">${icon.body}</svg>`;
}

async function rasterize(artist, name) {
  const { data, info } = await sharp(Buffer.from(iconSvg(artist, name)))
    .ensureAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  if (info.width !== glyphSize || info.height !== glyphSize) throw new Error(`${artist} ${name}: rendered ${info.width}x${info.height}`);
  return data;
}

// === Colors ===

/**
 * The name that people would give to the color, or null if they would not agree (slate, amber). Hue in
 * degrees, the rest in 0 to 255.
 */
function colorName(r, g, b) {
  const value = Math.max(r, g, b);
  const chroma = value - Math.min(r, g, b);
  const saturation = chroma / value;
  if (value < 72) return 'black';
  if (saturation < 0.12 || (saturation < 0.18 && value < 215)) return value > 205 ? 'white' : value < 84 ? 'black' : 'grey';
  let hue = value === r ? (g - b) / chroma : value === g ? (b - r) / chroma + 2 : (r - g) / chroma + 4;
  hue = (hue * 60 + 360) % 360;
  if (saturation < 0.3 && hue >= 66 && hue < 300) return null;
  if (value < 100) return null;
  if (hue >= 340 || hue < 8) return value > 200 && saturation < 0.55 ? 'pink' : 'red';
  if (hue < 42) {
    if (value < 200 || (value < 225 && saturation < 0.6)) return 'brown';
    if (hue < 20 && saturation < 0.55) return 'pink';
    if (saturation < 0.5) return null;
    return hue < 14 ? 'red' : hue < 19 || hue >= 35 ? null : 'orange';
  }
  if (hue < 66) return value < 150 ? 'brown' : 'yellow';
  if (hue < 165) return 'green';
  if (hue < 185) return null;
  if (hue < 250) return value < 130 && saturation < 0.5 ? null : 'blue';
  if (hue < 290) return 'purple';
  return value > 190 ? 'pink' : 'purple';
}

/** The name that covers at least `colorShare` of the opaque pixels, else null. */
function dominantColor(pixels) {
  const counts = new Map();
  let opaque = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 3] < 128) continue;
    opaque++;
    const name = colorName(pixels[i], pixels[i + 1], pixels[i + 2]);
    if (name === null) continue;
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  for (const [name, count] of counts) if (count >= colorShare * opaque) return name;
  return null;
}

// === Words ===

function cleanName(label) {
  const plain = label
    .normalize('NFD')
    .replace(/[\u0300-\u036f]/g, '')
    .replace(/[\u2018\u2019]/g, "'")
    .toLowerCase();
  const short = plain.replace(/[,:].*$/, '').trim();
  return renames[short] ?? short;
}

function phraseOf(name) {
  if (plurals.includes(name) || massNouns.includes(name) || noArticle.includes(name)) return name;
  if (definite.includes(name)) return `the ${name}`;
  return `${/^[aeio]|^umb|^x-/.test(name) ? 'an' : 'a'} ${name}`;
}

const renamed = (names) => names.map((name) => renames[name] ?? name);
const familyOf = new Map(families.flatMap((family) => renamed(family).map((name) => [name, renamed(family)[0]])));
const categoryException = new Map(
  Object.entries(categoryExceptions).flatMap(([word, names]) => renamed(names).map((name) => [name, word === 'none' ? null : word])),
);

// === Concepts ===

const messages = readPackageJson('emojibase-data/en/messages.json');
const groupKey = new Map(messages.groups.map((group) => [group.order, group.key]));
const subgroupKey = new Map(messages.subgroups.map((subgroup) => [subgroup.order, subgroup.key]));

const concepts = [];
const drawings = [];
const emojis = readPackageJson('emojibase-data/en/data.json').sort((a, b) => (a.hexcode < b.hexcode ? -1 : 1));
for (const emoji of emojis) {
  const subgroup = subgroupKey.get(emoji.subgroup);
  if (!groupsKept.includes(groupKey.get(emoji.group))) continue;
  if (/o’clock|-thirty/.test(emoji.label)) continue;
  const icons = artists.map((artist) => findIcon(artist, emoji));
  const drawnBy = icons.filter(Boolean).length;
  if (drawnBy < minArtists) continue;
  if (drawnBy < artists.length) icons[artists.indexOf(artistWithoutExtras)] = undefined;
  const name = cleanName(emoji.label);
  const pixels = await Promise.all(icons.map((icon, i) => (icon ? rasterize(artists[i], icon) : null)));
  if (!(subgroup in categoryOfSubgroup)) throw new Error(`subgroup ${subgroup} has no category`);
  concepts.push({
    hexcode: emoji.hexcode,
    name,
    phrase: phraseOf(name),
    plural: plurals.includes(name),
    category: categoryException.has(name) ? categoryException.get(name) : categoryOfSubgroup[subgroup],
    subgroup,
    family: familyOf.get(name) ?? name,
    tags: emoji.tags ?? [],
    artists: artists.filter((_, i) => icons[i]),
    colour: Object.fromEntries(artists.flatMap((artist, i) => (pixels[i] ? [[artist, dominantColor(pixels[i])]] : []))),
  });
  drawings.push(pixels);
}

const names = new Set(concepts.map((concept) => concept.name));
if (names.size !== concepts.length) throw new Error('two concepts have one name');
const known = new Set([...emojis.map((emoji) => cleanName(emoji.label)), ...names]);
for (const name of [...familyOf.keys(), ...categoryException.keys(), ...plurals, ...massNouns, ...definite, ...noArticle]) {
  if (!known.has(name)) throw new Error(`tables: no emoji is called "${name}"`);
}

// === Files ===

mkdirSync(out, { recursive: true });
const rows = Math.ceil(concepts.length / sheetColumns);
for (const [a, artist] of artists.entries()) {
  const width = sheetColumns * glyphSize;
  const sheet = Buffer.alloc(width * rows * glyphSize * 4);
  for (const [c, pixels] of drawings.entries()) {
    if (!pixels[a]) continue;
    const left = (c % sheetColumns) * glyphSize;
    const top = Math.floor(c / sheetColumns) * glyphSize;
    for (let y = 0; y < glyphSize; y++) pixels[a].copy(sheet, ((top + y) * width + left) * 4, y * glyphSize * 4, (y + 1) * glyphSize * 4);
  }
  const file = await sharp(sheet, { raw: { width, height: rows * glyphSize, channels: 4 } })
    .webp({ lossless: true, effort: 6 })
    .toBuffer();
  writeFileSync(`${out}${artist}.webp`, file);
  console.log(`${artist}.webp  ${concepts.filter((concept) => concept.artists.includes(artist)).length} drawings  ${file.length} bytes`);
}
const lines = concepts.map((concept) => JSON.stringify(concept)).join(',\n');
const header = JSON.stringify({ glyphSize, sheetColumns, artists }).slice(1, -1);
writeFileSync(`${out}concepts.json`, `{${header},"concepts":[\n${lines}\n]}\n`);
const shared = concepts.filter((concept) => concept.artists.length === artists.length);
console.log(
  `${concepts.length} concepts, ${shared.length} by all ${artists.length} artists, ${new Set(shared.map((c) => c.family)).size} families among these`,
);
