// The server as its clients see it: OpenAI's own client, raw sockets, and signals.

import { mkdtempSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import OpenAI, { APIError } from 'openai';
import type { ChatCompletionChunk, ChatCompletionMessageParam } from 'openai/resources/chat/completions';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadExplainer } from '../src/explain/explainer.ts';
import { startConversation } from '../src/generate/conversation.ts';
import { createSession } from '../src/generate/session.ts';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { type LoadedModel, loadModel } from '../src/pretrained/load.ts';
import { openEndpoint } from '../src/remote/endpoint.ts';
import type { LogEntry } from '../src/serve/log.ts';
import { findModels } from '../src/serve/models.ts';
import { type RunningServer, type ServeOptions, startServer } from '../src/serve/server.ts';
import { cli, spawnCli } from './toy.ts';

const folder = mkdtempSync(join(tmpdir(), 'serve-'));
/** Random weights: nonsense, but a lot of it. */
const babbler = join(folder, 'babbler');
const running: RunningServer[] = [];
let model: LoadedModel;
let pictures: Buffer[];
let log: LogEntry[] = [];
let server: RunningServer;
let client: OpenAI;

const defaults = (): ServeOptions => ({
  models: new Map([...findModels([resolvePath(bundledModel, 'the model')]), ['babbler', babbler]]),
  host: '127.0.0.1',
  port: 0,
  pictures: { maxImages: 4 },
  maxBody: 2 ** 20,
  maxPixels: 1_000_000,
  parallel: 8,
  queue: 64,
  maxLoaded: 2,
  prefixBytes: 2 ** 26,
  log: (entry) => log.push(entry),
});

/** A server whose first model is loaded. */
async function start(options: Partial<ServeOptions> = {}): Promise<RunningServer> {
  const started = await startServer({ ...defaults(), ...options });
  running.push(started);
  await started.ready;
  return started;
}

