// The small parts of a server by themselves: keys, metrics, the log, bodies, the models that are found.

import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { createNameCheck, isLoopback } from './addresses.ts';
import { createBodyReader } from './body.ts';
import { createCompletion } from './completion.ts';
import { createKeyCheck, readKeys } from './keys.ts';
import { logLine } from './log.ts';
import { createMetrics } from './metrics.ts';
import { findModels } from './models.ts';
import { readPictures } from './pictures.ts';
import { parseChatRequest, parseExplainRequest } from './request.ts';

const folder = mkdtempSync(join(tmpdir(), 'serve-parts-'));

describe('keys', () => {
  test('are compared as a whole', () => {
    const isAllowed = createKeyCheck(['one', 'two']);
    expect(['Bearer one', 'bearer two', 'Bearer  one '].every(isAllowed)).toBe(true);
    expect([undefined, '', 'one', 'Bearer', 'Bearer on', 'Bearer onee', 'Bearer one two', 'Basic one'].some(isAllowed)).toBe(false);
  });

  test('are read from lines', () => {
    const file = join(folder, 'keys');
    writeFileSync(file, '# for tests\r\n\n key-1 \nkey-2\r\n');
    expect(readKeys(file)).toEqual(['key-1', 'key-2']);
    writeFileSync(file, 'key-1\nkey 2\n');
    expect(() => readKeys(file)).toThrow(/key 2 has white space/);
    expect(() => readKeys(join(folder, 'none'))).toThrow(/--api-key-file: .*there is no such file/);
  });
});

test("metrics are in Prometheus's text format", () => {
  const metrics = createMetrics();
  const asked = metrics.counter('asked_total', 'Questions.');
  asked.add(2, { by: 'a "b"\n\\' });
  asked.add(0.5, { by: 'a "b"\n\\' });
  asked.add(1);
  metrics.gauge('now', 'At present.', () => [[{}, 3]]);
  const time = metrics.histogram('seconds', 'Time.', [0.1, 1]);
  for (const seconds of [0.1, 0.5, 5]) time.observe(seconds, { model: 'm' });
  expect(metrics.text()).toBe(`# HELP asked_total Questions.
# TYPE asked_total counter
asked_total{by="a \\"b\\"\\n\\\\"} 2.5
asked_total 1
# HELP now At present.
# TYPE now gauge
now 3
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{model="m",le="0.1"} 1
seconds_bucket{model="m",le="1"} 2
seconds_bucket{model="m",le="+Inf"} 3
seconds_sum{model="m"} 5.6
seconds_count{model="m"} 3
`);
});

test('a request is one line of the log, whatever it was called', () => {
  const now = new Date(0);
  expect(logLine({ method: 'POST', path: '/v1/x', status: 200, ms: 12.4, promptTokens: 50, tokens: 3 }, now)).toBe(
    '1970-01-01T00:00:00.000Z POST /v1/x 200 12 ms 50+3 tokens',
  );
  expect(logLine({ method: 'GET', path: '/a\n2026 GET /', status: 499, ms: 1, ended: 'the client has gone' }, now)).toBe(
    '1970-01-01T00:00:00.000Z GET /a\\n2026 GET / 499 1 ms (the client has gone)',
  );
});

describe('bodies', () => {
  const request = (body: string, type = 'application/json') =>
    new Request('http://x', { method: 'POST', body, headers: { 'content-type': type } });

  test('are held within a limit for all together', async () => {
    const { read } = createBodyReader(100);
    const bodies = await Promise.all(Array.from({ length: 8 }, () => read(request(`"${'x'.repeat(98)}"`))));
    expect(bodies[0].value).toBe('x'.repeat(98));
    await expect(read(request('"more"'))).rejects.toMatchObject({ status: 503, details: { code: 'overloaded', retryAfter: 1 } });
    bodies[3].release();
    bodies[3].release();
    const { release } = await read(request('"more"'));
    await expect(read(request(`"${'x'.repeat(98)}"`))).rejects.toMatchObject({ status: 503 });
    release();
    await expect(read(request('x'.repeat(101)))).rejects.toMatchObject({ status: 413 });
    // what comes for a request that has ended is on no account
    const ended = await read(request('"more"'));
    ended.take(10);
    ended.release();
    expect(() => ended.take(10)).toThrow('the request has ended');
    expect((await read(request('"more"'))).value).toBe('more');
    await expect(read(request('{}', 'text/plain'))).rejects.toMatchObject({ status: 415 });
    await expect(read(request('{'))).rejects.toMatchObject({ status: 400, details: { code: 'invalid_json' } });
  });
});

