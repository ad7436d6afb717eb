// The server's page with the model in the tab, in a real browser. With LLAVA_GEMMA_TAB_SCREENSHOT, a path,
// it also writes the picture of the docs.

import { readFileSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { unzipSync } from 'fflate';
import type { Browser, Page, Route } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { type RunningServer, startServer } from '../src/serve/server.ts';
import { chromiumPath, launchBrowser } from './browser.ts';
import { skipped } from './required.ts';

if (!chromiumPath) skipped('chromium', 'no Chromium is installed, and tests of the page want one');

const KEY = 'open-sesame';
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const model = resolvePath(bundledModel, 'the model');
const complaints: string[] = [];
const asked: string[] = [];
let server: RunningServer;
let url: string;
let browser: Browser;
let page: Page;

async function ask(question: string): Promise<string> {
  await page.fill('#question', question);
  await page.press('#question', 'Enter');
  await page.locator('#turns[aria-busy="false"]').waitFor();
  return (await page.locator('.turn').last().locator('.words').textContent()) ?? '';
}

const ready = () => page.locator('#status[data-state="ready"]').waitFor();

/** Violations of the accessibility rules, as `rule: element`. */
async function violations(): Promise<string[]> {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    (window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe.run(),
  );
  return violations.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 200)}`));
}

beforeAll(async () => {
  server = await startServer({
    models: new Map([['tiny-llava', model]]),
    host: '127.0.0.1',
    port: 0,
    keys: [KEY],
    maxLoaded: 1,
    prefixBytes: 2 ** 24,
    maxBody: 2 ** 18,
    maxPixels: 1_000_000,
    pictures: { maxImages: 1 },
    parallel: 1,
    queue: 4,
  });
  url = `http://127.0.0.1:${server.port}`;
  await server.ready;
});

afterAll(() => server.close(0));