const urlOf = ({ port }: RunningServer) => `http://127.0.0.1:${port}`;
const clientOf = (server: RunningServer, apiKey = 'none') => new OpenAI({ baseURL: `${urlOf(server)}/v1`, apiKey, maxRetries: 0 });
const post = (server: RunningServer, body: unknown, headers: Record<string, string> = {}) =>
  fetch(`${urlOf(server)}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });

const uri = (bytes: Buffer, type = 'png') => `data:image/${type};base64,${bytes.toString('base64')}`;
const showing = (text: string, ...shown: Buffer[]): ChatCompletionMessageParam[] => [
  {
    role: 'user',
    content: [{ type: 'text', text }, ...shown.map((bytes) => ({ type: 'image_url', image_url: { url: uri(bytes) } }) as const)],
  },
];
const asking = (content: string): ChatCompletionMessageParam[] => [{ role: 'user', content }];

/** What `llava-gemma chat` says. */
async function chatAnswer(question: string, shown: Buffer[] = [], maxNewTokens = 64): Promise<string> {
  const conversation = startConversation(createSession(model), { maxNewTokens });
  await conversation.show(...shown);
  let answer = '';
  for await (const piece of conversation.ask(question)) answer += piece;
  return answer;
}

async function failure(promise: Promise<unknown>): Promise<APIError> {
  const error = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(error).toBeInstanceOf(APIError);
  return error as APIError;
}

/** Looks until it is so. */
async function until(isSo: () => boolean | Promise<boolean>, seconds = 20): Promise<void> {
  for (const end = performance.now() + seconds * 1000; !(await isSo()); await sleep(20))
    if (performance.now() > end) throw new Error(`still not so after ${seconds} s`);
}

/** A streamed answer of the babbler. */
const babble = (client: OpenAI, options: { max_tokens?: number; signal?: AbortSignal } = {}) => {
  const { signal, max_tokens = 400 } = options;
  return client.chat.completions.create({ model: 'babbler', messages: asking('hello'), max_tokens, stream: true }, { signal });
};

beforeAll(async () => {
  expect(await cli('init', 'llava-gemma-tiny', '--out', babbler, '--seed', '3')).toMatchObject({ code: 0 });
  model = await loadModel(resolvePath(bundledModel, 'the model'));
  const colors = ['#d22', '#2a2', '#22d', '#dd2', '#2dd', '#222'];
  pictures = await Promise.all(
    colors.map((background) =>
      sharp({ create: { width: 48, height: 40, channels: 3, background } })
        .png()
        .toBuffer(),
    ),
  );
  server = await start();
  client = clientOf(server);
}, 120_000);

afterAll(() => Promise.all(running.map((server) => server.close(0))));

describe("OpenAI's client", () => {
  test('gets an answer, with its usage', async () => {
    const question = 'What is in the picture?';
    const answer = await client.chat.completions.create({ model: 'tiny-llava', messages: showing(question, pictures[0]) });
    expect(answer).toMatchObject({ object: 'chat.completion', model: 'tiny-llava' });
    expect(answer.choices[0].message.content).toBe(await chatAnswer(question, [pictures[0]]));
    expect(answer.choices[0].finish_reason).toBe('stop');
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage!;
    expect(prompt_tokens).toBeGreaterThan(36);
    expect(total_tokens).toBe(prompt_tokens + completion_tokens);
    expect(log.at(-1)).toMatchObject({ method: 'POST', path: '/v1/chat/completions', status: 200, tokens: completion_tokens });
  });

  test('gets a stream, whose pieces are that answer', async () => {
    const messages = showing('Which things do you see?', pictures[1]);
    const whole = await client.chat.completions.create({ model: 'tiny-llava', messages });
    const stream = await client.chat.completions.create({
      model: 'tiny-llava',
      messages,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks: ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
    expect(chunks[0].choices[0].delta).toMatchObject({ role: 'assistant', content: '' });
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe(whole.choices[0].message.content);
    expect(chunks.at(-2)!.choices[0].finish_reason).toBe('stop');
    expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: whole.usage!.completion_tokens } });
    expect(chunks.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
  });

  test('shows several pictures, and goes on with the conversation', async () => {
    const first = showing('Compare them.', pictures[0], pictures[2]);
    const { choices } = await client.chat.completions.create({ model: 'tiny-llava', messages: first });
    const said = choices[0].message.content!;
    const conversation = startConversation(createSession(model), { maxNewTokens: 64 });
    await conversation.show(pictures[0], pictures[2]);
    const answers: string[] = [];
    for (const question of ['Compare them.', 'Which is larger?']) {
      let answer = '';
      for await (const piece of conversation.ask(question)) answer += piece;
      answers.push(answer);
    }
    expect(said).toBe(answers[0]);
    const messages = [...first, choices[0].message, ...asking('Which is larger?')];
    const second = await client.chat.completions.create({ model: 'tiny-llava', messages });
    expect(second.choices[0].message.content).toBe(answers[1]);
    // the pictures were read for the first question
    expect(second.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThan(72);
  });

  test('asks a second question about a picture that was read', async () => {
    const fresh = await sharp({ create: { width: 30, height: 30, channels: 3, background: '#123' } })
      .png()
      .toBuffer();
    const ask = (text: string) => client.chat.completions.create({ model: 'tiny-llava', messages: showing(text, fresh) });
    const first = await ask('What is it?');
    const second = await ask('Is it blue?');
    expect(first.usage!.prompt_tokens_details!.cached_tokens).toBeLessThan(36);
    expect(second.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(36);
    expect(second.choices[0].message.content).toBe(await chatAnswer('Is it blue?', [fresh]));
  });

  test('folds what the system says into the question, as Gemma 3 does', async () => {
    const messages = [{ role: 'system', content: 'Be brief.' } as const, ...asking('What is a cat?')];
    const folded = asking('Be brief.\n\nWhat is a cat?');
    const [a, b] = await Promise.all(
      [messages, folded].map((messages) => client.chat.completions.create({ model: 'tiny-llava', messages })),
    );
    expect(a.choices[0].message.content).toBe(b.choices[0].message.content);
    expect(a.usage).toMatchObject({ prompt_tokens: b.usage!.prompt_tokens });
  });

  test('ends answers where it says', async () => {
    const whole = await client.chat.completions.create({ model: 'babbler', messages: asking('hello'), max_tokens: 30 });
    const said = whole.choices[0].message.content!;
    expect(whole.choices[0].finish_reason).toBe('length');
    expect(whole.usage!.completion_tokens).toBe(30);
    const stop = said.slice(20, 24);
    const before = said.slice(0, said.indexOf(stop));
    const stopped = await client.chat.completions.create({ model: 'babbler', messages: asking('hello'), max_completion_tokens: 30, stop });
    expect(stopped.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: before } });
    const stream = await client.chat.completions.create({
      ...{ model: 'babbler', messages: asking('hello'), max_tokens: 30 },
      stop: ['never said', stop],
      stream: true,
    });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    expect(text).toBe(before);
  });

  test('gets log-probabilities', async () => {
    const { choices } = await client.chat.completions.create({
      ...{ model: 'babbler', messages: asking('hello'), max_tokens: 5 },
      logprobs: true,
      top_logprobs: 3,
    });
    const { content } = choices[0].logprobs!;
    expect(content!.map(({ token }) => token).join('')).toBe(choices[0].message.content);
    for (const { token, logprob, bytes, top_logprobs } of content!) {
      expect(top_logprobs.map((top) => top.logprob)).toEqual(top_logprobs.map((top) => top.logprob).toSorted((a, b) => b - a));
      expect(top_logprobs[0]).toEqual({ token, logprob, bytes });
      expect(logprob).toBeLessThan(0);
    }
  });

  test('samples the same with the same seed', async () => {
    const sample = async (seed: number) => {
      const body = { model: 'babbler', messages: asking('hello'), max_tokens: 20, temperature: 1.5, top_p: 0.9, top_k: 40, seed };
      return (await client.chat.completions.create(body)).choices[0].message.content;
    };
    const [a, b, c] = await Promise.all([1, 1, 2].map(sample));
    expect(a).toBe(b);
    expect(a).not.toBe(c);
  });

  test('hears what is wrong, and where', async () => {
    const ask = (body: object) =>
      failure(client.chat.completions.create({ model: 'tiny-llava', messages: asking('hi'), ...body } as never));
    const long = asking('word '.repeat(600));
    const cases: [object, number, string | null, string][] = [
      [{ model: 'gpt-4o' }, 404, 'model', 'model_not_found'],
      [{ messages: [] }, 400, 'messages', 'invalid_value'],
      [{ messages: [{ role: 'tool', content: 'x' }] }, 400, 'messages[0].role', 'invalid_type'],
      [{ messages: [{ role: 'assistant', content: 'x' }] }, 400, 'messages[0]', 'invalid_value'],
      [{ messages: long }, 400, 'messages', 'context_length_exceeded'],
      [{ n: 2 }, 400, 'n', 'unsupported_parameter'],
      [{ tools: [{ type: 'function', function: { name: 'f' } }] }, 400, 'tools', 'unsupported_parameter'],
      [{ response_format: { type: 'json_object' } }, 400, 'response_format.type', 'unsupported_parameter'],
      [{ temperature: 3 }, 400, 'temperature', 'invalid_value'],
      [{ temperature: 'hot' }, 400, 'temperature', 'invalid_type'],
      [{ no_such_field: 1 }, 400, 'no_such_field', 'unknown_parameter'],
      [{ stop: ['a', 'b', 'c', 'd', 'e'] }, 400, 'stop', 'invalid_type'],
      [{ top_logprobs: 2 }, 400, 'top_logprobs', 'invalid_value'],
      [{ messages: showing('<image> too', pictures[0]) }, 400, 'messages[0]', 'invalid_value'],
      [{ messages: showing('five', ...pictures.slice(0, 5)) }, 400, 'messages', 'too_many_images'],
    ];
    for (const [body, status, param, code] of cases) {
      const error = await ask(body);
      expect({ status: error.status, param: error.param, code: error.code }, JSON.stringify(body).slice(0, 100)).toEqual({
        status,
        param,
        code,
      });
      expect(error.type).toBe('invalid_request_error');
    }
  });

  test('is told which pictures cannot be read', async () => {
    const withUrl = (url: string) =>
      failure(
        client.chat.completions.create({
          model: 'tiny-llava',
          messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }],
        }),
      );
    const bomb = await sharp({ create: { width: 2000, height: 2000, channels: 3, background: '#000' } })
      .png()
      .toBuffer();
    const damaged = Buffer.concat([pictures[0].subarray(0, 60), Buffer.alloc(40)]);
    const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>');
    const cases: [string, string][] = [
      ['https://example.org/cat.png', 'remote_images_not_allowed'],
      ['file:///etc/passwd', 'invalid_image_url'],
      ['/etc/passwd', 'invalid_image_url'],
      ['data:image/png;base64,***', 'invalid_image_url'],
      [uri(svg, 'svg+xml'), 'invalid_image_format'],
      [uri(damaged), 'invalid_image'],
      [uri(bomb), 'invalid_image'],
    ];
    for (const [url, code] of cases) expect(await withUrl(url), url.slice(0, 60)).toMatchObject({ status: 400, code });
    // others in the batch are not hurt by a picture of a neighbor's
    const [bad, good] = await Promise.all([
      withUrl(uri(damaged)),
      client.chat.completions.create({ model: 'tiny-llava', messages: showing('hi', pictures[5]) }),
    ]);
    expect(bad.status).toBe(400);
    expect(good.choices[0].message.content).toBe(await chatAnswer('hi', [pictures[5]]));
  });

  test('lists the models', async () => {
    const ids: string[] = [];
    for await (const { id } of client.models.list()) ids.push(id);
    expect(ids).toEqual(['tiny-llava', 'babbler']);
    expect(await client.models.retrieve('tiny-llava')).toMatchObject({
      object: 'model',
      meta: { n_ctx: 512, image_tokens: 36 },
      architecture: { input_modalities: ['text', 'image'] },
    });
    expect((await failure(client.models.retrieve('../../etc/passwd'))).status).toBe(404);
  });
});

test('a text that is far too long is refused before it is encoded', async () => {
  const log = 'GET /index.html 200 12 ms\n'.repeat(35_000);
  const began = performance.now();
  const refused = await failure(client.chat.completions.create({ model: 'tiny-llava', messages: asking(log) }));
  expect(refused).toMatchObject({ status: 400, code: 'context_length_exceeded' });
  expect(refused.message).toContain('the messages have more');
  // encoding all of it takes ten seconds and more
  expect(performance.now() - began).toBeLessThan(4000);
});

test('a page of another site, whose name was led here, is not answered', async () => {
  const ask = (host: string, to = server) =>
    new Promise<number>((resolve, reject) => {
      const headers = { host: host.replace('PORT', String(to.port)) };
      get({ port: to.port, path: '/v1/models', headers }, (response) => resolve(response.resume().statusCode!)).on('error', reject);
    });
  const statuses = (hosts: string[], to?: RunningServer) => Promise.all(hosts.map((host) => ask(host, to)));
  expect(await statuses(['localhost:PORT', '127.0.0.1', '[::1]:PORT', 'my.localhost'])).toEqual([200, 200, 200, 200]);
  expect(await statuses(['evil.example:PORT', '127.0.0.1.evil.example'])).toEqual([403, 403]);
  const behind = await start({ names: ['proxy.example'], models: new Map([['babbler', babbler]]) });
  expect(await statuses(['proxy.example', 'evil.example'], behind)).toEqual([200, 403]);
});

describe('a full batch', () => {
  test('answers to the token as chat does, in the order of arrival', async () => {
    const questions = ['What is this?', 'Which colors do you see?', 'How many things are there?', 'Describe it.'];
    const asked = Array.from({ length: 40 }, (_, i) => ({
      question: questions[i % 4],
      shown: pictures.slice(i % 3, (i % 3) + (i % 4 === 3 ? 0 : 1)),
    }));
    const expected: string[] = [];
    for (const { question, shown } of asked) expected.push(await chatAnswer(question, shown));
    const began: number[] = [];
    const answers = await Promise.all(
      asked.map(async ({ question, shown }, i) => {
        const stream = await client.chat.completions.create({ model: 'tiny-llava', messages: showing(question, ...shown), stream: true });
        let text = '';
        for await (const chunk of stream) {
          if (text === '' && chunk.choices[0].delta.content) began.push(i);
          text += chunk.choices[0].delta.content ?? '';
        }
        return text;
      }),
    );
    expect(answers).toEqual(expected);
    // who came early begins early, give or take a batch
    const early = began.slice(0, 12).filter((i) => i < 24).length;
    expect(early).toBeGreaterThanOrEqual(10);
  });
});

test('64 streaming clients leave nothing behind', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const heap = () => {
    collect();
    return process.memoryUsage().heapUsed;
  };
  const round = () =>
    Promise.all(
      Array.from({ length: 64 }, async (_, i) => {
        const response = await post(server, {
          model: 'babbler',
          messages: asking(`hello ${i}`),
          max_tokens: 3,
          temperature: 0,
          stream: true,
        });
        expect(await response.text()).toMatch(/"finish_reason":"length".*\n\ndata: \[DONE\]\n\n$/);
      }),
    );
  for (let warm = 0; warm < 4; warm++) await round();
  const grown: number[] = [];
  for (let before = heap(); grown.length < 2; before = heap()) {
    for (let more = 0; more < 8; more++) await round();
    grown.push(heap() - before);
  }
  // a signal, a timer or a piece that is kept costs 5 kB of every request, and caches grow once
  expect(Math.min(...grown)).toBeLessThan(8 * 64 * 4000);
});

/** Bodies of the README of llama-server, under "POST /v1/chat/completions", and what they are here. */
describe("llama-server's documented requests", () => {
  const limerick = {
    model: 'gpt-3.5-turbo',
    messages: [
      {
        role: 'system',
        content: 'You are ChatGPT, an AI assistant. Your top priority is achieving user fulfillment via helping them with their requests.',
      },
      { role: 'user', content: 'Write a limerick about python exceptions' },
    ],
  };
  let named: RunningServer;
  beforeAll(async () => {
    named = await start({ models: new Map([['gpt-3.5-turbo', resolvePath(bundledModel, 'the model')]]) });
  });
  const media = (url: string) => ({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url } }] }] });

  test.each<[string, object, number]>([
    ['the limerick', {}, 200],
    ['as a stream', { stream: true }, 200],
    ['with a cached prompt', { cache_prompt: true, top_k: 40, top_p: 0.95, temperature: 0.8, seed: 1 }, 200],
    ['with plain JSON output', { response_format: { type: 'json_object' } }, 400],
    ['with a schema', { response_format: { type: 'json_object', schema: { type: 'string', minLength: 10, maxLength: 100 } } }, 400],
    ['with arguments of the template', { chat_template_kwargs: { enable_thinking: false } }, 400],
    ['with an image by its URL', media('https://example.org/cat.png'), 400],
    ['with a file', media('file:///pictures/cat.png'), 400],
  ])('%s', async (_, body, status) => {
    const response = await post(named, { ...limerick, ...body }, { authorization: 'Bearer no-key' });
    const text = await response.text();
    expect(response.status, text).toBe(status);
    expect(text).toContain(status === 200 ? '"finish_reason":"stop"' : '"type":"invalid_request_error"');
  });

  test('health is that of llama-server', async () => {
    const fresh = await startServer({ ...defaults(), models: new Map([['babbler', babbler]]) });
    running.push(fresh);
    const early = await fetch(`${urlOf(fresh)}/health`);
    expect(early.status).toBe(503);
    expect(await early.json()).toMatchObject({ error: { message: 'Loading model' } });
    await fresh.ready;
    const late = await fetch(`${urlOf(fresh)}/v1/health`);
    expect([late.status, await late.json()]).toEqual([200, { status: 'ok' }]);
  });
});

test('our own client of endpoints asks it as it asks others', async () => {
  const single = await start({ models: new Map([['only', resolvePath(bundledModel, 'the model')]]), keys: ['secret'] });
  const endpoint = await openEndpoint({ url: urlOf(single), apiKey: 'secret', cache: false });
  expect(endpoint.model).toBe('only');
  const questions = ['What is this?', 'Which colors do you see?', 'How many things are there?'];
  const prompts = questions.map((value, i) => ({ turns: [{ from: 'human', value } as const], images: [pictures[i]] }));
  const replies = await endpoint.replyAll(prompts, { maxTokens: 64 });
  for (const [i, { text }] of replies.entries()) expect(text).toBe(await chatAnswer(questions[i], [pictures[i]]));
});

describe('clients that go away', () => {
  test('are not answered any more', async () => {
    const leaving = new AbortController();
    const stream = await babble(client, { signal: leaving.signal });
    for await (const _ of stream) {
      leaving.abort();
      break;
    }
    const busy = () => server.models[1].load.running + server.models[1].load.waiting;
    await until(() => busy() === 0, 5);
    await until(() => log.at(-1)?.status === 499);
    const unheard = new AbortController();
    const whole = client.chat.completions.create(
      { model: 'babbler', messages: asking('hello'), max_tokens: 400 },
      { signal: unheard.signal },
    );
    await until(() => busy() === 1);
    unheard.abort();
    await expect(whole).rejects.toThrow(/abort/i);
    await until(() => busy() === 0, 5);
  });

  test('leave the queue', async () => {
    const narrow = await start({ models: new Map([['babbler', babbler]]), parallel: 1, queue: 2 });
    const own = clientOf(narrow);
    const leaving = Array.from({ length: 4 }, () => new AbortController());
    const streams: Promise<unknown>[] = [];
    for (const { signal } of leaving) {
      streams.push(
        babble(own, { signal })
          .then(async (stream) => {
            for await (const _ of stream);
          })
          .catch((error: unknown) => error),
      );
      await until(() => narrow.models[0].load.running + narrow.models[0].load.waiting === streams.length);
    }
    const refused = await post(narrow, { model: 'babbler', messages: asking('hello') });
    expect(refused.status).toBe(429);
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(await refused.json()).toMatchObject({ error: { type: 'rate_limit_error', code: 'queue_full' } });
    for (const each of leaving) each.abort();
    await Promise.all(streams);
    await until(() => narrow.models[0].load.running + narrow.models[0].load.waiting === 0, 5);
    expect((await post(narrow, { model: 'babbler', messages: asking('hello'), max_tokens: 2 })).status).toBe(200);
  });

  test('that read nothing hold little, and are let go', async () => {
    const strict = await start({ models: new Map([['babbler', babbler]]), stall: 1500 });
    log = [];
    const body = JSON.stringify({
      model: 'babbler',
      messages: asking('hello'),
      max_tokens: 480,
      stream: true,
      logprobs: true,
      top_logprobs: 20,
    });
    const sockets = Array.from({ length: 4 }, () => {
      const socket = connect(strict.port, '127.0.0.1').pause();
      socket.on('error', () => {});
      socket.write(
        `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      );
      return socket;
    });
    await until(() => log.length === sockets.length);
    // the system's own buffers take some of it: either all fits there, or the reader is let go
    expect(log.every(({ status }) => status === 200 || status === 499)).toBe(true);
    expect(strict.models[0].load).toEqual({ running: 0, waiting: 0 });
    for (const socket of sockets) socket.destroy();
  });

  test('that read nothing of a file or of an answer that has ended are let go', async () => {
    const strict = await start({ stall: 1500 });
    const silent = (request: string) => {
      const socket = connect(strict.port, '127.0.0.1').pause();
      socket.write(request);
      return socket;
    };
    const body = JSON.stringify({ model: 'tiny-llava', messages: asking('hello'), max_tokens: 2 });
    const sockets = [
      silent('GET /onnxruntime/ort-wasm-simd-threaded.wasm HTTP/1.1\r\nHost: localhost\r\n\r\n'),
      // nobody reads the answers, which fill the system's buffers
      silent(
        `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}` +
          'GET /onnxruntime/ort-wasm-simd-threaded.wasm HTTP/1.1\r\nHost: localhost\r\n\r\n',
      ),
    ];
    // one that waits for its next request is not
    const patient = connect(strict.port, '127.0.0.1');
    const ends = sockets.map((socket) => new Promise((resolve) => socket.on('error', resolve)));
    // a socket that is not read hears of its end when it writes
    const writing = setInterval(() => sockets.map((socket) => socket.write('\r\n')), 200);
    await Promise.all(ends).finally(() => clearInterval(writing));
    expect(patient.destroyed).toBe(false);
    for (const socket of [...sockets, patient]) socket.destroy();
    expect(strict.models[0].load).toEqual({ running: 0, waiting: 0 });
  });
});