describe('models', () => {
  const model = (path: string, type = 'llava') => {
    mkdirSync(join(folder, path), { recursive: true });
    writeFileSync(join(folder, path, 'config.json'), JSON.stringify({ model_type: type }));
    return join(folder, path);
  };

  test('are found by themselves and in folders', () => {
    const [a, b] = [model('zoo/a'), model('zoo/b')];
    model('zoo/encoder', 'clip_vision_model');
    mkdirSync(join(folder, 'zoo/empty'));
    expect([...findModels([join(folder, 'zoo')])]).toEqual([
      ['a', a],
      ['b', b],
    ]);
    expect([...findModels([b, join(folder, 'zoo')]).keys()]).toEqual(['b', 'a']);
    const other = model('other/a');
    expect(() => findModels([a, other])).toThrow(/have the same name/);
    expect(() => findModels([join(folder, 'zoo/empty')])).toThrow(/is a LLaVA/);
  });
});

describe('messages', () => {
  const turnsOf = (messages: object[]) => parseChatRequest({ model: 'm', messages }).ask.turns;
  const user = (content: unknown) => ({ role: 'user', content });
  const image = { type: 'image_url', image_url: { url: 'data:,' } };

  test('become turns that take turns', () => {
    expect(
      turnsOf([
        { role: 'system', content: 'S1' },
        { role: 'developer', content: [{ type: 'text', text: 'S2' }] },
        user('A'),
        user([
          { type: 'text', text: 'B' },
          { type: 'text', text: 'C' },
        ]),
        { role: 'assistant', content: 'D' },
        { role: 'system', content: 'S3' },
        user('E'),
      ]),
    ).toEqual([
      { from: 'human', value: 'S1\n\nS2\n\nA\n\nB\nC' },
      { from: 'gpt', value: 'D' },
      { from: 'human', value: 'S3\n\nE' },
    ]);
  });

  test('have their pictures before their words', () => {
    const { ask, pictures } = parseChatRequest({
      model: 'm',
      messages: [
        { role: 'system', content: 'S' },
        user([{ type: 'text', text: 'A' }, image, image]),
        { role: 'assistant', content: 'B' },
        user([image]),
      ],
    });
    expect(ask.turns.map(({ value }) => value)).toEqual(['<image>\n<image>\nS\n\nA', 'B', '<image>\n']);
    expect(pictures.map(({ param }) => param)).toEqual([
      'messages[1].content[1].image_url.url',
      'messages[1].content[2].image_url.url',
      'messages[3].content[0].image_url.url',
    ]);
  });

  test('may hold what changes nothing, and null for what is not said', () => {
    const neutral = {
      n: 1,
      frequency_penalty: 0,
      presence_penalty: 0,
      logit_bias: {},
      tools: [],
      tool_choice: 'none',
      store: false,
      user: 'me',
      metadata: { a: 'b' },
    };
    const { ask } = parseChatRequest({
      model: 'm',
      messages: [user('A')],
      ...neutral,
      response_format: { type: 'text' },
      stop: null,
      seed: null,
      temperature: null,
    });
    expect(ask).toMatchObject({ stop: [], maxNewTokens: undefined, logprobs: undefined });
    expect(Object.values(ask.sampling)).toEqual([undefined, undefined, undefined, undefined, undefined]);
  });

  test('may say what llama-server, vLLM and Ollama say', () => {
    const asked = { model: 'm', messages: [user('A')], min_p: 0, typical_p: 1, keep_alive: '5m', chat_template_kwargs: {} };
    const { ask } = parseChatRequest({ ...asked, top_k: -1, max_tokens: -1, repeat_penalty: 1.1 });
    expect(ask.sampling).toMatchObject({ topK: 0, repetitionPenalty: 1.1 });
    expect(ask.maxNewTokens).toBeGreaterThan(1e6);
    expect(() => parseChatRequest({ ...asked, max_tokens: 0 })).toThrow("'max_tokens'");
    expect(() => parseChatRequest({ ...asked, min_p: 0.1 })).toThrow("'min_p' cannot be followed");
    expect(() => parseChatRequest({ ...asked, repeat_penalty: 1.1, repetition_penalty: 1.2 })).toThrow('not both');
  });

  test('have pictures as base64 by itself, as llama-server takes them', async () => {
    const png = await sharp({ create: { width: 64, height: 64, channels: 3, background: 'red' } })
      .png()
      .toBuffer();
    const read = (url: string) =>
      readPictures([{ url, param: 'p' }], { maxImages: 1 }, { signal: new AbortController().signal, take: () => {} });
    const padded = Buffer.concat([png, Buffer.alloc(300)]);
    expect(await read(padded.toString('base64'))).toEqual([padded]);
    expect(await read(`data:image/png;base64,${png.toString('base64')}`)).toEqual([png]);
    await expect(read('picture.png')).rejects.toThrow('it must be a data URI');
  });
});

