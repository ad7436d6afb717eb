// The server's page in a real browser. LLAVA_GEMMA_SCREENSHOT=docs/images/page.png also writes the picture of
// the docs.

import { mkdtempSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, BrowserContextOptions, Locator, Page, Request } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { readPageFiles } from '../src/serve/page-files.ts';
import { type RunningServer, type ServeOptions, startServer } from '../src/serve/server.ts';
import { chromiumPath, launchBrowser } from './browser.ts';
import { skipped } from './required.ts';
import { cli } from './toy.ts';

if (!chromiumPath) skipped('chromium', 'no Chromium is installed, and tests of the page want one');

const folder = mkdtempSync(join(tmpdir(), 'page-'));
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
/** Of what is looked at again and again: a busy machine takes its time. */
const slow = { timeout: 20_000 };
const pages: Page[] = [];
const running: RunningServer[] = [];
/** What went wrong on a page without anybody looking. */
let complaints: string[] = [];
let browser: Browser;
let server: RunningServer;

const urlOf = ({ port }: RunningServer) => `http://127.0.0.1:${port}`;

async function start(options: Partial<ServeOptions> = {}): Promise<RunningServer> {
  const models = new Map([
    ['tiny-llava', resolvePath(bundledModel, 'the model')],
    ['babbler', join(folder, 'babbler')],
  ]);
  const limits = { maxBody: 2 ** 18, maxPixels: 1_000_000, pictures: { maxImages: 1 }, parallel: 4, queue: 8 };
  const started = await startServer({ models, host: '127.0.0.1', port: 0, maxLoaded: 2, prefixBytes: 2 ** 24, ...limits, ...options });
  running.push(started);
  await started.ready;
  return started;
}

async function open(options: BrowserContextOptions = {}, of = server): Promise<Page> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 }, ...options });
  pages.push(page);
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
  });
  page.on('pageerror', ({ message }) => complaints.push(message));
  page.on('request', (request) => {
    if (!/^(blob|data):/.test(request.url()) && !request.url().startsWith(urlOf(of))) complaints.push(`asked ${request.url()}`);
  });
  await page.goto(urlOf(of));
  return page;
}

const ready = (page: Page) => page.locator('#status[data-state="ready"]').waitFor();
const answered = (page: Page) => page.locator('#turns[aria-busy="false"]').waitFor();

async function ask(page: Page, question: string): Promise<string> {
  await page.fill('#question', question);
  await page.press('#question', 'Enter');
  await answered(page);
  return (await page.locator('.turn').last().locator('.words').textContent()) ?? '';
}

/** Violations of the accessibility rules, as `rule: element`. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    (window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe.run(),
  );
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 200)}`));
}

/** Text of an element, its parts apart. */
const textOf = async (at: Locator) =>
  (await at.evaluate((element) => [...element.childNodes].map((node) => node.textContent?.trim()).join(' '))).trim();

/** Waits for what the map of the chosen word is worth, and asks for it where the machine is slow. */
async function worth(page: Page): Promise<void> {
  const measured = page.locator('#explanation table, #explanation .fine:has-text("nats")').first();
  const button = page.getByRole('button', { name: 'Measure what the map is worth' });
  await measured.or(button).first().waitFor();
  if (await button.isVisible()) await button.click();
  await measured.waitFor();
}