describe('models that take turns in memory', () => {
  test('are loaded when they are asked, and the one used longest ago makes room', async () => {
    const narrow = await start({ maxLoaded: 1 });
    const [first, second] = narrow.models;
    const own = clientOf(narrow);
    const ask = (model: string) => own.chat.completions.create({ model, messages: asking('hello'), max_tokens: 4 });
    const { pid } = first;
    const [a, b] = await Promise.all([ask('tiny-llava'), ask('babbler')]);
    expect(b.usage!.completion_tokens).toBe(4);
    expect(second.state).toBe('ready');
    expect([first.state, first.pid]).toEqual(['idle', undefined]);
    expect(() => process.kill(pid!, 0)).toThrow();
    const listed = (await (await fetch(`${urlOf(narrow)}/v1/models`)).json()).data as { status: string }[];
    expect(listed.map(({ status }) => status)).toEqual(['idle', 'ready']);
    const metrics = async () => (await fetch(`${urlOf(narrow)}/metrics`)).text();
    await until(async () => /resident_memory_bytes\{process="babbler"\}/.test(await metrics()));
    expect(await metrics()).not.toMatch(/resident_memory_bytes\{process="tiny-llava"\}|worker_deaths_total\{/);
    // one that is at work ends what it was asked before
    const long = babble(own, { max_tokens: 200 }).then(async (stream) => {
      let finish = '';
      for await (const { choices } of stream) finish = choices[0]?.finish_reason ?? finish;
      return finish;
    });
    await until(() => second.load.running === 1);
    const turned = ask('tiny-llava');
    await until(() => first.state === 'loading');
    // a change of turns is no reason to send nobody here
    expect((await fetch(`${urlOf(narrow)}/health`)).status).toBe(200);
    expect((await turned).choices).toEqual(a.choices);
    expect(await long).toBe('length');
    expect([first.state, second.state]).toEqual(['ready', 'idle']);
    // asked for by turns, all at one time: none is lost, and none waits for ever
    const mixed = await Promise.all(Array.from({ length: 4 }, (_, i) => ask(i % 2 === 0 ? 'tiny-llava' : 'babbler')));
    for (const [i, { choices }] of mixed.entries()) expect(choices).toEqual((i % 2 === 0 ? a : b).choices);
    expect((await fetch(`${urlOf(narrow)}/health`)).status).toBe(200);
    // one that has died makes room before it is back: nobody waits for it
    await ask('tiny-llava');
    process.kill(first.pid!, 'SIGKILL');
    await until(() => first.isDown);
    expect((await ask('babbler')).choices).toEqual(b.choices);
    expect([first.state, (await fetch(`${urlOf(narrow)}/health`)).status]).toEqual(['idle', 200]);
  });
});

describe('a process that is killed', () => {
  test('ends its streams with one error, and is back by itself', async () => {
    const fragile = await start({ models: new Map([['babbler', babbler]]), parallel: 2, queue: 8 });
    const own = clientOf(fragile);
    const { pid } = fragile.models[0];
    const answers = Array.from({ length: 8 }, async () => {
      const response = await post(fragile, { model: 'babbler', messages: asking('hello'), max_tokens: 120, stream: true });
      return { status: response.status, text: await response.text() };
    });
    await until(() => fragile.models[0].load.running === 2);
    await sleep(50);
    process.kill(pid!, 'SIGKILL');
    await until(async () => (await fetch(`${urlOf(fragile)}/health`)).status === 503);
    const results = await Promise.all(answers);
    const died = results.filter(({ text }) => text.includes('worker_died'));
    const whole = results.filter(({ text }) => text.endsWith('data: [DONE]\n\n'));
    // those that were being answered, and the one that lay ready, are told once; those in the queue waited
    expect(died.length).toBeGreaterThanOrEqual(2);
    expect(died.length + whole.length).toBe(8);
    expect(whole.length).toBeGreaterThanOrEqual(4);
    for (const { status, text } of died) {
      expect([200, 503]).toContain(status);
      expect(text.split('worker_died')).toHaveLength(2);
      if (status === 200) expect(JSON.parse(text.trim().split('data: ').at(-1)!).error.code).toBe('worker_died');
    }
    expect(fragile.models[0].pid).not.toBe(pid);
    expect((await fetch(`${urlOf(fragile)}/health`)).status).toBe(200);
    const again = await own.chat.completions.create({ model: 'babbler', messages: asking('hello'), max_tokens: 3 });
    expect(again.usage!.completion_tokens).toBe(3);
    expect(await (await fetch(`${urlOf(fragile)}/metrics`)).text()).toContain('llava_gemma_worker_deaths_total{model="babbler"} 1');
  });

  test('again and again while it is being loaded keeps nobody waiting, and is not started for ever', async () => {
    const fragile = await start();
    const [, second] = fragile.models;
    const killing = setInterval(() => second.pid !== undefined && second.state === 'loading' && process.kill(second.pid, 'SIGKILL'), 20);
    const asked = clientOf(fragile).chat.completions.create({ model: 'babbler', messages: asking('hello') });
    expect(await failure(asked)).toMatchObject({ status: 503, code: 'model_unavailable' });
    clearInterval(killing);
    expect([second.state, second.pid]).toEqual(['failed', undefined]);
    expect((await clientOf(fragile).chat.completions.create({ model: 'tiny-llava', messages: asking('hi') })).choices).toHaveLength(1);
  });

  test("is an error for OpenAI's client", async () => {
    const fragile = await start({ models: new Map([['babbler', babbler]]) });
    const stream = await babble(clientOf(fragile));
    const error = await failure(
      (async () => {
        for await (const _ of stream) if (fragile.models[0].load.running === 1) process.kill(fragile.models[0].pid!, 'SIGKILL');
      })(),
    );
    expect(error).toMatchObject({ code: 'worker_died', type: 'service_unavailable_error' });
  });
});

describe('keys', () => {
  test('are asked for everywhere but for the health and the page', async () => {
    const closed = await start({ keys: ['first-key', 'second-key'], models: new Map([['babbler', babbler]]) });
    const ask = (key: string) => clientOf(closed, key).chat.completions.create({ model: 'babbler', messages: asking('hi'), max_tokens: 1 });
    expect((await ask('second-key')).usage!.completion_tokens).toBe(1);
    for (const key of ['second-ke', 'second-key2', 'First-key', 'Bearer'])
      expect(await failure(ask(key))).toMatchObject({ status: 401, code: 'invalid_api_key' });
    for (const path of ['/metrics', '/v1/models', '/v1/chat/completions', '/v1/explain', '/page/', '/no-such-page']) {
      const response = await fetch(urlOf(closed) + path);
      expect([path, response.status]).toEqual([path, 401]);
    }
    expect((await fetch(`${urlOf(closed)}/health`)).status).toBe(200);
    const { headers } = await fetch(`${urlOf(closed)}/health`, { headers: { origin: 'https://evil.example' } });
    expect([...headers.keys()].filter((name) => name.startsWith('access-control'))).toEqual([]);
  });
});

describe('/v1/explain', () => {
  const explain = (body: object) =>
    fetch(`${urlOf(server)}/v1/explain`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  const name = () => server.models[0].id;

  test('says what each word of an answer rests on, as llava-gemma explain does', async () => {
    const prompt = 'How many things are in the picture?';
    const text = `${prompt}\nAnswer the question using a single word or phrase.`;
    const url = `data:image/png;base64,${pictures[0].toString('base64')}`;
    const messages: ChatCompletionMessageParam[] = [
      {
        role: 'user',
        content: [
          { type: 'image_url', image_url: { url } },
          { type: 'text', text },
        ],
      },
    ];
    const response = await explain({ model: name(), messages });
    expect(response.status).toBe(200);
    const { answer, tokens, grid, model: called } = await response.json();
    const { choices } = await client.chat.completions.create({ model: name(), messages, temperature: 0 });
    expect([answer, called]).toEqual([choices[0].message.content, name()]);
    const explainer = await loadExplainer(resolvePath(bundledModel, 'the model'));
    const own = await explainer.explain({ picture: pictures[0], prompt, short: true });
    const [first] = own.maps.relevancy;
    expect(first).toHaveLength(grid.rows * grid.columns);
    for (const [i, value] of first.entries()) expect(tokens[0].maps.relevancy[i]).toBeCloseTo(value, 4);
    expect(tokens[0]).not.toHaveProperty('attention');
    await explainer.dispose();
  });

  test('explains an answer that is given, where a conversation has come to it, and measures what it is asked to', async () => {
    const url = `data:image/png;base64,${pictures[1].toString('base64')}`;
    const messages = [
      {
        role: 'user',
        content: [
          { type: 'image_url', image_url: { url } },
          { type: 'text', text: 'What is it?' },
        ],
      },
      { role: 'assistant', content: 'a cat' },
      { role: 'user', content: 'Which color?' },
      { role: 'assistant', content: 'bright red' },
    ];
    const response = await explain({ model: name(), messages, faithfulness: [2] });
    expect(response.status).toBe(200);
    const { answer, parts, seen } = await response.json();
    expect([answer, ...parts.map(({ text }: { text: string }) => text)]).toEqual(['bright red', 'bright red', 'bright', 'red']);
    expect(parts.map(({ faithfulness }: { faithfulness?: object }) => faithfulness !== undefined)).toEqual([false, false, true]);
    expect(parts[2].verdict).toContain('The picture is worth');
    // 48 x 40 pixels, padded to a square
    expect([seen.left, seen.top, seen.width, seen.height]).toEqual([0, expect.closeTo(-0.1, 5), 1, expect.closeTo(1.2, 5)]);
    const beyond = await explain({ model: name(), messages, faithfulness: [3] });
    expect(beyond.status).toBe(400);
    expect((await beyond.json()).error.message).toContain('the answer has 3 parts');
  });

  test('that is left is counted and in the log, with its reason', async () => {
    const url = `data:image/png;base64,${pictures[2].toString('base64')}`;
    const content = [
      { type: 'image_url', image_url: { url } },
      { type: 'text', text: 'What is it?' },
    ];
    const messages = [
      { role: 'user', content },
      { role: 'assistant', content: 'a cat' },
    ];
    const leaving = new AbortController();
    const left = fetch(`${urlOf(server)}/v1/explain`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: name(), messages, faithfulness: [0, 1, 2] }),
      signal: leaving.signal,
    });
    await until(() => server.models[0].load.running === 1);
    leaving.abort();
    await expect(left).rejects.toThrow(/abort/i);
    await until(() => log.at(-1)?.path === '/v1/explain' && log.at(-1)?.status === 499, 5);
    expect(log.at(-1)!.ended).toMatch(/closed/);
    expect(await (await fetch(`${urlOf(server)}/metrics`)).text()).toContain('route="/v1/explain",status="499"} 1');
  });

  test('is about one picture', async () => {
    const response = await explain({ model: name(), messages: asking('why?') });
    expect(response.status).toBe(400);
    expect((await response.json()).error.message).toContain('an explanation is about one picture, and the messages have 0');
  });
});

