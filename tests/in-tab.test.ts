// The browser package in a real browser: pictures, answers, training and what is downloaded are those of
// Node.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { unzipSync } from 'fflate';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type * as Client from '../src/browser/client.ts';
import type * as Package from '../src/browser/index.ts';
import { buildEmojiDataset } from '../src/data/emoji/build.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { exportHuggingFace } from '../src/export/hugging-face.ts';
import { withExportSource } from '../src/export/source.ts';
import { createSession } from '../src/generate/session.ts';
import { decodeImage } from '../src/images/decode.ts';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { type LoadedModel, loadModel } from '../src/pretrained/load.ts';
import type { Turn } from '../src/text/chat.ts';
import { createConnectorTrainer } from '../src/train/connector.ts';
import { chromiumPath, launchBrowser } from './browser.ts';
import { skipped } from './required.ts';
import { root } from './structure.ts';
import { serveTab, type TabServer } from './tab-server.ts';
import { tensorsOf } from './toy.ts';

if (!chromiumPath) skipped('chromium', 'no Chromium is installed, and tests of the browser package want one');

// what the code below finds in the tab
declare const lib: typeof Package;
declare const client: typeof Client;

/** A picture, by its name in the folder of the scenes, and what is asked or said about it. */
interface Shown {
  image: string;
  turns: Turn[];
}

const folder = mkdtempSync(join(tmpdir(), 'in-tab-'));
const modelFolder = resolvePath(bundledModel, 'the model');
const files = readdirSync(modelFolder);
const engine = createOrtEngine();
/** What went wrong in the tab without anybody looking. */
const complaints: string[] = [];
let model: LoadedModel;
let questions: Shown[];
let captions: Shown[];
let server: TabServer;
let browser: Browser;
let page: Page;

const bytesOf = (name: string) => new Uint8Array(readFileSync(join(folder, 'scenes', 'images', name)));

async function answerIn(from: LoadedModel, { image, turns }: Shown): Promise<string> {
  let text = '';
  for await (const piece of createSession(from).generate({ turns, images: [bytesOf(image)] })) text += piece;
  return text;
}

