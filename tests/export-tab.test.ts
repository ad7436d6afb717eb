// What is exported for transformers.js, in a tab, as pages have it: from its file for browsers, over HTTP, on
// WebAssembly and on WebGPU. Where LLAVA_GEMMA_PEERS names the folder in which it is installed.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { TransformersJs } from '../src/export/peers/transformers-js.ts';
import { createSession } from '../src/generate/session.ts';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { loadModel } from '../src/pretrained/load.ts';
import { chromiumPath, launchBrowser } from './browser.ts';
import { skipped } from './required.ts';
import { root } from './structure.ts';
import { serveTab, type TabServer } from './tab-server.ts';
import { cli } from './toy.ts';

// what the code below finds in the tab
declare const transformers: TransformersJs & { env: { backends: { onnx: { wasm: { wasmPaths: string } } } } };

const modules = resolve(process.env.LLAVA_GEMMA_PEERS ?? 'none', 'node_modules');
const library = join(modules, '@huggingface', 'transformers', 'dist');
const isThere = existsSync(library) && chromiumPath !== undefined;
if (!isThere) skipped('peers', 'transformers.js is not where LLAVA_GEMMA_PEERS says, or no Chromium is installed');

const questions = ['how many things?', 'What is in the picture?', 'what colour is it?'];

describe.skipIf(!isThere)('transformers.js in a tab', () => {
  const folder = mkdtempSync(join(tmpdir(), 'export-tab-'));
  const complaints: string[] = [];
  let expected: string[];
  let server: TabServer;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    const { code, stderr } = await cli('export', bundledModel, '--to', 'transformers.js', '--out', join(folder, 'web'));
    expect(code, stderr).toBe(0);
    // of the encoder's size: it resizes in another way
    const picture = await sharp(join(root, 'docs', 'images', 'demo.png'))
      .resize(96, 96, { fit: 'fill' })
      .removeAlpha()
      .png()
      .toBuffer();
    await sharp(picture).toFile(join(folder, 'picture.png'));
    const model = await loadModel(resolvePath(bundledModel, 'the model'));
    const turnsOf = (value: string) => [{ from: 'human' as const, value }];
    expected = await createSession(model).answerAll(questions.map((value) => ({ turns: turnsOf(value), images: [picture] })));
    await model.generator.dispose();
    server = await serveTab({
      dist: join(root, 'dist'),
      library,
      runtime: join(modules, 'onnxruntime-web', 'dist'),
      models: folder,
    });
    browser = await launchBrowser(['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader']);
    page = await browser.newPage();
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    page.on('pageerror', ({ message }) => complaints.push(message));
    await page.goto(server.url);
    writeFileSync(join(folder, 'load.js'), "import * as it from '/library/transformers.min.js';\nwindow.transformers = it;\n");
    await page.addScriptTag({ url: '/models/load.js', type: 'module' });
    await page.waitForFunction('window.transformers');
  }, 60_000);

  afterAll(async () => {
    await browser?.close();
    await server?.close();
    rmSync(folder, { recursive: true });
  });

  test.each(['wasm', 'webgpu'])('answers on %s as the model does here', { timeout: 240_000 }, async (device) => {
    const answers = await page.evaluate(
      async ({ device, questions }) => {
        const { env, AutoProcessor, LlavaForConditionalGeneration, RawImage } = transformers;
        Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: '/models/', useBrowserCache: false });
        env.backends.onnx.wasm.wasmPaths = '/runtime/';
        const processor = await AutoProcessor.from_pretrained('web');
        const model = await LlavaForConditionalGeneration.from_pretrained('web', { device, dtype: 'fp32' });
        const picture = await RawImage.read('/models/picture.png');
        const answers: string[] = [];
        for (const text of questions) {
          const content = [{ type: 'image' }, { type: 'text', text }];
          const prompt = processor.apply_chat_template([{ role: 'user', content }], { add_generation_prompt: true });
          const inputs = await processor(picture, prompt);
          const ids = await model.generate({ ...inputs, max_new_tokens: 64, do_sample: false });
          const [answer] = processor.batch_decode(ids.slice(null, [inputs.input_ids.dims[1], null]), { skip_special_tokens: true });
          answers.push(answer.trim());
        }
        await model.dispose();
        return answers;
      },
      { device, questions },
    );
    expect(answers).toEqual(expected);
    expect(complaints).toEqual([]);
  });
});
