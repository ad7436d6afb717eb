// Draws docs/images/demo.png: scenes of a scored run, each with the questions about it, the model's answers,
// and whether they are right.
//
//     node scripts/demo-picture.mjs runs/demo
//     node scripts/demo-picture.mjs runs/demo --split unseen-artist --scenes 12,40,77 \
//         --out docs/images/demo.png
//
// Without --scenes it takes the first scenes that show four, three and two things, whatever the answers.
// Needs `npm ci` and a font (fontconfig).
import { mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import sharp from 'sharp';
import { parse } from 'yaml';

// Sizes as shown; the file has twice as many pixels, for dense screens.
const density = 2;
const card = { width: 268, pad: 16, gap: 16 };
const picture = 192;
const lineHeight = 17;
const fontSize = 13;
/** Characters of the sans-serif font that fit a card. */
const longestLine = 34;
const grounds = { page: '#f6f7f9', card: '#ffffff', border: '#d9dde3' };
const ink = { text: '#1f2937', question: '#6b7280', right: '#15803d', wrong: '#b91c1c' };

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}

const escapeXml = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

/**
 * The question as a person would ask it: without `<image>` and the line on how to answer; choices in one
 * line.
 */
function questionOf({ prompt }) {
  const lines = prompt
    .replaceAll('<image>', '')
    .trim()
    .split('\n')
    .filter((line) => !line.startsWith('Answer '));
  const [question, ...choices] = lines;
  return [question, ...choices.map((choice) => choice.replaceAll(' ', '\u00a0'))].join(' ');
}

