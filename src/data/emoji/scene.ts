// Scenes: one to four drawings on a plain ground, in the cells of a 2x2 grid. A scene is a small plain
// object; rendering it is a pure function, so a data set is its seed, and an encoder can be trained on scenes
// that are drawn afresh in every step.

import type { PixelImage } from '../../images/pixels.ts';
import type { Random } from '../../random.ts';
import type { EmojiGlyphs } from './glyphs.ts';

/** Side of a scene in pixels, unless told otherwise. */
export const canvasSize = 96;
/** Side of a drawing as a share of the canvas: 38 to 46 px of 96. */
export const glyphShare: readonly [number, number] = [38 / 96, 46 / 96];

/** Plain muted grounds. */
export const grounds: readonly (readonly [number, number, number])[] = [
  [255, 255, 255],
  [240, 234, 222],
  [226, 232, 238],
  [222, 232, 220],
  [238, 224, 226],
  [228, 222, 236],
  [206, 206, 204],
  [196, 208, 216],
  [204, 194, 180],
  [168, 176, 172],
];

/** The four places, by cell: 0 top left, 1 top right, 2 bottom left, 3 bottom right. */
export const places = ['top left', 'top right', 'bottom left', 'bottom right'] as const;

/**
 * One drawing in a scene. The optional fields are augmentation; without them it is drawn as the artist made
 * it.
 */
export interface PlacedGlyph {
  /** Index in `EmojiGlyphs.concepts`. */
  concept: number;
  artist: string;
  cell: 0 | 1 | 2 | 3;
  /** Center, in pixels of the canvas. */
  x: number;
  y: number;
  /** Side of the drawing's box, in pixels of the canvas. */
  size: number;
  /** Degrees, clockwise. */
  rotation?: number;
  /** Mirrored left to right. */
  flip?: boolean;
  /** Width over height, the area kept; default 1. */
  stretch?: number;
  /** Degrees by which its verticals lean, before it is turned. */
  shear?: number;
  /** Left, top, right and bottom of a part that is left out, as shares of the drawing's box. */
  erased?: readonly [number, number, number, number];
  /** Factors about 1; `hue` in degrees; `grey` drops all color. */
  brightness?: number;
  contrast?: number;
  saturation?: number;
  hue?: number;
  grey?: boolean;
}

export interface Scene {
  /** Side of the square canvas in pixels. */
  size: number;
  ground: readonly [number, number, number];
  /** In raster order of their cells, unless the scene was rearranged. */
  glyphs: PlacedGlyph[];
}

export interface SceneOptions {
  /** Concepts to draw from, uniformly. Each must be drawn by each of `artists`. */
  concepts: readonly number[];
  /** Artists to draw from; each glyph has its own. */
  artists: readonly string[];
  /** Numbers of glyphs to draw from, uniformly (a repeated number weighs more); each at most 4. */
  counts?: readonly number[];
  /** Side of the canvas in pixels. */
  size?: number;
}

/**
 * A random scene. No two of its glyphs are of one family. The ground is never so close to a drawing that the
 * drawing would vanish.
 */
export function sampleScene(random: Random, glyphs: EmojiGlyphs, options: SceneOptions): Scene {
  const size = options.size ?? canvasSize;
  const count = random.pick(options.counts ?? [1, 2, 3, 4]);
  const cells = random
    .shuffle([0, 1, 2, 3] as const)
    .slice(0, count)
    .sort();
  const families = new Set<string>();
  const placed = cells.map((cell): PlacedGlyph => {
    let concept = random.pick(options.concepts);
    for (let tries = 0; families.has(glyphs.concepts[concept].family); tries++) {
      if (tries > 1000) throw new Error(`cannot find ${count} concepts of different families`);
      concept = random.pick(options.concepts);
    }
    families.add(glyphs.concepts[concept].family);
    const place = placeIn(random, cell, size);
    return { concept, artist: random.pick(options.artists), ...place };
  });
  return { size, ground: randomGround(random, glyphs, placed), glyphs: placed };
}