const overflow = (page: Page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

beforeAll(async () => {
  expect(await cli('init', 'llava-gemma-tiny', '--out', join(folder, 'babbler'), '--seed', '3')).toMatchObject({ code: 0 });
  server = await start();
});

afterAll(() => Promise.all(running.map((each) => each.close(0))));

describe.skipIf(!chromiumPath)('the page', () => {
  beforeAll(async () => {
    browser = await launchBrowser();
  });

  afterEach(async () => {
    for (const page of pages.splice(0)) await page.close();
    const heard = complaints;
    complaints = [];
    expect(heard).toEqual([]);
  });

  afterAll(() => browser.close());

  test('picture in, answer out, a word chosen, its map seen with what it is worth', async () => {
    const page = await open({ colorScheme: 'light', viewport: { width: 1200, height: 1040 } });
    await ready(page);
    expect(await textOf(page.locator('#status'))).toMatch(/^ready\s*· \d+ MB$/);
    await page.getByRole('button', { name: 'A rocket, a cactus and a cup of coffee' }).click();
    const requests: Request[] = [];
    page.on('request', (request) => requests.push(request));
    expect(await ask(page, 'How many things are in the picture?')).toBe('3');
    expect(await ask(page, 'What is at the bottom right?')).toBe('hot beverage');
    const second = requests.filter((request) => request.method() === 'POST')[1].postDataJSON();
    expect(second.messages.map(({ role }: { role: string }) => role)).toEqual(['user', 'assistant', 'user']);
    expect(second.messages[0].content[0].image_url.url).toMatch(/^data:image\/png;base64,/);
    expect(await textOf(page.locator('.facts').last())).toMatch(/first token [\d.]+ m?s\s+2 tokens\s+[\d.]+ m?s in all/);

    // another word before the maps of the first one are there
    await page.evaluate(() => {
      const [first, second] = document.querySelectorAll<HTMLElement>('.turn:last-child .words button');
      second.click();
      first.click();
    });
    const map = page.getByRole('img', { name: 'Map of “hot”, relevancy: strongest at the bottom right' });
    await map.waitFor();
    await worth(page);
    expect(await textOf(page.locator('#explanation'))).toMatch(
      /The picture is worth [\d.]+ nats to it\. Its map of relevancy is better than a random/,
    );
    // the map lies over the picture, a pixel a patch
    const [over, under] = await Promise.all([map.boundingBox(), page.locator('#picture').boundingBox()]);
    for (const side of ['x', 'y', 'width', 'height'] as const) expect(over![side]).toBeCloseTo(under![side], 0);
    expect(await map.evaluate((canvas: HTMLCanvasElement) => [canvas.width, canvas.height])).toEqual([6, 6]);
    const brightest = await map.evaluate((canvas: HTMLCanvasElement) => {
      const { data } = canvas.getContext('2d')!.getImageData(0, 0, 6, 6);
      const light = Array.from({ length: 36 }, (_, i) => data[4 * i] + data[4 * i + 1] + data[4 * i + 2]);
      return light.indexOf(Math.max(...light));
    });
    expect([Math.floor(brightest / 6) >= 3, brightest % 6 >= 3]).toEqual([true, true]);
    await page.locator('#explanation select').selectOption('rollout');
    await page.getByRole('img', { name: 'Map of “hot”, rollout' }).waitFor();
    // of another map, what that one is worth
    await page.getByText(/Its map of rollout is (better|no better) than a random order/).waitFor();
    await page.locator('#explanation select').selectOption('relevancy');
    await page.getByText(/Its map of relevancy is/).waitFor();
    if (process.env.LLAVA_GEMMA_SCREENSHOT) await page.screenshot({ path: process.env.LLAVA_GEMMA_SCREENSHOT });
    expect(await violations(page)).toEqual([]);
    await page.getByRole('button', { name: 'Close' }).click();
    await map.waitFor({ state: 'detached' }).catch(() => {});
    expect(await page.locator('#heat').isVisible()).toBe(false);
    await page.getByRole('button', { name: 'Another picture' }).waitFor();
    await page.getByRole('button', { name: 'Remove' }).click();
    expect(await page.locator('.turn').count()).toBe(0);
  });

  test('by keyboard alone', async () => {
    const page = await open();
    await ready(page);
    const name = () =>
      page.evaluate(
        () => document.activeElement?.textContent || document.activeElement?.id || document.activeElement?.querySelector('img')?.alt,
      );
    const tabTo = async (wanted: RegExp) => {
      for (let i = 0; i < 40; i++) {
        await page.keyboard.press('Tab');
        const at = await page.evaluate(() => {
          const { activeElement: at } = document;
          return `${at?.id} ${at?.querySelector('img')?.alt ?? ''} ${at?.textContent?.trim()}`;
        });
        if (wanted.test(at)) return;
      }
      throw new Error(`Tab never comes to ${wanted}`);
    };
    await tabTo(/A tent/);
    await page.keyboard.press('Enter');
    await page.locator('#frame').waitFor();
    await tabTo(/^question/);
    await page.keyboard.type('What is at the top right?\n');
    await answered(page);
    await ask(page, 'What is at the bottom left?');
    await page.keyboard.press('Shift+Tab');
    expect(await name()).toBe('banana');
    await page.keyboard.press('Space');
    await page.locator('#heat').waitFor();
    expect(await textOf(page.locator('[aria-pressed="true"]'))).toBe('banana');
    await page.keyboard.press('Escape');
    expect(await page.locator('#heat').isVisible()).toBe(false);
    await page.keyboard.press('Shift+Tab');
    expect(await name()).toBe('fish');
    await tabTo(/^open-settings|^theme/);
    await page.keyboard.press('Enter');
  });

  test('another model of the folder answers; Stop stops it', async () => {
    const page = await open();
    await ready(page);
    await page.selectOption('#model', 'babbler');
    await page.uncheck('#short');
    await page.locator('#open-settings').click();
    await page.fill('#max-tokens', '400');
    await page.getByRole('button', { name: 'Done' }).click();
    // as soon as it has begun: the model is fast
    await page.evaluate(() => {
      const stop = document.querySelector<HTMLButtonElement>('#stop')!;
      const seen = (_: MutationRecord[], observer: MutationObserver) => {
        if (!document.querySelector('.words')?.textContent) return;
        observer.disconnect();
        stop.click();
      };
      new MutationObserver(seen).observe(document.querySelector('#turns')!, { childList: true, subtree: true });
    });
    await ask(page, 'hello');
    expect(await textOf(page.locator('.facts'))).toContain('stopped');
    const shown = await textOf(page.locator('.words'));
    for (let i = 0; i < 100 && server.models[1].load.running > 0; i++) await page.waitForTimeout(20);
    expect(server.models[1].load.running).toBe(0);
    expect(await textOf(page.locator('.words'))).toBe(shown);
    await page.locator('#open-settings').click();
    await page.fill('#max-tokens', '12');
    await page.getByRole('button', { name: 'Done' }).click();
    await ask(page, 'again');
    expect(await textOf(page.locator('.facts').last())).toMatch(/tokens\/s\s+12 tokens.*cut off/s);
  });

  test('a phone, light and dark: nothing scrolls sideways, nothing is hard to reach', async () => {
    const page = await open({ viewport: { width: 360, height: 740 }, colorScheme: 'dark', reducedMotion: 'reduce', hasTouch: true });
    await ready(page);
    expect(await overflow(page)).toBe(0);
    expect(await violations(page)).toEqual([]);
    await page.getByRole('button', { name: 'A cat, an apple and a bicycle' }).tap();
    await ask(page, 'What is at the top right of this picture, if there is anything? averyveryverylongwordwithoutanybreakinsideit');
    await page.locator('.words button').first().tap();
    await worth(page);
    expect(await overflow(page)).toBe(0);
    // the picture has come into view
    const { y } = (await page.locator('#frame').boundingBox())!;
    expect(y).toBeGreaterThanOrEqual(40);
    expect(y).toBeLessThan(400);
    expect(await violations(page)).toEqual([]);
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const dark = await ground();
    await page.locator('#theme').tap();
    const light = await ground();
    expect(light).not.toBe(dark);
    expect(await violations(page)).toEqual([]);
    await page.reload();
    expect(await ground()).toBe(light);
    await page.locator('#open-settings').tap();
    expect(await violations(page)).toEqual([]);
    expect(await overflow(page)).toBe(0);
    expect(await page.evaluate(() => document.getAnimations().length)).toBe(0);
  });

  test('pictures are dropped and pasted; what is none is said', async () => {
    const page = await open();
    const hand = (kind: 'drop' | 'paste', type: string, base64: string) =>
      page.evaluate(
        ([kind, type, base64]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], 'thing', { type }));
          document.dispatchEvent(
            kind === 'drop' ? new DragEvent('drop', { dataTransfer: data }) : new ClipboardEvent('paste', { clipboardData: data }),
          );
        },
        [kind, type, base64],
      );
    const wide = await sharp({ create: { width: 90, height: 30, channels: 3, background: '#c22' } })
      .png()
      .toBuffer();
    await hand('drop', 'image/png', wide.toString('base64'));
    await page.locator('#frame').waitFor();
    await expect.poll(async () => (await page.locator('#frame').boundingBox())!, slow).toMatchObject({ width: expect.closeTo(390, -1.5) });
    const box = (await page.locator('#frame').boundingBox())!;
    expect(box.width / box.height).toBeCloseTo(3, 1);
    await hand('paste', 'image/png', Buffer.from('no picture').toString('base64'));
    await page.getByRole('alert').filter({ hasText: 'cannot be read' }).waitFor();
    await hand('drop', 'text/plain', btoa('words'));
    await page.getByRole('alert').filter({ hasText: 'This is no picture' }).waitFor();
    // the map of a wide picture goes beyond it, where the encoder's picture is padded
    await hand('paste', 'image/png', wide.toString('base64'));
    await ask(page, 'What is it?');
    await page.locator('.words button').first().click();
    await page.locator('#heat').waitFor();
    const [map, picture] = [(await page.locator('#heat').boundingBox())!, (await page.locator('#picture').boundingBox())!];
    expect(map.height / picture.height).toBeCloseTo(3, 1);
    expect(map.width / picture.width).toBeCloseTo(1, 1);
    expect(map.y).toBeCloseTo(picture.y - picture.height, -0.5);
  });

  test('what goes wrong is a sentence', async () => {
    const page = await open();
    await ready(page);
    const said = async (text: string) => {
      await page.getByRole('alert').filter({ hasText: text }).waitFor();
      await answered(page);
    };
    const noise = await sharp({
      create: { width: 700, height: 700, channels: 3, background: '#888', noise: { type: 'gaussian', mean: 128, sigma: 60 } },
    })
      .png()
      .toBuffer();
    await page.setInputFiles('#file', { name: 'large.png', mimeType: 'image/png', buffer: noise });
    await ask(page, 'What is it?');
    await said('too large a file');
    await page.setInputFiles('#file', {
      name: 'broken.svg',
      mimeType: 'image/svg+xml',
      buffer: Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    });
    await ask(page, 'What is it?');
    await said('PNG, JPEG, WebP or GIF');
    const full = { error: { message: 'too many requests', type: 'rate_limit_error', param: null, code: 'queue_full' } };
    await page.route('**/v1/chat/completions', (route) => route.fulfill({ status: 429, json: full }));
    await ask(page, 'Now?');
    await said('Too many questions are waiting already');
    await page.unroute('**/v1/chat/completions');
    await page.route('**/v1/**', (route) => route.abort('connectionrefused'));
    await ask(page, 'Now?');
    await said('The server cannot be reached');
    await page.locator('#status[data-state="away"]').waitFor();
    await page.unroute('**/v1/**');
    await ready(page);
    // Chromium itself says that requests have failed
    complaints = complaints.filter((text) => !/^Failed to load resource/.test(text));
  });

  // Windows cannot hold a process
  test.skipIf(process.platform === 'win32')('a model that dies while it is asked is a sentence, and back by itself', async () => {
    const page = await open();
    await ready(page);
    await page.selectOption('#model', 'babbler');
    await page.locator('#open-settings').click();
    await page.fill('#max-tokens', '12');
    await page.getByRole('button', { name: 'Done' }).click();
    await ask(page, 'hello');
    const pid = server.models[1].pid!;
    process.kill(pid, 'SIGSTOP');
    await page.fill('#question', 'and now?');
    await page.press('#question', 'Enter');
    await expect.poll(() => server.models[1].load.running, slow).toBe(1);
    process.kill(pid, 'SIGKILL');
    await page.getByRole('alert').filter({ hasText: 'is being started again' }).waitFor();
    await answered(page);
    await ready(page);
    expect(await ask(page, 'and now?')).not.toBe('');
    complaints = complaints.filter((text) => !/^Failed to load resource/.test(text));
  });

  test('a server with keys asks for one', async () => {
    const closed = await start({ keys: ['open-sesame'], models: new Map([['tiny-llava', resolvePath(bundledModel, 'the model')]]) });
    const page = await open({}, closed);
    const dialog = page.getByRole('dialog', { name: 'Settings' });
    await dialog.waitFor();
    expect(await violations(page)).toEqual([]);
    await page.keyboard.type('open-sesam\n');
    await expect.poll(() => page.evaluate(() => document.activeElement?.id), slow).toBe('key');
    await dialog.getByLabel('API key').fill('open-sesame');
    await page.keyboard.press('Enter');
    await ready(page);
    await page.getByRole('button', { name: 'A tent, a fish and a banana' }).click();
    expect(await ask(page, 'What is at the top left?')).toBe('tent');
    await page.reload();
    await ready(page);
    complaints = complaints.filter((text) => !/^Failed to load resource.*401/.test(text));
  });

  test('runs nothing but its own modules', async () => {
    const page = await open();
    const policy = (await (await fetch(urlOf(server))).headers.get('content-security-policy'))!;
    expect(policy).toContain("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self';");
    expect(policy).not.toMatch(/'unsafe/);
    await page.evaluate(() => {
      const script = document.createElement('script');
      script.textContent = 'window.ran = true';
      document.body.append(script);
    });
    expect(await page.evaluate(() => 'ran' in window)).toBe(false);
    expect(complaints.splice(0).join()).toContain('Content Security Policy');
  });
});

