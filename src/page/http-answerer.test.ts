// The server as the page hears it: streams cut anywhere, and streams that break.

import { afterEach, expect, test, vi } from 'vitest';
import type { AnswerEvent, Question } from './answerer.ts';
import { createHttpAnswerer } from './http-answerer.ts';

afterEach(() => vi.unstubAllGlobals());

const question: Question = { model: 'm', messages: [{ role: 'user', text: 'What?' }], settings: { temperature: 0 } };
const event = (data: object | string) => `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`;
const text = (content: string) => event({ choices: [{ delta: { content }, finish_reason: null }] });
const last = event({ choices: [{ delta: {}, finish_reason: 'length' }] }) + event({ choices: [], usage: { completion_tokens: 7 } });

/** Answers with a stream of these bytes, some at a time. */
function serve(body: string, step: number, breaks = false): void {
  const bytes = new TextEncoder().encode(body);
  const stream = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += step) controller.enqueue(bytes.slice(at, at + step));
      if (breaks) controller.error(new TypeError('network error'));
      else controller.close();
    },
  });
  vi.stubGlobal('fetch', async () => new Response(stream));
}

async function hear(): Promise<AnswerEvent[]> {
  const events: AnswerEvent[] = [];
  for await (const each of createHttpAnswerer().answer(question, new AbortController().signal)) events.push(each);
  return events;
}

test.each([1, 3, 10_000])('a stream that comes %i bytes at a time', async (step) => {
  serve(`: ping\n\n${text('né')}${text(' 🍎')}${last}${event('[DONE]')}`, step);
  expect(await hear()).toEqual([
    { type: 'text', text: 'né' },
    { type: 'text', text: ' 🍎' },
    { type: 'end', finish: 'length', tokens: 7 },
  ]);
});

test('an error in a stream is a problem with its sentence', async () => {
  serve(text('a') + event({ error: { code: 'worker_died', message: 'x' } }), 50);
  await expect(hear()).rejects.toThrow('is being started again');
});

test.each([true, false])('a stream that ends before its end (broken: %s)', async (breaks) => {
  serve(text('a'), 50, breaks);
  await expect(hear()).rejects.toThrow('The connection broke');
});

test('a server that is away', async () => {
  vi.stubGlobal('fetch', async () => {
    throw new TypeError('Failed to fetch');
  });
  await expect(hear()).rejects.toThrow('cannot be reached');
});

test('what is asked is what OpenAI has, with the key', async () => {
  const asked: [string, RequestInit][] = [];
  vi.stubGlobal('fetch', async (url: string, init: RequestInit) => {
    asked.push([url, init]);
    return Response.json({ object: 'list', data: [{ id: 'a', status: 'idle' }] });
  });
  const answerer = createHttpAnswerer('http://x');
  answerer.identify('secret');
  expect(await answerer.models(new AbortController().signal)).toEqual([{ id: 'a', state: 'idle' }]);
  await answerer.explain(question, 'It', { parts: [1], kind: 'rollout' }, new AbortController().signal);
  expect(asked.map(([url]) => url)).toEqual(['http://x/v1/models', 'http://x/v1/explain']);
  expect(asked[1][1].headers).toMatchObject({ Authorization: 'Bearer secret' });
  expect(JSON.parse(asked[1][1].body as string)).toEqual({
    model: 'm',
    messages: [
      { role: 'user', content: 'What?' },
      { role: 'assistant', content: 'It' },
    ],
    temperature: 0,
    faithfulness: [1],
    measured_map: 'rollout',
  });
});
