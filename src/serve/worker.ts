// The process of one model: ONNX Runtime blocks the event loop while it computes, and what crashes in native
// code takes its process along, so neither happens in the server. It is told what to do in `ToWorker`
// messages and ends when the server does.

import { basename } from 'node:path';
import { openEngine } from '../engine/devices.ts';
import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type Explainer, loadExplainer } from '../explain/explainer.ts';
import { explanationJson, partsOf } from '../explain/report.ts';
import { type BatchSession, createBatchSession } from '../generate/batch-session.ts';
import { longestAnswer, samplingWith } from '../generate/defaults.ts';
import { PictureError } from '../generate/picture-reader.ts';
import { readImageSize } from '../images/header.ts';
import { imageTokenCount, llavaParameters } from '../models/llava.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import type { Ask } from './ask.ts';
import { cpuSeconds, type Failure, type FromWorker, type ToWorker, type WorkerOptions } from './messages.ts';

/** Milliseconds between reports. */
const REPORTS = 1000;

interface Loaded {
  model: LoadedModel;
  session: BatchSession;
  engine: Engine;
  options: WorkerOptions;
}

let loaded: Loaded | undefined;
const running = new Map<number, AbortController>();
/** Messages of one step of the batch go out as one. */
let outbox: FromWorker[] = [];

function send(message: FromWorker): void {
  if (outbox.length === 0) setImmediate(flush);
  outbox.push(message);
}

function flush(): void {
  const messages = outbox;
  outbox = [];
  if (process.connected) process.send!(messages);
}

async function load(options: WorkerOptions): Promise<void> {
  const { folder, quantize, device, parallel, threads, prefixBytes, maxPixels } = options;
  try {
    const engine = await openEngine(device, { threads });
    const model = await loadModel(folder, { engine, quantize });
    const imageRows: LoadedModel['imageRows'] = async (pictures) => {
      for (const picture of pictures) await checkPixels(picture as Uint8Array, maxPixels);
      return model.imageRows(pictures);
    };
    const session = createBatchSession({ ...model, imageRows }, { slots: parallel, prefixBytes });
    loaded = { model, session, engine, options };
    const { config } = model;
    const parameters = llavaParameters(config).reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
    send({ type: 'ready', details: { contextLength: session.contextLength, parameters, imageTokens: imageTokenCount(config) } });
    const report = () => ({ rss: process.memoryUsage.rss(), prefixBytes: session.load.prefixBytes, cpu: cpuSeconds() });
    setInterval(() => send({ type: 'report', ...report() }), REPORTS).unref();
  } catch (error) {
    send({ type: 'unloadable', message: (error as Error).message, isUser: error instanceof UserError });
  }
}

async function answer(id: number, ask: Ask): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const { model, session } = loaded!;
    const prompt = { turns: ask.turns, images: ask.images };
    checkLength(session, session.promptTokens(prompt));
    const seed = ask.sampling.seed ?? Math.floor(Math.random() * 2 ** 32);
    const options = {
      maxNewTokens: ask.maxNewTokens ?? longestAnswer(model.generation, session.contextLength),
      sampling: samplingWith({ ...ask.sampling, seed }, model.generation),
      stop: ask.stop,
      logprobs: ask.logprobs,
      signal: controller.signal,
    };
    const done = await session.answer(prompt, options, (piece) => send({ type: 'piece', id, piece }));
    send({ type: 'done', id, answer: done });
  } catch (error) {
    if (!controller.signal.aborted) send({ type: 'failed', id, failure: kindOf(error), message: (error as Error).message });
    if (kindOf(error) === 'internal' && !controller.signal.aborted) console.error(error);
  } finally {
    running.delete(id);
  }
}

/** Made at the first explanation: it has weights of its own, which are mapped files unless packed. */
let explainer: Promise<Explainer> | undefined;

async function explain(id: number, { turns, images, maxNewTokens }: Ask): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const { model, engine, options } = loaded!;
    if (images.length !== 1) throw new UserError(`an explanation is about one picture, and the messages have ${images.length}`);
    await checkPixels(images[0], options.maxPixels);
    explainer ??= loadExplainer(options.folder, { engine, model, quantize: options.quantize });
    const request = { picture: images[0], prompt: turns, maxNewTokens, signal: controller.signal };
    const explanation = await (await explainer).explain(request);
    const told = explanationJson(explanation, partsOf(explanation), basename(options.folder), false);
    send({ type: 'explained', id, explanation: told });
  } catch (error) {
    if (!controller.signal.aborted) send({ type: 'failed', id, failure: kindOf(error), message: (error as Error).message });
    if (kindOf(error) === 'internal' && !controller.signal.aborted) console.error(error);
  } finally {
    running.delete(id);
  }
}

class LengthError extends UserError {}

function checkLength({ contextLength }: BatchSession, tokens: number): void {
  if (tokens < contextLength) return;
  throw new LengthError(`This model's maximum context length is ${contextLength} tokens, and the messages have ${tokens}; shorten them.`);
}

async function checkPixels(image: Uint8Array, maxPixels: number): Promise<void> {
  const { width, height } = await readImageSize(image);
  if (width * height > maxPixels)
    throw new UserError(`the image has ${width} x ${height} pixels, more than the ${maxPixels} that are taken`);
}

function kindOf(error: unknown): Failure {
  if (error instanceof LengthError) return 'length';
  if (error instanceof PictureError) return 'image';
  return error instanceof UserError ? 'request' : 'internal';
}

process.on('message', (message: ToWorker) => {
  if (message.type === 'load') void load(message.options);
  else if (message.type === 'ask') void answer(message.id, message.ask);
  else if (message.type === 'explain') void explain(message.id, message.ask);
  else running.get(message.id)?.abort(new Error('cancelled'));
});
process.on('disconnect', () => process.exit(0));
// a terminal and a service manager signal every process: the server says when this one ends
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