describe('llava-gemma serve', () => {
  /** Starts the command; resolves when it says that it is ready. */
  async function serve(...words: string[]) {
    const { child, outcome } = spawnCli(['serve', '--port', '0', '--model', babbler, ...words]);
    let said = '';
    child.stderr!.on('data', (text: string) => {
      said += text;
    });
    await until(() => /^ready$/m.test(said));
    const port = Number(/:(\d+)\/v1/.exec(said)![1]);
    return { child, outcome, port, said: () => said };
  }

  test('lets answers end at SIGTERM, and takes no more', async () => {
    const { child, outcome, port, said } = await serve();
    const own = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'none', maxRetries: 0 });
    const stream = await babble(own);
    let tokens = 0;
    let finish: string | null = null;
    for await (const { choices } of stream) {
      if (choices[0].delta.content) tokens++;
      if (tokens === 1) child.kill('SIGTERM');
      finish = choices[0].finish_reason;
    }
    expect(finish).toBe('length');
    expect(tokens).toBeGreaterThan(100);
    const { code, stderr } = await outcome;
    expect([code, said() === stderr]).toEqual([0, true]);
    expect(stderr).toMatch(/^listening on http:\/\/127\.0\.0\.1:\d+\/v1; models: babbler$/m);
    expect(stderr).toMatch(/ POST \/v1\/chat\/completions 200 \d+ ms \d+\+400 tokens$/m);
    await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow();
  });

  test('ends what goes on too long, with an event that says so', async () => {
    const { child, outcome, port } = await serve('--drain', '1', '--quiet', '--parallel', '1');
    const own = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, apiKey: 'none', maxRetries: 0 });
    const ends = Array.from({ length: 12 }, async () => {
      try {
        for await (const { choices } of await babble(own, { max_tokens: 480 }))
          if (choices[0].finish_reason) return choices[0].finish_reason;
        return 'nothing';
      } catch (error) {
        return (error as APIError).code;
      }
    });
    const waiting = async () => {
      const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text();
      return [...text.matchAll(/^llava_gemma_requests_(?:running|waiting)\{.*\} (\d+)$/gm)].reduce(
        (sum, [, count]) => sum + Number(count),
        0,
      );
    };
    await until(async () => (await waiting()) >= 10);
    child.kill('SIGTERM');
    const results = await Promise.all(ends);
    expect(results.filter((end) => end !== 'length' && end !== 'shutting_down')).toEqual([]);
    expect(results).toContain('shutting_down');
    const { code, stderr } = await outcome;
    expect(code).toBe(0);
    expect(stderr).not.toContain('POST');
  });

  test('warns where anybody can ask, and refuses what it cannot serve', async () => {
    const { child, outcome } = await serve('--host', '0.0.0.0');
    child.kill('SIGTERM');
    expect((await outcome).stderr).toContain('warning: anybody who reaches 0.0.0.0 can ask: give --api-key-file');
    const keys = join(folder, 'keys.txt');
    writeFileSync(keys, '# nothing\n');
    const { code, stderr } = await spawnCli(['serve', '--api-key-file', keys]).outcome;
    expect([code, stderr]).toEqual([1, `error: --api-key-file: ${keys}: it has no key; write one a line\n`]);
    const taken = await spawnCli(['serve', '--port', String(server.port), '--model', babbler]).outcome;
    expect(taken.stderr).toContain('something else listens there');
    const none = await spawnCli(['serve', '--port', '0', '--model', folder, '--model', 'src']).outcome;
    expect(none.stderr).toContain('error: --model: src: neither it nor a folder in it is a LLaVA');
  });
});