/** A place in a cell. The drawing stays inside: "top left" is never in doubt, and nothing is cut off. */
function placeIn(random: Random, cell: PlacedGlyph['cell'], canvas: number): Pick<PlacedGlyph, 'cell' | 'x' | 'y' | 'size'> {
  const size = canvas * (glyphShare[0] + random.uniform() * (glyphShare[1] - glyphShare[0]));
  const slack = canvas / 2 - size;
  const x = (cell % 2) * (canvas / 2) + size / 2 + random.uniform() * slack;
  const y = Math.floor(cell / 2) * (canvas / 2) + size / 2 + random.uniform() * slack;
  return { cell, x, y, size };
}

/** A ground that none of the drawings vanishes into; any, if there is no such. */
export function randomGround(random: Random, glyphs: EmojiGlyphs, placed: readonly PlacedGlyph[]): Scene['ground'] {
  const visible = grounds.filter((ground) => placed.every(({ concept, artist }) => standsOut(glyphs, concept, artist, ground)));
  return random.pick(visible.length > 0 ? visible : grounds);
}

const groundDistances = new WeakMap<Uint8Array, Float64Array>();

/** Whether at least a quarter of the drawing's opaque pixels differ clearly from the ground. */
function standsOut(glyphs: EmojiGlyphs, concept: number, artist: string, ground: readonly [number, number, number]): boolean {
  const pixels = glyphs.glyph(concept, artist);
  let shares = groundDistances.get(pixels);
  if (!shares) {
    shares = new Float64Array(grounds.length);
    let opaque = 0;
    for (let i = 0; i < pixels.length; i += 4) {
      if (pixels[i + 3] < 128) continue;
      opaque++;
      for (const [g, [red, green, blue]] of grounds.entries()) {
        const distance = Math.max(Math.abs(pixels[i] - red), Math.abs(pixels[i + 1] - green), Math.abs(pixels[i + 2] - blue));
        if (distance > 40) shares[g]++;
      }
    }
    for (let g = 0; g < shares.length; g++) shares[g] /= Math.max(1, opaque);
    groundDistances.set(pixels, shares);
  }
  return shares[grounds.indexOf(ground)] >= 0.25;
}

/** How far `augmentScene` goes. */
export interface Augmentation {
  /** Range of the factor on a drawing's size. */
  scale: readonly [number, number];
  /** Largest rotation to either side, in degrees. */
  rotation: number;
  /** Largest lean of the verticals to either side, in degrees. */
  shear: number;
  /** Largest factor between width and height, either way; 1 keeps the shape. */
  stretch: number;
  /** Chances, 0 to 1; what is erased is a box of a fifth to three fifths of each side. */
  flipChance: number;
  greyChance: number;
  eraseChance: number;
  /** Largest departure of the factor from 1. */
  brightness: number;
  contrast: number;
  saturation: number;
  /** Largest turn of the hue to either side, in degrees. */
  hue: number;
}

export const defaultAugmentation: Augmentation = {
  scale: [0.8, 1.15],
  rotation: 20,
  shear: 0,
  stretch: 1,
  flipChance: 0.5,
  greyChance: 0.1,
  eraseChance: 0,
  brightness: 0.25,
  contrast: 0.25,
  saturation: 0.4,
  hue: 25,
};

/**
 * The scene with each drawing turned, scaled, mirrored and tinted at random: what keeps a small encoder from
 * learning artists by heart.
 */
export function augmentScene(random: Random, scene: Scene, augmentation: Augmentation = defaultAugmentation): Scene {
  const spread = (amount: number) => (random.uniform() * 2 - 1) * amount;
  const { scale } = augmentation;
  return {
    ...scene,
    glyphs: scene.glyphs.map((glyph) => ({
      ...glyph,
      size: glyph.size * (scale[0] + random.uniform() * (scale[1] - scale[0])),
      rotation: spread(augmentation.rotation),
      shear: spread(augmentation.shear),
      stretch: Math.exp(spread(Math.log(augmentation.stretch))),
      erased: random.uniform() < augmentation.eraseChance ? randomBox(random) : undefined,
      flip: random.uniform() < augmentation.flipChance,
      brightness: 1 + spread(augmentation.brightness),
      contrast: 1 + spread(augmentation.contrast),
      saturation: 1 + spread(augmentation.saturation),
      hue: spread(augmentation.hue),
      grey: random.uniform() < augmentation.greyChance,
    })),
  };
}

