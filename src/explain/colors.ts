// Colors of maps: dark violet, red, yellow, in equal steps of lightness, so that a map reads alike in color,
// in gray, and to those who tell few colors apart. A path through OKLab (Ottosson 2020, "A perceptual color
// space for image processing").

/** Red, green and blue, 0 to 255. */
export type Rgb = readonly [number, number, number];

const LIGHTNESS: readonly [number, number] = [0.22, 0.95];
/** Degrees: violet to yellow, by way of red. */
const HUE: readonly [number, number] = [285, 465];
const CHROMA = { ends: 0.07, middle: 0.13 };

function gamma(linear: number): number {
  const value = Math.min(1, Math.max(0, linear));
  return Math.round(255 * (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
}

/** sRGB of a color in OKLab; what the screen cannot show is cut off. */
function oklabToRgb(lightness: number, a: number, b: number): Rgb {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    gamma(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    gamma(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    gamma(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

/** The color of a value from 0 to 1. */
export function heatColor(value: number): Rgb {
  const t = Math.min(1, Math.max(0, value));
  const between = ([from, to]: readonly [number, number]) => from + t * (to - from);
  const hue = (between(HUE) * Math.PI) / 180;
  const chroma = CHROMA.ends + (CHROMA.middle - CHROMA.ends) * Math.sin(Math.PI * t);
  return oklabToRgb(between(LIGHTNESS), chroma * Math.cos(hue), chroma * Math.sin(hue));
}

/** The colors from 0 to 1 as a CSS gradient to the right. */
export function heatGradient(): string {
  return `linear-gradient(to right, ${Array.from({ length: 11 }, (_, i) => `rgb(${heatColor(i / 10).join(' ')})`).join(', ')})`;
}