function wrap(text, width) {
  const lines = [''];
  for (const word of text.split(/ (?=\S)/)) {
    const line = lines.at(-1);
    if (line !== '' && line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}

/**
 * Questions and answers of a scene as lines of text, each with its color; the mark is drawn before an answer.
 */
function linesOf(samples) {
  return samples.flatMap((sample, i) => {
    const question = wrap(questionOf(sample), longestLine).map((text) => ({ text, color: ink.question }));
    const answer = sample.correct ? sample.answer : `${sample.answer}  (it is: ${sample.expected})`;
    const [first, ...rest] = wrap(answer === '' ? '(nothing)' : answer, longestLine - 3);
    const color = sample.correct ? ink.text : ink.wrong;
    const answered = [
      { text: first, color, mark: sample.correct ? 'right' : 'wrong' },
      ...rest.map((text) => ({ text, color, indent: true })),
    ];
    return [...(i > 0 ? [{ text: '', half: true }] : []), ...question, ...answered];
  });
}

const heightOf = (lines) => lines.reduce((sum, { half }) => sum + (half ? lineHeight / 2 : lineHeight), 0);

/** A check mark or a cross, 10 by 10, centered at (x, y). */
function markAt(kind, x, y) {
  const path = kind === 'right' ? `M${x - 5} ${y} l3.5 4 l6.5 -8.5` : `M${x - 4} ${y - 4} l8 8 M${x + 4} ${y - 4} l-8 8`;
  return `<path d="${path}" fill="none" stroke="${ink[kind]}" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round"/>`;
}

function cardSvg(lines, left, height) {
  const x = left + card.pad;
  let y = card.gap + card.pad + picture + 24;
  const parts = lines.map(({ text, color, mark, indent, half }) => {
    if (half) {
      y += lineHeight / 2;
      return '';
    }
    const textLeft = mark || indent ? x + 18 : x;
    const weight = mark || indent ? 600 : 400;
    const drawn = `<text x="${textLeft}" y="${y}" fill="${color}" font-weight="${weight}">${escapeXml(text)}</text>`;
    const line = mark ? markAt(mark, x + 6, y - 5) + drawn : drawn;
    y += lineHeight;
    return line;
  });
  const box = `x="${left + 0.5}" y="${card.gap + 0.5}" width="${card.width - 1}" height="${height - 1}" rx="6"`;
  // visible around a scene on a white background
  const frame = `x="${left + (card.width - picture) / 2 - 1}" y="${card.gap + card.pad - 1}" width="${picture + 2}" height="${picture + 2}"`;
  return `<rect ${box} fill="${grounds.card}" stroke="${grounds.border}"/><rect ${frame} fill="${grounds.border}"/>${parts.join('')}`;
}

/**
 * Scenes by image, each with three samples: a name, the count, and, alternating, whether something is there
 * (yes, no) or its kind.
 */
function scenesOf(samples) {
  const byImage = new Map();
  for (const sample of samples) byImage.set(sample.image, [...(byImage.get(sample.image) ?? []), sample]);
  return [...byImage].map(([image, all], i) => {
    const of = (task) => all.filter((sample) => sample.task === task);
    const third = [of('existence')[0], of('category')[0], of('existence')[1]][i % 3];
    return { image, things: of('count')[0]?.expected, samples: [of('name')[0], of('count')[0], third].filter(Boolean) };
  });
}

/**
 * The first scenes with four, three and two things: images that differ, chosen without looking at the
 * answers.
 */
function chooseScenes(scenes) {
  return ['4', '3', '2'].flatMap((things) => scenes.find((scene) => scene.things === things && scene.samples.length === 3) ?? []);
}

async function draw(scenes, imageFolder, out) {
  const columns = scenes.map(({ samples }) => linesOf(samples));
  const height = card.pad + picture + 16 + Math.max(...columns.map(heightOf)) + card.pad;
  const width = card.gap + scenes.length * (card.width + card.gap);
  const leftOf = (i) => card.gap + i * (card.width + card.gap);
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height + 2 * card.gap}"
    font-family="Inter, Helvetica, Arial, 'DejaVu Sans', sans-serif" font-size="${fontSize}">
    <rect width="100%" height="100%" fill="${grounds.page}"/>
    ${columns.map((lines, i) => cardSvg(lines, leftOf(i), height)).join('\n')}</svg>`;
  const pictures = await Promise.all(
    scenes.map(async ({ image }, i) => ({
      input: await sharp(join(imageFolder, image))
        .resize(picture * density, picture * density, { kernel: 'cubic', fit: 'contain', background: grounds.card })
        .toBuffer(),
      left: density * (leftOf(i) + (card.width - picture) / 2),
      top: density * (card.gap + card.pad),
    })),
  );
  mkdirSync(dirname(out), { recursive: true });
  // librsvg draws at 72 dots per inch
  const page = sharp(Buffer.from(svg), { density: 72 * density });
  await page.composite(pictures).png({ palette: true, quality: 95, effort: 9 }).toFile(out);
  console.log(`${out}: ${scenes.map(({ image }) => image).join(', ')}`);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    split: { type: 'string', default: 'unseen-artist' },
    scenes: { type: 'string' },
    out: { type: 'string', default: join('docs', 'images', 'demo.png') },
  },
});
if (positionals.length !== 1)
  fail('usage: node scripts/demo-picture.mjs <run folder> [--split <name>] [--scenes <n,n,...>] [--out <file.png>]');
const [run] = positionals;
const read = (path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return fail(`cannot read ${path}; give the folder of a run that was scored`);
  }
};
const { data } = parse(read(join(run, 'recipe.yaml')));
const lines = read(join(run, 'samples', `${values.split}.jsonl`)).split('\n');
const all = scenesOf(lines.flatMap((line) => (line === '' ? [] : [JSON.parse(line)])));
const numberOf = (image) => Number(/(\d+)\.png$/.exec(image)?.[1]);
const chosen = values.scenes
  ? values.scenes.split(',').map((n) => all.find(({ image }) => numberOf(image) === Number(n)) ?? fail(`--scenes: no scene ${n}`))
  : chooseScenes(all);
if (chosen.length === 0) fail(`${values.split} has no scene with three questions to show`);
await draw(chosen, join(data.folder, 'images'), values.out);