describe.skipIf(!chromiumPath)('in this tab', () => {
  beforeAll(async () => {
    browser = await launchBrowser();
    page = await browser.newPage({ viewport: { width: 1200, height: 1180 }, colorScheme: 'light' });
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
    });
    page.on('pageerror', ({ message }) => complaints.push(message));
    page.on('request', (request) => asked.push(`${request.method()} ${new URL(request.url()).pathname}`));
    await page.addInitScript((key) => sessionStorage.setItem('llava-gemma.key', key), KEY);
    await page.goto(url);
    await ready();
  });

  afterAll(() => browser.close());

  test('the model answers as on the server, and the server is not asked', async () => {
    await page.getByRole('button', { name: 'A rocket, a cactus and a cup of coffee' }).click();
    const questions = ['How many things are in the picture?', 'What is at the bottom right?'];
    const onServer: string[] = [];
    for (const question of questions) onServer.push(await ask(question));
    await page.getByLabel('Where it runs').selectOption('in this tab');
    expect(await page.locator('.turn').count()).toBe(0);
    await ready();
    // without WebGPU, its three files are not fetched
    const runtime = () => [...new Set(asked.flatMap((request) => /\/onnxruntime\/(.*)/.exec(request)?.[1] ?? []))].sort();
    // what workers ask is told late
    await expect.poll(runtime).toEqual(['ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm', 'ort.wasm.bundle.min.mjs']);
    asked.length = 0;
    const inTab: string[] = [];
    for (const question of questions) inTab.push(await ask(question));
    expect(inTab).toEqual(onServer);
    expect(inTab).toEqual(['3', 'hot beverage']);
    expect(asked.filter((request) => request.startsWith('POST'))).toEqual([]);
    expect(await page.locator('.facts').last().textContent()).toMatch(/first token [\d.]+ m?s2 tokens/);
    // words of its answers are words: nobody explains them here
    expect(await page.locator('.words button').count()).toBe(0);
    expect(await page.evaluate(() => crossOriginIsolated)).toBe(true);
  });

  test('what it is taught changes its answers, is downloaded, and forgotten', async () => {
    const drawn = async (color: string, shape: string) => ({
      name: `${color}.png`,
      mimeType: 'image/png',
      buffer: await sharp(Buffer.from(`<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96" fill="${color}">${shape}</svg>`))
        .flatten({ background: 'white' })
        .png()
        .toBuffer(),
    });
    const pictures = [await drawn('red', '<circle cx="48" cy="48" r="40"/>'), await drawn('blue', '<path d="M10 10h76v76H10z"/>')];
    await page.getByRole('button', { name: 'Train' }).click();
    await page.getByText('Add a picture first.').waitFor();
    await page.setInputFiles('#lesson-files', pictures);
    await page.getByRole('button', { name: 'Train' }).click();
    await page.getByText('Say what each picture shows.').waitFor();
    await page.getByLabel('What red.png shows').fill('banana');
    await page.getByLabel('What blue.png shows').fill('tent');
    await page.getByRole('button', { name: 'Ask about red.png' }).click();
    const before = await ask('What is this?');
    expect(await violations()).toEqual([]);
    await page.getByLabel('Steps').fill('5');
    await page.getByLabel('Steps').press('Enter');
    await page.getByText(/^5 steps learnt: the loss went from/).waitFor();
    await page.getByRole('img', { name: /^Loss of each step\. Step 5 of 5, loss [\d.]+$/ }).waitFor();
    const points = (await page.locator('#loss polyline').getAttribute('points'))!.split(' ').map((point) => Number(point.split(',')[1]));
    expect(points).toHaveLength(5);
    // downwards: the loss has become smaller
    expect(points[4]).toBeGreaterThan(points[0]);
    await page.getByLabel('Steps').fill('40');
    await page.getByRole('button', { name: 'Train' }).click();
    await page.getByText(/^40 steps learnt/).waitFor();
    expect(await ask('What is this?')).toBe('banana');
    await page.getByRole('button', { name: 'Ask about blue.png' }).click();
    expect(await ask('What is this?')).toBe('tent');
    // and says so by itself, while it learns and afterwards
    expect(await page.locator('.said').allTextContents()).toEqual(['It says: banana', 'It says: tent']);
    expect(await violations()).toEqual([]);
    if (process.env.LLAVA_GEMMA_TAB_SCREENSHOT) {
      await page.locator('#teach').scrollIntoViewIfNeeded();
      await page.screenshot({ path: process.env.LLAVA_GEMMA_TAB_SCREENSHOT });
    }

    const saved = page.waitForEvent('download');
    await page.getByRole('button', { name: 'Download' }).click();
    const names = Object.keys(unzipSync(readFileSync(await (await saved).path())));
    expect(names).toEqual(expect.arrayContaining(['tiny-llava/config.json', 'tiny-llava/model.safetensors']));

    await page.getByLabel('Steps').fill('10000');
    await page.getByRole('button', { name: 'Train' }).click();
    await page.getByText(/^Step \d+ of 10000/).waitFor();
    await page.getByRole('button', { name: 'Stop training' }).click();
    await page.getByText(/^\d+ steps? learnt/).waitFor();

    await page.getByRole('button', { name: 'Reset' }).click();
    await page.getByRole('button', { name: 'Ask about red.png' }).click();
    expect(await ask('What is this?')).toBe(before);
    expect(before).not.toBe('banana');
  });

  test('learns what is dropped on its panel and what is drawn there, and says what it knows by then', async () => {
    const before = await page.locator('.lessons li').count();
    const shown = await page.locator('#picture').getAttribute('src');
    await page.evaluate(() => {
      const transfer = new DataTransfer();
      const square = '<svg xmlns="http://www.w3.org/2000/svg" width="96" height="96"><rect width="96" height="96" fill="green"/></svg>';
      transfer.items.add(new File([square], 'green.svg', { type: 'image/svg+xml' }));
      transfer.items.add(new File(['words'], 'words.txt', { type: 'text/plain' }));
      document.querySelector('#teach')!.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: transfer }));
    });
    expect(await page.locator('.lessons li').count()).toBe(before + 1);
    expect(await page.locator('#picture').getAttribute('src')).toBe(shown);
    for (const name of ['green.svg', 'red.png', 'blue.png']) await page.getByRole('button', { name: `Remove ${name}` }).click();

    await page.getByText('Draw one').click();
    expect(await page.getByRole('button', { name: 'Add drawing' }).isDisabled()).toBe(true);
    await page.locator('#board').scrollIntoViewIfNeeded();
    const { x, y } = (await page.locator('#board').boundingBox())!;
    await page.mouse.move(x + 30, y + 30);
    await page.mouse.down();
    for (const [dx, dy] of [
      [150, 30],
      [150, 150],
      [30, 150],
      [30, 30],
    ])
      await page.mouse.move(x + dx, y + dy, { steps: 4 });
    await page.mouse.up();
    expect(await violations()).toEqual([]);
    await page.getByRole('button', { name: 'Add drawing' }).click();
    await page.getByLabel('What drawing 1.png shows').fill('guitar');
    expect(await page.getByRole('button', { name: 'Add drawing' }).isDisabled()).toBe(true);
    await page.getByLabel('Steps').fill('40');
    let heard = 0;
    await page.exposeFunction('heard', () => {
      heard++;
    });
    await page.evaluate(() => {
      const said = document.querySelector('.lessons li:last-child .said')!;
      new MutationObserver(() => (globalThis as unknown as { heard(): void }).heard()).observe(said, {
        childList: true,
      });
    });
    await page.getByRole('button', { name: 'Train' }).click();
    await page.getByText(/^40 steps learnt/).waitFor();
    expect(await page.locator('.lessons li').last().locator('.said').textContent()).toBe('It says: guitar');
    // the last one is that of the end
    await expect.poll(() => heard).toBeGreaterThan(3);
  });

  test('on a phone, and at the next visit', async () => {
    await page.setViewportSize({ width: 360, height: 740 });
    expect(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)).toBe(0);
    await page.emulateMedia({ colorScheme: 'dark', reducedMotion: 'reduce' });
    expect(await violations()).toEqual([]);
    await page.reload();
    await page.locator('#teach').waitFor();
    await ready();
    expect(await page.getByLabel('Where it runs').inputValue()).toBe('tab');
    await page.getByLabel('Where it runs').selectOption('on the server');
    await page.locator('#teach').waitFor({ state: 'hidden' });
    await ready();
  });

  test('a model that cannot be loaded is a sentence, and tried again', async () => {
    const gone = (route: Route) => route.fulfill({ status: 404 });
    await page.route('**/models/tiny-llava/tokenizer.json', gone);
    await page.getByLabel('Where it runs').selectOption('in this tab');
    await page.getByRole('alert').filter({ hasText: 'the server has no such file.' }).waitFor();
    await page.locator('#status[data-state="failed"]').waitFor();
    await page.unroute('**/models/tiny-llava/tokenizer.json', gone);
    expect(await ask('What is a cat?')).not.toBe('');
    await ready();
    // Chromium itself says that requests have failed
    complaints.splice(0, complaints.length, ...complaints.filter((text) => !/^Failed to load resource.*404/.test(text)));
  });

  test('nothing was complained about', () => {
    expect(complaints).toEqual([]);
  });
});