/** Left, top, right and bottom of a box within the unit square, each side a fifth to three fifths long. */
function randomBox(random: Random): [number, number, number, number] {
  const width = 0.2 + 0.4 * random.uniform();
  const height = 0.2 + 0.4 * random.uniform();
  const left = random.uniform() * (1 - width);
  const top = random.uniform() * (1 - height);
  return [left, top, left + width, top + height];
}

// === Rendering ===

/**
 * Draws the scene. Each canvas pixel averages 2x2 bilinear samples of the drawing with premultiplied alpha.
 */
export function renderScene(scene: Scene, glyphs: EmojiGlyphs): PixelImage {
  const { size, ground } = scene;
  const data = new Uint8Array(size * size * 3);
  for (let i = 0; i < data.length; i += 3) {
    data[i] = ground[0];
    data[i + 1] = ground[1];
    data[i + 2] = ground[2];
  }
  for (const placed of scene.glyphs) drawGlyph(data, size, placed, glyphs.glyph(placed.concept, placed.artist), glyphs.glyphSize);
  return { width: size, height: size, channels: 3, data };
}

/**
 * Drawings as the renderer samples them: premultiplied, with a transparent frame one pixel wide so that no
 * sample needs a bounds check.
 */
const framedDrawings = new WeakMap<Uint8Array, Uint8Array>();

function framed(pixels: Uint8Array, side: number): Uint8Array {
  let result = framedDrawings.get(pixels);
  if (!result) {
    result = new Uint8Array((side + 2) * (side + 2) * 4);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const from = (y * side + x) * 4;
        const to = ((y + 1) * (side + 2) + x + 1) * 4;
        const alpha = pixels[from + 3];
        for (let channel = 0; channel < 3; channel++) result[to + channel] = Math.round((pixels[from + channel] * alpha) / 255);
        result[to + 3] = alpha;
      }
    }
    framedDrawings.set(pixels, result);
  }
  return result;
}

