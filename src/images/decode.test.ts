import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { decodeImage } from './decode.ts';
import { checkImageHeader } from './header.ts';

const folder = mkdtempSync(join(tmpdir(), 'decode-'));
const file = (name: string, content: string | Uint8Array) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};

/** Red on the left, blue on the right. */
const halves = sharp({ create: { width: 8, height: 4, channels: 3, background: '#ff0000' } }).composite([
  { input: { create: { width: 4, height: 4, channels: 3, background: '#0000ff' } }, left: 4, top: 0 },
]);

interface Golden {
  name: string;
  width: number;
  height: number;
  file: string;
  rgb: string;
}

const goldens = readFileSync(new URL('goldens/files.jsonl', import.meta.url), 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Golden);

/** 200 of the 332 bytes of a TIFF that Pillow wrote: its header is whole. */
const shortTiff =
  'SUkqAAgAAAAKAAABBAABAAAACAAAAAEBBAABAAAACAAAAAIBAwADAAAAhgAAAAMBAwABAAAAAQAAAAYBAwABAAAAAgAAABEBBAABAAAAjAAAABUBAwABAAAAAwAAABYBBAAB' +
  'AAAACAAAABcBBAABAAAAwAAAABwBAwABAAAAAQAAAAAAAAAIAAgACADk5OS2trY/Pz8AAABbW1sAAADNzc0jIyNfX18bGxuEhITMzMz///9/f388PDyNjY1ra2sICAiEhIQgICA=';