describe('files for the tab', () => {
  const get = (path: string, headers: Record<string, string> = {}) => fetch(url + path, { headers });
  const auth = { Authorization: `Bearer ${KEY}` };

  test('of models are sent to those who have the key, in parts', async () => {
    const { data } = (await (await get('/v1/models', auth)).json()) as { data: { files: string[] }[] };
    expect(data[0].files).toEqual(expect.arrayContaining(['config.json', 'tokenizer.json', 'model.safetensors']));
    const weights = '/models/tiny-llava/model.safetensors';
    const { size } = statSync(join(model, 'model.safetensors'));
    const bytes = readFileSync(join(model, 'model.safetensors'));
    expect((await get(weights)).status).toBe(401);
    const whole = await get(weights, auth);
    expect([whole.status, whole.headers.get('content-length'), whole.headers.get('accept-ranges')]).toEqual([200, String(size), 'bytes']);
    expect(Buffer.from(await whole.arrayBuffer()).equals(bytes)).toBe(true);
    const etag = whole.headers.get('etag')!;
    const part = async (range: string, more: Record<string, string> = {}) => {
      const response = await get(weights, { ...auth, Range: range, ...more });
      return [response.status, response.headers.get('content-range'), Buffer.from(await response.arrayBuffer())] as const;
    };
    expect(await part('bytes=10-19')).toEqual([206, `bytes 10-19/${size}`, bytes.subarray(10, 20)]);
    expect(await part('bytes=-4')).toEqual([206, `bytes ${size - 4}-${size - 1}/${size}`, bytes.subarray(-4)]);
    expect(await part(`bytes=${size - 3}-`)).toEqual([206, `bytes ${size - 3}-${size - 1}/${size}`, bytes.subarray(-3)]);
    expect(await part(`bytes=${size}-`)).toEqual([416, `bytes */${size}`, Buffer.alloc(0)]);
    expect((await part('bytes=0-1', { 'If-Range': etag }))[0]).toBe(206);
    expect((await part('bytes=0-1', { 'If-Range': '"other"' }))[0]).toBe(200);
    expect((await get(weights, { ...auth, 'If-None-Match': etag })).status).toBe(304);
    expect((await fetch(url + weights, { method: 'HEAD', headers: auth })).headers.get('content-length')).toBe(String(size));
  });

  test('are those of a table', async () => {
    for (const path of [
      '/models/tiny-llava/README.md',
      '/models/tiny-llava/%2e%2e%2fconfig.json',
      '/models/tiny-llava/',
      '/models/other/config.json',
      '/onnxruntime/ort.all.min.js',
      '/onnxruntime/%2e%2e%2fpackage.json',
      '/browser/llava-gemma.js',
      '/browser/worker.js',
    ])
      expect([path, (await get(path, auth)).status]).toEqual([path, 404]);
    const runtime = await get('/onnxruntime/ort-wasm-simd-threaded.wasm');
    expect([runtime.status, runtime.headers.get('content-type')]).toEqual([200, 'application/wasm']);
    await runtime.body?.cancel();
    const worker = await get('/browser/llava-gemma-worker.js');
    expect([worker.status, worker.headers.get('cross-origin-embedder-policy')]).toEqual([200, 'require-corp']);
  });
});
