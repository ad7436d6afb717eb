// The process of one model: ONNX Runtime blocks the event loop while it computes, and what crashes in native
// code takes its process along, so neither happens in the server. It is told what to do in `ToWorker`
// messages and ends when the server does.

import { basename } from 'node:path';
import { openEngine } from '../engine/devices.ts';
import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type Explainer, loadExplainer } from '../explain/explainer.ts';
import { measureFaithfulness } from '../explain/faithfulness.ts';
import { explanationJson, partsOf, targetsOf } from '../explain/report.ts';
import { type BatchSession, createBatchSession } from '../generate/batch-session.ts';
import { longestAnswer, samplingWith, seeded } from '../generate/defaults.ts';
import { PictureError } from '../generate/picture-reader.ts';
import { readImageSize } from '../images/header.ts';
import { seenPart } from '../images/processor.ts';
import type { Size } from '../images/transform.ts';
import { imageTokenCount, llavaParameters } from '../models/llava.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import type { Turn } from '../text/chat.ts';
import { isLongerThan } from '../text/tokenizer.ts';
import type { Ask, ExplainAsk } from './ask.ts';
import { type Failure, type FromWorker, processFigures, type ToWorker, type WorkerOptions } from './messages.ts';

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
  const { folder, quantize, device, parallel, threads, spin, prefixBytes, maxPixels } = options;
  try {
    const engine = await openEngine(device, { threads, spin });
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
    const report = () => ({ ...processFigures(), prefixBytes: session.load.prefixBytes });
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
    checkText(ask.turns);
    checkLength(session, session.promptTokens(prompt));
    const options = {
      maxNewTokens: ask.maxNewTokens ?? longestAnswer(model.generation, session.contextLength),
      sampling: samplingWith(seeded(ask.sampling), model.generation),
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
/** One at a time: their passes hold up everybody's tokens. */
let explaining: Promise<unknown> = Promise.resolve();

async function explain(id: number, ask: ExplainAsk): Promise<void> {
  const controller = new AbortController();
  running.set(id, controller);
  try {
    const explanation = explaining.then(() => {
      controller.signal.throwIfAborted();
      return explanationOf(ask, controller.signal);
    });
    explaining = explanation.catch(() => {});
    send({ type: 'explained', id, explanation: await explanation });
  } catch (error) {
    if (!controller.signal.aborted) send({ type: 'failed', id, failure: kindOf(error), message: (error as Error).message });
    if (kindOf(error) === 'internal' && !controller.signal.aborted) console.error(error);
  } finally {
    running.delete(id);
  }
}

async function explanationOf(
  { turns, images, maxNewTokens, answer, faithfulness, measured: kind }: ExplainAsk,
  signal: AbortSignal,
): Promise<object> {
  const { model, engine, options } = loaded!;
  checkText(answer === undefined ? turns : [...turns, { from: 'gpt', value: answer }]);
  if (images.length !== 1) throw new UserError(`an explanation is about one picture, and the messages have ${images.length}`);
  const size = await checkPixels(images[0], options.maxPixels);
  explainer ??= loadExplainer(options.folder, { engine, model, quantize: options.quantize }).catch((error: unknown) => {
    // memory may be there for the next one
    explainer = undefined;
    throw error;
  });
  const own = await explainer;
  const question = await own.answer({ picture: images[0], prompt: turns, answer, maxNewTokens, signal });
  const explanation = await own.maps(question, { signal });
  const parts = partsOf(explanation);
  if (faithfulness.some((part) => part >= parts.length))
    throw new UserError(`the answer has ${parts.length} parts, the first of which is 0, and faithfulness names ${faithfulness.join(', ')}`);
  const chosen = [...new Set(faithfulness)].map((part) => parts[part]);
  // the map that is shown, and what it is compared with
  const targets = targetsOf(chosen).map(({ tokens, maps }) => ({ tokens, maps: { [kind]: maps[kind], attention: maps.attention } }));
  const measured = targets.length === 0 ? [] : await measureFaithfulness(own, question, targets, { seed: 1, signal });
  for (const [i, part] of chosen.entries()) part.faithfulness = measured[i];
  const file = explanationJson(explanation, parts, basename(options.folder), { withHeads: false, measured: kind });
  return { ...file, seen: seenPart(size, model.processor) };
}

class LengthError extends UserError {}

/** Keeps a text that can't be asked from being encoded: meanwhile nobody would be answered. */
function checkText(turns: readonly Turn[]): void {
  const { model, session } = loaded!;
  const text = turns.map(({ value }) => value).join('\n');
  if (isLongerThan(model.tokenizer, text, session.contextLength)) throw tooLong(session, 'more');
}

function checkLength(session: BatchSession, tokens: number): void {
  if (tokens < session.contextLength) return;
  throw tooLong(session, tokens);
}

const tooLong = ({ contextLength }: BatchSession, tokens: number | 'more') =>
  new LengthError(`This model's maximum context length is ${contextLength} tokens, and the messages have ${tokens}; shorten them.`);

/** The size of a picture that is small enough. */
async function checkPixels(image: Uint8Array, maxPixels: number): Promise<Size> {
  const { width, height } = await readImageSize(image);
  if (width * height > maxPixels)
    throw new UserError(`the image has ${width} x ${height} pixels, more than the ${maxPixels} that are taken`);
  return { width, height };
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
