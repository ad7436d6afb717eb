import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { giveBackFreedMemory } from './malloc.ts';

test('says whether it does, and is asked once', async () => {
  const [first, second] = [giveBackFreedMemory(), giveBackFreedMemory()];
  expect(second).toBe(first);
  expect(typeof (await first)).toBe('boolean');
});

const isGlibc = process.platform === 'linux' && 'glibcVersionRuntime' in (process.report.getReport() as { header: object }).header;

test.runIf(isGlibc)('memory that is freed between pieces that live leaves the process', () => {
  const folder = mkdtempSync(join(tmpdir(), 'malloc-'));
  const script = join(folder, 'run.mjs');
  const here = (path: string) => JSON.stringify(new URL(path, import.meta.url).href);
  writeFileSync(
    script,
    `import koffi from ${here('../../node_modules/koffi/index.js')};
    import { readFileSync } from 'node:fs';
    import { giveBackFreedMemory } from ${here('../../dist/engine/malloc.js')};
    const libc = koffi.load('libc.so.6');
    const [malloc, free, memset] = [libc.func('void *malloc(size_t)'), libc.func('void free(void *)'), libc.func('void *memset(void *, int, size_t)')];
    if (process.argv[2] === 'back') await giveBackFreedMemory();
    // a large piece that is freed raises glibc's own threshold
    free(malloc(31 << 20));
    const pieces = Array.from({ length: 60 }, () => { const piece = malloc(4 << 20); memset(piece, 1, 4 << 20); return piece; });
    pieces.forEach((piece, i) => { if (i % 2 === 0) free(piece); });
    console.log(Number(/RssAnon:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]));`,
  );
  const resident = (how: string) => Number(execFileSync(process.execPath, [script, how], { encoding: 'utf8' }));
  const [kept, given] = [resident('kept'), resident('back')];
  rmSync(folder, { recursive: true });
  // 30 pieces of 4 MB
  expect(kept - given).toBeGreaterThan(80 * 1024);
});
