import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, expect, it } from 'vitest';
import { checkImageHeader } from './header.ts';

const folder = mkdtempSync(join(tmpdir(), 'header-'));
afterAll(() => rmSync(folder, { recursive: true }));
const save = (name: string, bytes: Uint8Array | string): string => {
  writeFileSync(join(folder, name), bytes);
  return join(folder, name);
};

it.each(['png', 'jpeg', 'webp', 'gif', 'tiff', 'avif'] as const)('%s is a picture, whatever its name', async (format) => {
  const picture = sharp({ create: { width: 9, height: 7, channels: 3, background: '#804020' } });
  await checkImageHeader(save(`${format}.dat`, await picture.toFormat(format).toBuffer()));
});

it('so are drawings and bitmaps', async () => {
  await checkImageHeader(save('drawing.svg', '<svg xmlns="http://www.w3.org/2000/svg" width="5" height="5"/>'));
  await checkImageHeader(save('bitmap.bmp', 'BM and so on'));
});

it('what is none is named', async () => {
  const cases: [string, RegExp][] = [
    [save('page.jpg', '<html>not found</html>'), /page\.jpg: cannot be read as an image/],
    [save('empty.jpg', ''), /empty\.jpg: cannot be read as an image/],
    [save('pointer.png', 'version https://git-lfs.github.com/spec/v1\n'), /pointer\.png: cannot be read as an image/],
    [join(folder, 'gone.png'), /gone\.png: there is no such file or folder$/],
    [folder, /: it is a folder$/],
    [join(save('file', ''), 'below.png'), /below\.png: what it is said to lie in is no folder$/],
  ];
  for (const [path, message] of cases) await expect(checkImageHeader(path)).rejects.toThrow(message);
});