function drawGlyph(data: Uint8Array, canvas: number, placed: PlacedGlyph, drawing: Uint8Array, drawingSize: number): void {
  const source = framed(drawing, drawingSize);
  const side = drawingSize + 2;
  const stride = side * 4;
  const angle = ((placed.rotation ?? 0) * Math.PI) / 180;
  const cos = Math.cos(angle);
  const sin = Math.sin(angle);
  // Drawing's box, about its center -> canvas: stretch, lean, then turn.
  const wide = Math.sqrt(placed.stretch ?? 1);
  const lean = Math.tan(((placed.shear ?? 0) * Math.PI) / 180) / wide;
  const a = wide * cos;
  const b = lean * cos - sin / wide;
  const c = wide * sin;
  const d = lean * sin + cos / wide;
  const reach = (placed.size / 2) * Math.max(Math.abs(a) + Math.abs(b), Math.abs(c) + Math.abs(d)) + 1;
  const x0 = Math.max(0, Math.floor(placed.x - reach));
  const x1 = Math.min(canvas, Math.ceil(placed.x + reach));
  const y0 = Math.max(0, Math.floor(placed.y - reach));
  const y1 = Math.min(canvas, Math.ceil(placed.y + reach));
  // Canvas offset from the center -> source pixel: (u, v) = inverse of the above (its determinant is 1),
  // mirror, scale. Sample positions are pixel centers.
  const scale = drawingSize / placed.size;
  const mirror = placed.flip ? -1 : 1;
  const ux = d * scale * mirror;
  const uy = -b * scale * mirror;
  const vx = -c * scale;
  const vy = a * scale;
  const center = (side - 1) / 2;
  const limit = side - 1;
  const colors = colorMatrix(placed);
  // No sample of a pixel lies further from its center than this, in source pixels.
  const margin = scale * Math.max(wide, 1 / wide) * (0.5 + Math.abs(lean));
  const [left, top, right, bottom] = (placed.erased ?? [0, 0, 0, 0]).map((share) => share * side);
  for (let y = y0; y < y1; y++) {
    for (let x = x0; x < x1; x++) {
      const u0 = center + (x + 0.5 - placed.x) * ux + (y + 0.5 - placed.y) * uy;
      const v0 = center + (x + 0.5 - placed.x) * vx + (y + 0.5 - placed.y) * vy;
      if (u0 < -margin || v0 < -margin || u0 > limit + margin || v0 > limit + margin) continue;
      if (u0 >= left && u0 < right && v0 >= top && v0 < bottom) continue;
      let red = 0;
      let green = 0;
      let blue = 0;
      let alpha = 0;
      for (let sub = 0; sub < 4; sub++) {
        const dx = sub & 1 ? 0.25 : -0.25;
        const dy = sub & 2 ? 0.25 : -0.25;
        const u = u0 + dx * ux + dy * uy;
        const v = v0 + dx * vx + dy * vy;
        if (u < 0 || v < 0 || u >= limit || v >= limit) continue;
        const column = u | 0;
        const row = v | 0;
        const i = row * stride + column * 4;
        const j = i + stride;
        const across = u - column;
        const down = v - row;
        const w11 = across * down;
        const w01 = across - w11;
        const w10 = down - w11;
        const w00 = 1 - across - w10;
        const cover = w00 * source[i + 3] + w01 * source[i + 7] + w10 * source[j + 3] + w11 * source[j + 7];
        if (cover === 0) continue;
        alpha += cover;
        red += w00 * source[i] + w01 * source[i + 4] + w10 * source[j] + w11 * source[j + 4];
        green += w00 * source[i + 1] + w01 * source[i + 5] + w10 * source[j + 1] + w11 * source[j + 5];
        blue += w00 * source[i + 2] + w01 * source[i + 6] + w10 * source[j + 2] + w11 * source[j + 6];
      }
      if (alpha === 0) continue;
      const cover = alpha / (4 * 255);
      red /= 4;
      green /= 4;
      blue /= 4;
      if (colors) {
        const r = red;
        const g = green;
        const b = blue;
        const offset = colors[9] * cover;
        red = clamp(colors[0] * r + colors[1] * g + colors[2] * b + offset, 255 * cover);
        green = clamp(colors[3] * r + colors[4] * g + colors[5] * b + offset, 255 * cover);
        blue = clamp(colors[6] * r + colors[7] * g + colors[8] * b + offset, 255 * cover);
      }
      const o = (y * canvas + x) * 3;
      data[o] = data[o] * (1 - cover) + red + 0.5;
      data[o + 1] = data[o + 1] * (1 - cover) + green + 0.5;
      data[o + 2] = data[o + 2] * (1 - cover) + blue + 0.5;
    }
  }
}

const clamp = (value: number, top: number) => Math.max(0, Math.min(value, top));

/**
 * Hue turn, saturation, contrast and brightness as one 3x3 matrix (rows R, G, B) and an offset common to the
 * channels; undefined: none.
 */
function colorMatrix(placed: PlacedGlyph): Float64Array | undefined {
  const { brightness = 1, contrast = 1, hue = 0, grey = false } = placed;
  const saturation = grey ? 0 : (placed.saturation ?? 1);
  if (brightness === 1 && contrast === 1 && saturation === 1 && hue === 0) return undefined;
  // Chroma is turned about the grey axis, with the luma weights of Rec. 709 (as SVG's feColorMatrix hueRotate
  // does) kept in place.
  const luma = [0.2126, 0.7152, 0.0722];
  const cos = Math.cos((hue * Math.PI) / 180);
  const sin = Math.sin((hue * Math.PI) / 180);
  const turn = [
    [-0.2126, -0.7152, 0.9278],
    [0.143, 0.14, -0.283],
    [-0.7874, 0.7152, 0.0722],
  ];
  const gain = contrast * brightness;
  const matrix = new Float64Array(10);
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) {
      const chroma = cos * ((row === column ? 1 : 0) - luma[column]) + sin * turn[row][column];
      matrix[row * 3 + column] = gain * (luma[column] + saturation * chroma);
    }
  }
  matrix[9] = brightness * 128 * (1 - contrast);
  return matrix;
}