describe.skipIf(!chromiumPath)('in a tab', () => {
  beforeAll(async () => {
    const out = join(folder, 'scenes');
    const splits = ['unseen-scenes'] as const;
    const scenes = await buildEmojiDataset({ seed: 5, out, trainScenes: 12, splits, evaluationScenes: 10 });
    const entriesOf = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as { image: string; conversations: Turn[] }[];
    questions = entriesOf(scenes.evaluation['unseen-scenes'])
      .slice(0, 50)
      .map(({ image, conversations }) => ({ image, turns: conversations.slice(0, 1) }));
    captions = entriesOf(scenes.captions).map(({ image, conversations }) => ({ image, turns: conversations }));
    model = await loadModel(modelFolder, { engine });
    server = await serveTab({
      dist: join(root, 'dist'),
      runtime: join(root, 'node_modules/onnxruntime-web/dist'),
      model: modelFolder,
      whole: modelFolder,
      pictures: scenes.imageFolder,
      made: folder,
    });
    browser = await launchBrowser(['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader']);
    page = await browser.newPage();
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') complaints.push(message.text());
    });
    page.on('pageerror', ({ message }) => complaints.push(message));
    await page.goto(server.url);
    await page.waitForFunction('window.lib');
  });

  afterAll(async () => {
    await browser?.close();
    await server?.close();
    await model?.generator.dispose();
  });

  test('PNG has the pixels that it has in Node, whatever its form', async () => {
    const noise = Uint8Array.from({ length: 24 * 17 * 4 }, (_, i) => (i * 7919 + (i % 13) * 31) % 256);
    const raw = sharp(noise, { raw: { width: 24, height: 17, channels: 4 } });
    const forms = {
      transparent: raw.clone().png(),
      opaque: raw.clone().removeAlpha().png(),
      palette: raw.clone().removeAlpha().png({ palette: true, colours: 16 }),
      grey: raw.clone().removeAlpha().toColourspace('b-w').png(),
      profile: raw.clone().removeAlpha().withIccProfile('p3').png(),
    };
    const made: Record<string, Buffer> = {};
    for (const [name, picture] of Object.entries(forms)) made[name] = await picture.toBuffer();
    const inTab = await page.evaluate(
      async (pictures) => {
        const pixels: Record<string, number[]> = {};
        for (const [name, bytes] of Object.entries(pictures))
          pixels[name] = [...(await lib.decodeImage(Uint8Array.from(bytes), { name })).data];
        return pixels;
      },
      Object.fromEntries(Object.entries(made).map(([name, bytes]) => [name, [...bytes]])),
    );
    for (const [name, bytes] of Object.entries(made)) expect(inTab[name], name).toEqual([...(await decodeImage(bytes)).data]);
  });

  test('50 questions are answered as in Node', async () => {
    const inNode = await createSession(model).answerAll(questions.map(({ image, turns }) => ({ turns, images: [bytesOf(image)] })));
    const inTab = await page.evaluate(
      async ({ questions, files }) => {
        const progress: number[] = [];
        const onProgress = (done: number, total: number) => void progress.push(done / total);
        const folder = await lib.openFolder('/model/', { files, onProgress });
        const model = await lib.loadModel(folder, { device: 'cpu', threads: 1, runtime: '/runtime/' });
        const pictures = new Map<string, Uint8Array>();
        for (const { image } of questions)
          if (!pictures.has(image)) pictures.set(image, new Uint8Array(await (await fetch(`/pictures/${image}`)).arrayBuffer()));
        const prompts = questions.map(({ image, turns }) => ({ turns, images: [pictures.get(image)!] }));
        const answers = await lib.createSession(model).answerAll(prompts);
        await model.dispose();
        folder.close();
        return { answers, progress, engine: model.engine.name, isolated: crossOriginIsolated };
      },
      { questions, files },
    );
    expect(inTab.answers).toEqual(inNode);
    expect(inTab).toMatchObject({ engine: 'ort-wasm', isolated: true });
    expect(inTab.progress.at(-1)).toBe(1);
    expect(inTab.progress).toEqual([...inTab.progress].sort((a, b) => a - b));
  });

  test('the connector learns as in Node, and what it learnt opens there', async () => {
    const training = { steps: 20, batchSize: 4, learningRate: 3e-3 };
    const losses: number[] = [];
    const trainer = await createConnectorTrainer(engine, model, modelFolder, { fresh: 7 });
    const examples = captions.map(({ image, turns }) => ({ picture: bytesOf(image), turns }));
    await trainer.train(examples, { ...training, onStep: ({ loss }) => void losses.push(loss) });
    await trainer.dispose();
    const download = page.waitForEvent('download', { timeout: 0 });

    const inTab = await page.evaluate(
      async ({ captions, files, training }) => {
        const bytesAt = async (path: string) => new Uint8Array(await (await fetch(path)).arrayBuffer());
        // as files that were dropped
        const dropped: File[] = [];
        for (const name of files) dropped.push(new File([await bytesAt(`/model/${name}`)], name));
        const folder = await lib.openFolder(dropped);
        const model = await lib.loadModel(folder, { device: 'cpu', threads: 1, runtime: '/runtime/' });
        const session = lib.createSession(model);
        const examples: Package.ConnectorExample[] = [];
        for (const { image, turns } of captions) examples.push({ picture: await bytesAt(`/pictures/${image}`), turns });
        const ask = async () => {
          let text = '';
          const [{ picture, turns }] = examples;
          for await (const piece of session.generate({ turns: turns.slice(0, 1), images: [picture] })) text += piece;
          return text;
        };
        const before = await ask();
        const losses: number[] = [];
        await lib.trainConnector(model, examples, { ...training, fresh: 7, onStep: ({ loss }) => void losses.push(loss) });
        const after = await ask();
        const stop = new AbortController();
        const stopped = await lib
          .trainConnector(model, examples, { ...training, signal: stop.signal, onStep: () => stop.abort(new Error('enough')) })
          .catch((error: Error) => error.message);
        const zip = await lib.modelZip(model, 'mine');
        const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(zip), download: 'mine.zip' });
        link.click();
        const afterStop = await ask();
        await model.dispose();
        return { before, after, losses, stopped, afterStop, bytes: zip.size };
      },
      { captions, files, training },
    );
    expect(inTab.losses).toHaveLength(20);
    inTab.losses.forEach((loss, i) => {
      expect(Math.abs(loss - losses[i]), `step ${i + 1}`).toBeLessThan(1e-3);
    });
    expect(inTab.losses[19]).toBeLessThan(inTab.losses[0] - 1);
    expect(inTab.after).not.toBe(inTab.before);
    expect(inTab.stopped).toBe('enough');

    const downloaded = readFileSync(await (await download).path());
    expect(downloaded.length).toBe(inTab.bytes);
    const unpacked = unzipSync(downloaded);
    for (const [name, bytes] of Object.entries(unpacked)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      writeFileSync(join(folder, name), bytes);
    }
    const mine = join(folder, 'mine');
    const again = await loadModel(mine, { engine });
    expect(await answerIn(again, { ...captions[0], turns: captions[0].turns.slice(0, 1) })).toBe(inTab.afterStop);
    await again.generator.dispose();
    const [before, after] = [await tensorsOf(modelFolder), await tensorsOf(mine)];
    const isSame = (name: string) => Buffer.from(before.get(name)!.buffer).equals(Buffer.from(after.get(name)!.buffer));
    expect([...before.keys()].filter((name) => !isSame(name)).every((name) => name.startsWith('multi_modal_projector.'))).toBe(true);
  });

  test('a server that sends no parts of files gives them whole', async () => {
    const bytes = await page.evaluate(async (files) => {
      const [parts, whole] = [await lib.openFolder('/model/', { files }), await lib.openFolder('/whole/', { files })];
      for (const folder of [parts, whole]) folder.close();
      return [parts.bytes, whole.bytes];
    }, files);
    const onDisk = files.reduce((sum, name) => sum + statSync(join(modelFolder, name)).size, 0);
    expect(bytes).toEqual([onDisk, onDisk]);
  });

  test('a model in shards, of which no list is given, and a folder on the disk answer alike', async () => {
    const sharded = join(folder, 'sharded');
    await withExportSource(modelFolder, (source) => exportHuggingFace(source, sharded, { dtype: 'float16', maxShardSize: 3e6 }));
    const names = readdirSync(sharded);
    expect(names.filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(2);
    const [question] = questions;
    const answers = await page.evaluate(
      async ({ question, names }) => {
        const root = await navigator.storage.getDirectory();
        const directory = await root.getDirectoryHandle('chosen', { create: true });
        for (const name of names) {
          const file = await (await directory.getFileHandle(name, { create: true })).createWritable();
          await file.write(await (await fetch(`/made/sharded/${name}`)).blob());
          await file.close();
        }
        const picture = new Uint8Array(await (await fetch(`/pictures/${question.image}`)).arrayBuffer());
        const answers: string[] = [];
        for (const origin of ['/made/sharded', directory]) {
          const folder = await lib.openFolder(origin);
          const model = await lib.loadModel(folder, { device: 'cpu', threads: 1, runtime: '/runtime/' });
          answers.push(...(await lib.createSession(model).answerAll([{ turns: question.turns, images: [picture] }])));
          await model.dispose();
          folder.close();
        }
        await root.removeEntry('chosen', { recursive: true });
        return answers;
      },
      { question, names },
    );
    const answer = await answerIn(model, question);
    expect(answers).toEqual([answer, answer]);
    // files that models may have and this one has not
    complaints.splice(0, complaints.length, ...complaints.filter((text) => !/404/.test(text)));
  });

  test('a folder that cannot be read is told of in one sentence', async () => {
    mkdirSync(join(folder, 'no-tokenizer'));
    for (const name of ['config.json', 'model.safetensors'])
      writeFileSync(join(folder, 'no-tokenizer', name), readFileSync(join(modelFolder, name)));
    const errors = await page.evaluate(async () => {
      const messageOf = (work: Promise<unknown>) =>
        work.then(
          () => 'nothing',
          ({ name, message }: Error) => `${name}: ${message}`,
        );
      const options = { device: 'cpu', threads: 1, runtime: '/runtime/' } as const;
      const untokenized = await lib.openFolder('/made/no-tokenizer', { files: ['config.json', 'model.safetensors'] });
      return {
        absent: await messageOf(lib.openFolder('/made/no-tokenizer', { files: ['config.json', 'model-2.safetensors'] })),
        empty: await messageOf(lib.openFolder([new File(['x'], 'notes.txt')])),
        tokenizer: await messageOf(lib.loadModel(untokenized, options)),
        runtime: await messageOf(lib.loadModel(untokenized, { ...options, runtime: 'data:,' })),
        picture: await messageOf(lib.decodeImage(new TextEncoder().encode('%PDF-1.7'), { name: 'a.pdf' })),
      };
    });
    expect(errors.absent).toBe(`UserError: ${server.url}made/no-tokenizer/model-2.safetensors: the server has no such file`);
    expect(errors.empty).toBe("UserError: model: there is no config.json: it is no model's folder");
    expect(errors.tokenizer).toBe('UserError: /no-tokenizer/tokenizer.json: no such file');
    expect(errors.runtime).toMatch(/^UserError: .*the runtime cannot be loaded .*install onnxruntime-web/);
    expect(errors.picture).toBe('UserError: a.pdf: cannot be read as an image: it is PDF, which is not read; save it as PNG or JPEG.');
    complaints.splice(0, complaints.length, ...complaints.filter((text) => !/data:,|404/.test(text)));
  });

  test('in a worker, a model is asked while it is trained', async () => {
    const inTab = await page.evaluate(
      async ({ captions, files }) => {
        const model = client.openWorker();
        const info = await model.load('/model/', { files, device: 'cpu', threads: 2, runtime: '/runtime/' });
        const examples: Package.ConnectorExample[] = [];
        for (const { image, turns } of captions)
          examples.push({ picture: new Uint8Array(await (await fetch(`/pictures/${image}`)).arrayBuffer()), turns });
        const [{ picture, turns }] = examples as { picture: Uint8Array; turns: Package.Turn[] }[];
        const pieces: string[] = [];
        const ask = () =>
          model.answer({ turns: turns.slice(0, 1), images: [picture] }, { maxNewTokens: 1, onPiece: (text) => void pieces.push(text) });
        const end = await ask();
        const order: string[] = [];
        const stop = new AbortController();
        let asked: Promise<unknown> = Promise.resolve();
        const training = model.train(examples as { picture: Uint8Array; turns: Package.Turn[] }[], {
          steps: 200,
          batchSize: 2,
          signal: stop.signal,
          onStep({ step }) {
            if (step > 1) return;
            asked = ask().then(() => {
              order.push('answered');
              stop.abort(new Error('enough'));
            });
          },
        });
        const ended = await training.then(
          () => 'to the end',
          ({ message }: Error) => message,
        );
        order.push('ended');
        await asked;
        const names = [...(await model.files()).keys()].sort();
        const pdf = new TextEncoder().encode('%PDF-1.7');
        const unread = await model
          .answer({ turns: turns.slice(0, 1), images: [pdf] })
          .catch(({ name, message }: Error) => `${name}: ${message}`);
        const left = ask().catch(({ message }: Error) => message);
        model.close();
        return { info, end, pieces, order, ended, names, unread, left: await left };
      },
      { captions, files },
    );
    expect(inTab.info).toMatchObject({ name: 'model', engine: 'ort-wasm', contextLength: 512 });
    expect(inTab.end).toEqual({ finish: 'length', promptTokens: expect.any(Number), tokens: 1 });
    expect(inTab.pieces.length).toBeGreaterThan(0);
    expect(inTab.ended).toBe('enough');
    expect(inTab.order).toEqual(['answered', 'ended']);
    expect(inTab.names).toContain('model.safetensors');
    expect(inTab.unread).toBe('UserError: image: cannot be read as an image: it is PDF, which is not read; save it as PNG or JPEG.');
    expect(inTab.left).toBe('the model was closed');
  });

  test('on WebGPU too, two questions are answered as in Node, and the connector learns as there', async () => {
    const few = questions.slice(0, 2);
    const training = { steps: 2, batchSize: 1, learningRate: 3e-3, fresh: 7 };
    const inTab = await page.evaluate(
      async ({ questions, captions, files, training }) => {
        const bytesAt = async (image: string) => new Uint8Array(await (await fetch(`/pictures/${image}`)).arrayBuffer());
        const folder = await lib.openFolder('/model/', { files });
        const model = await lib.loadModel(folder, { device: 'webgpu', runtime: '/runtime/' });
        const session = lib.createSession(model);
        const answers: string[] = [];
        for (const { image, turns } of questions) {
          let text = '';
          for await (const piece of session.generate({ turns, images: [await bytesAt(image)] })) text += piece;
          answers.push(text);
        }
        const examples: Package.ConnectorExample[] = [];
        for (const { image, turns } of captions) examples.push({ picture: await bytesAt(image), turns });
        const losses: number[] = [];
        await lib.trainConnector(model, examples, { ...training, onStep: ({ loss }) => void losses.push(loss) });
        await model.dispose();
        return { answers, engine: model.engine.name, losses };
      },
      { questions: few, captions: captions.slice(0, 2), files, training },
    );
    const inNode: string[] = [];
    for (const shown of few) inNode.push(await answerIn(model, shown));
    expect(inTab).toMatchObject({ answers: inNode, engine: 'ort-webgpu' });
    const { fresh, ...rest } = training;
    const losses: number[] = [];
    const trainer = await createConnectorTrainer(engine, model, modelFolder, { fresh });
    const examples = captions.slice(0, 2).map(({ image, turns }) => ({ picture: bytesOf(image), turns }));
    await trainer.train(examples, { ...rest, onStep: ({ loss }) => void losses.push(loss) });
    await trainer.dispose();
    expect(losses).toHaveLength(2);
    for (const [i, loss] of losses.entries()) expect(Math.abs(inTab.losses[i] - loss), `step ${i + 1}`).toBeLessThan(1e-3);
  });

  test('nothing was complained about', () => {
    expect(complaints).toEqual([]);
  });
});
