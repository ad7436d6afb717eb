// What vitest does before the first test and after the last one.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from '../scripts/setup.mjs';

/**
 * Builds dist/, from which training starts its threads, so that it is what the sources say; and gives all tests one
 * folder for what is temporary, which is removed with whatever they left in it. Its name is short: sockets lie in it.
 */
export function setup() {
  build();
  const folder = mkdtempSync(join(tmpdir(), 'lg-'));
  process.env.TMPDIR = folder;
  return () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}