test('lists that are too long are not looked through', () => {
  const [asked, many] = [{ role: 'user', content: 'What is it?' }, 1_000_000];
  const refusalOf = (body: object) => {
    const [before, began] = [process.memoryUsage().heapUsed, performance.now()];
    let refused: unknown;
    try {
      parseExplainRequest({ model: 'm', messages: [asked], ...body });
    } catch (error) {
      refused = error;
    }
    expect(refused).toMatchObject({ status: 400 });
    expect(performance.now() - began).toBeLessThan(2000);
    // a complaint about each element would take 800 MB
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(100e6);
    return (refused as Error).message;
  };
  const list = (value: unknown) => new Array(many).fill(value);
  expect(refusalOf({ messages: list({}) })).toContain('messages');
  expect(refusalOf({ messages: list(asked) })).toContain('messages');
  expect(refusalOf({ messages: [{ role: 'user', content: list(0) }] })).toContain('1000000 parts');
  expect(refusalOf({ messages: new Array(1000).fill({ role: 'user', content: new Array(1000).fill(0) }) })).toContain('1000000 parts');
  expect(refusalOf({ stop: list(0) })).toContain("'stop'");
  expect(refusalOf({ faithfulness: list('') })).toContain("'faithfulness'");
  expect(refusalOf({ metadata: Object.fromEntries(list(0).map((value, i) => [i, value])) })).toContain("'metadata'");
});

describe('requests to explain', () => {
  const asked = { role: 'user', content: 'What?' };
  const parse = (body: object) => parseExplainRequest({ model: 'm', messages: [asked], ...body });

  test('are those of an answer, with the answer or without', () => {
    expect(parse({}).ask).toMatchObject({ turns: [{ from: 'human', value: 'What?' }], answer: undefined, faithfulness: [] });
    const given = parse({ messages: [asked, { role: 'assistant', content: 'It.' }], faithfulness: [0, 2] });
    expect(given.ask).toMatchObject({ turns: [{ from: 'human', value: 'What?' }], answer: 'It.', faithfulness: [0, 2] });
  });

  test('are refused where they cannot be', () => {
    expect(() => parse({ messages: [{ role: 'assistant', content: 'It.' }] })).toThrow('the question goes before its answer');
    expect(() => parse({ faithfulness: [-1] })).toThrow("Invalid value for 'faithfulness[0]'");
    expect(() => parse({ faithfulness: Array.from({ length: 99 }, (_, i) => i) })).toThrow("'faithfulness'");
    for (const field of [{ stream: true }, { stop: 'x' }, { logprobs: true }])
      expect(() => parse(field)).toThrow(`'${Object.keys(field)[0]}' cannot be followed`);
    expect(() => parseChatRequest({ model: 'm', messages: [asked], faithfulness: [0] })).toThrow("Unknown parameter: 'faithfulness'");
  });
});

describe('the names that a server on this machine is asked as', () => {
  const isName = createNameCheck(['Proxy.Example', '::ffff:7f00:1']);
  test.each(['localhost', '127.0.0.1', '127.9.9.9', '[::1]', 'app.localhost', 'proxy.example'])('%s is one', (name) =>
    expect(isName(name)).toBe(true),
  );
  test.each(['evil.example', '127.evil.example', 'localhost.evil.example', '10.0.0.1', '[::2]', ''])('%s is none', (name) =>
    expect(isName(name)).toBe(false),
  );

  test('begin with addresses, not with names that look like them', () => {
    expect(isLoopback('127.0.0.1.evil.example')).toBe(false);
  });
});

test('an answer can be sent back as it came, and as others write it', () => {
  const answer = { finish: 'stop', promptTokens: 1, cachedTokens: 0, tokens: 1 } as const;
  const { message } = createCompletion('m').whole([{ text: 'A cat.' }], answer).choices[0];
  const others = { role: 'assistant', content: 'A cat.', tool_calls: null, function_call: null, audio: null, annotations: null };
  const user = (content: string) => ({ role: 'user', content });
  for (const said of [message, others, { ...others, tool_calls: [] }]) {
    const { ask } = parseChatRequest({ model: 'm', messages: [user('What is it?'), said, user('Sure?')], audio: null, functions: null });
    expect(ask.turns.map(({ value }) => value)).toEqual(['What is it?', 'A cat.', 'Sure?']);
  }
  const called = { ...others, tool_calls: [{ id: 'a' }] };
  expect(() => parseChatRequest({ model: 'm', messages: [user('?'), called, user('!')] })).toThrow("'messages[1].tool_calls'");
});