describe('decodeImage', () => {
  it.each(goldens)('gives the pixels of Pillow: $name', async ({ name, width, height, file: content, rgb }) => {
    const bytes = Buffer.from(content, 'base64');
    const expected = { width, height, channels: 3, data: new Uint8Array(Buffer.from(rgb, 'base64')) };
    expect(await decodeImage(bytes)).toEqual(expected);
    expect(await decodeImage(file(name, bytes))).toEqual(expected);
  });

  it.each(['png', 'jpeg', 'webp'] as const)('decodes %s from a path and from bytes', async (format) => {
    const bytes = await halves.clone().toFormat(format, { quality: 100 }).toBuffer();
    for (const image of [await decodeImage(file(`halves.${format}`, bytes)), await decodeImage(bytes)]) {
      expect(image).toMatchObject({ width: 8, height: 4, channels: 3 });
      expect(image.data[0]).toBeGreaterThan(230);
      expect(image.data[2]).toBeLessThan(25);
      expect(image.data[7 * 3 + 2]).toBeGreaterThan(230);
    }
  });

  it('decodes SVG, and lays its transparency on white or keeps it', async () => {
    const path = file(
      'dot.svg',
      '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><rect width="2" height="4" fill="#00ff00"/></svg>',
    );
    const flat = await decodeImage(path);
    expect([...flat.data.subarray(0, 12)]).toEqual([0, 255, 0, 0, 255, 0, 255, 255, 255, 255, 255, 255]);
    const kept = await decodeImage(path, { alpha: 'keep' });
    expect(kept.channels).toBe(4);
    expect([kept.data[3], kept.data[15]]).toEqual([255, 0]);
  });

  it('lays the transparency of other pictures on white if asked to', async () => {
    const half = await sharp(Buffer.from([10, 20, 30, 255, 40, 50, 60, 0]), { raw: { width: 2, height: 1, channels: 4 } })
      .png()
      .toBuffer();
    expect([...(await decodeImage(half)).data]).toEqual([10, 20, 30, 40, 50, 60]);
    expect([...(await decodeImage(half, { alpha: 'white' })).data]).toEqual([10, 20, 30, 255, 255, 255]);
  });

  it('gives three channels for gray and 16-bit pictures', async () => {
    const gray = await sharp({ create: { width: 2, height: 2, channels: 3, background: '#808080' } })
      .toColourspace('b-w')
      .png()
      .toBuffer();
    expect([...(await decodeImage(gray)).data]).toEqual(Array(12).fill(128));
    const deep = await halves.clone().toColourspace('rgb16').png().toBuffer();
    expect((await decodeImage(deep)).data.length).toBe(8 * 4 * 3);
  });

  it.each(['webp', 'svg', 'png', 'jpg'])('reads a %s anew that has changed on the disk', async (format) => {
    const path = join(folder, `changing.${format}`);
    const picture = (color: string, side: number) =>
      format === 'svg'
        ? Buffer.from(
            `<svg xmlns="http://www.w3.org/2000/svg" width="${side}" height="${side}"><rect width="99" height="99" fill="${color}"/></svg>`,
          )
        : sharp({ create: { width: side, height: side, channels: 3, background: color } })
            .png({ progressive: true })
            .toFormat(format as 'png')
            .toBuffer();
    for (const [color, channel, side] of [
      ['#ff0000', 0, 16],
      ['#0000ff', 2, 8],
    ] as const) {
      writeFileSync(path, await picture(color, side));
      const { width, data } = await decodeImage(path);
      expect([width, data[channel] > 230, data[2 - channel] < 30]).toEqual([side, true, true]);
    }
  });

  it('turns a photograph upright', async () => {
    const bytes = await halves.clone().withMetadata({ orientation: 6 }).jpeg({ quality: 100 }).toBuffer();
    const image = await decodeImage(bytes);
    expect([image.width, image.height]).toEqual([4, 8]);
    expect(image.data[0]).toBeGreaterThan(230);
    expect(image.data[7 * 4 * 3 + 2]).toBeGreaterThan(230);
  });

  it('names a file that is missing, damaged, cut short, not a picture or too large', async () => {
    const png = await halves.clone().png().toBuffer();
    const noise = await sharp(Buffer.from(Uint8Array.from({ length: 3 * 64 * 64 }, (_, i) => (i * 7919) % 251)), {
      raw: { width: 64, height: 64, channels: 3 },
    })
      .jpeg()
      .toBuffer();
    const bmp = goldens.find(({ name }) => name === 'rgb24.bmp')!;
    const faults: [string, RegExp, number?][] = [
      [file('text.png', 'hello'), /text\.png: cannot be read as an image/],
      [join(folder, 'none.png'), /none\.png: there is no such image file/],
      ['', /empty path/],
      [folder, /decode-\w+: cannot be read as an image: it is a folder/],
      [join(folder, 'text.png', 'a.png'), /a\.png: cannot be read as an image: .* no folder/],
      [file('short.bmp', Buffer.from(bmp.file, 'base64').subarray(0, 90)), /short\.bmp: cannot be read as an image/],
      [file('header.bmp', 'BM'), /header\.bmp: cannot be read as an image/],
      [file('large.bmp', Buffer.from(bmp.file, 'base64')), /large\.bmp: the image has more than 10 pixels/, 10],
      [file('empty.jpg', ''), /empty\.jpg: cannot be read as an image/],
      [file('short.jpg', noise.subarray(0, noise.length / 2)), /short\.jpg: cannot be read as an image/],
      [file('short.tiff', Buffer.from(shortTiff, 'base64')), /short\.tiff: cannot be read/],
      [file('large.png', png), /large\.png: the image has more than 10 pixels/, 10],
      [file('photo.heic', '\0\0\0\x18ftypheic\0\0\0\0mif1heic'), /it is HEIC, which is not read; save it as PNG or JPEG\.$/],
      [file('scan.jpg', '%PDF-1.7'), /it is PDF, which is not read/],
      [
        file('lfs.png', 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n'),
        /lfs\.png: this is only git-lfs's pointer to a file of 12 bytes: run "git lfs pull"/,
      ],
      [file('gone.jpg', '<!DOCTYPE html><html></html>'), /gone\.jpg: cannot be read as an image: it is a page of the web/],
      ['https://example.com/cat.png', /cat\.png: there is no such image file: it is an address; download the picture/],
      ['data:image/png;base64,iVBO', /it is the picture itself as text/],
      ['~/cat.png', /the ~ stands for itself here/],
    ];
    for (const [path, message, maxPixels] of faults) {
      const error = await decodeImage(path, { maxPixels }).catch((thrown) => thrown);
      expect(error, path).toBeInstanceOf(UserError);
      expect(error.message).toMatch(message);
      expect(error.message).not.toContain('\n');
    }
  });

  it.skipIf(process.platform === 'win32')('does not wait for a pipe', async () => {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    for (const read of [decodeImage, checkImageHeader])
      await expect(read(pipe)).rejects.toThrow(/pipe: .*it is a pipe or a device, not a file/);
  });

  it('reads the bytes it was given, whatever the name', async () => {
    const path = file('really-a.png', await halves.clone().webp({ lossless: true }).toBuffer());
    expect(await decodeImage(path)).toEqual(await decodeImage(readFileSync(path)));
  });
});