describe('its files', () => {
  test('are modules that a browser finds: by relative paths, none of which is missing', () => {
    const files = readPageFiles();
    const modules = [...files].filter(([path]) => path.endsWith('.js'));
    expect(modules.length).toBeGreaterThan(10);
    for (const [path, { bytes }] of modules)
      for (const [, name] of Buffer.from(bytes)
        .toString()
        .matchAll(/^(?:import|export)\s(?:[^'";=]*\sfrom\s)?['"]([^'"]+)['"]/gm)) {
        expect(name).toMatch(/^\.{1,2}\//);
        expect(files.has(new URL(name, `http://x${path}`).pathname)).toBe(true);
      }
    const html = Buffer.from(files.get('/')!.bytes).toString();
    const named = [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path]) => path);
    expect(named.filter((path) => !files.has(path))).toEqual([]);
    expect(html).not.toMatch(/<script(?![^>]*src=)|style=|\son\w+=/);
  });

  test('are served to everybody, kept by browsers, and nothing else is', async () => {
    const first = await fetch(urlOf(server));
    expect([first.status, first.headers.get('content-type')]).toEqual([200, 'text/html; charset=utf-8']);
    const again = await fetch(urlOf(server), { headers: { 'if-none-match': first.headers.get('etag')! } });
    expect([again.status, await again.text()]).toEqual([304, '']);
    const module = await fetch(`${urlOf(server)}/page/main.js`);
    expect([module.status, module.headers.get('content-type')]).toEqual([200, 'text/javascript; charset=utf-8']);
    for (const path of [
      '/page/',
      '/page/../serve/worker.js',
      '/page/%2e%2e/serve/worker.js',
      '/serve/worker.js',
      '/page/main.js.map',
      '/page/nothing.js',
    ])
      expect([path, (await fetch(urlOf(server) + path)).status]).toEqual([path, 404]);
    expect((await fetch(urlOf(server), { method: 'POST' })).status).toBe(404);
  });
});
