// The one form in which images pass between rooms.

/**
 * 8-bit pixels, rows from the top, channels interleaved: `[height, width, channels]`; RGB, or RGBA with
 * straight alpha.
 */
export interface PixelImage {
  width: number;
  height: number;
  channels: 3 | 4;
  data: Uint8Array;
}
