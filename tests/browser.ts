// A Chromium that is installed, for tests of pages.

import { existsSync } from 'node:fs';
import { type Browser, chromium } from 'playwright-core';

const places = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/opt/google/chrome/chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
];

/** Where it is: LLAVA_GEMMA_CHROMIUM, else the usual places; undefined where there is none. */
export const chromiumPath = process.env.LLAVA_GEMMA_CHROMIUM ?? places.find((path) => existsSync(path));

export function launchBrowser(flags: readonly string[] = []): Promise<Browser> {
  // the sandbox needs rights that containers lack, and only our own page is opened
  return chromium.launch({ executablePath: chromiumPath, args: ['--no-sandbox', ...flags] });
}
