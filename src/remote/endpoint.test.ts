import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ChatServer, startChatServer, type Trouble, textOf } from '../../tests/chat-server.ts';
import { type EndpointOptions, openEndpoint } from './endpoint.ts';

const folder = () => mkdtempSync(join(tmpdir(), 'replies-'));
const says = (value: string, ...images: (string | Uint8Array)[]) => ({ turns: [{ from: 'human' as const, value }], images });
const pixel = (format: 'png' | 'jpeg' | 'webp' | 'gif' | 'tiff', shade = 10) =>
  sharp({ create: { width: 2, height: 1, channels: 3, background: { r: shade, g: 0, b: 0 } } })
    .toFormat(format)
    .toBuffer();

let server: ChatServer;
beforeEach(async () => {
  server = await startChatServer((request) => `re: ${textOf(request)}`);
});
afterEach(() => server.close());

const open = (options: Partial<EndpointOptions> = {}) =>
  openEndpoint({ url: server.url, apiKey: '', cache: false, pauses: [0.01, 0.02], ...options });
const ask = async (troubles: Trouble[], options: Partial<EndpointOptions> = {}) => {
  server.troubles = troubles;
  return (await open(options)).reply(says('hello'), { maxTokens: 5 });
};

describe('an endpoint', () => {
  it('is asked as OpenAI is, greedily, with the key of the environment', async () => {
    vi.stubEnv('OPENAI_API_KEY', 'sk-secret\n');
    const endpoint = await open({ apiKey: undefined });
    vi.unstubAllEnvs();
    expect(endpoint.name).toBe(`${server.url} tester`);
    const reply = await endpoint.reply(says('hello'), { maxTokens: 5 });
    expect(reply).toEqual({ text: 're: hello', finish: 'stop', model: 'tester-0001', promptTokens: 7, completionTokens: 3, cached: false });
    expect(server.asked).toEqual([{ model: 'tester', messages: [{ role: 'user', content: 'hello' }], temperature: 0, max_tokens: 5 }]);
    expect(server.authorizations).toEqual(['Bearer sk-secret', 'Bearer sk-secret']);
  });

  it('is found below addresses as people write them, and sends no key that nobody gave', async () => {
    const { origin } = new URL(server.url);
    for (const url of [origin, `${origin}/`, `${server.url}/`, `${server.url}/chat/completions`])
      expect((await open({ url })).name).toBe(`${server.url} tester`);
    expect(server.authorizations.at(-1)).toBeUndefined();
  });

  it('gets pictures in their places, as they are where servers read them', async () => {
    const formats = ['png', 'jpeg', 'webp', 'gif', 'tiff'] as const;
    const [png, jpeg, webp, gif, tiff] = await Promise.all(formats.map((format) => pixel(format)));
    const file = join(folder(), 'a.jpg');
    writeFileSync(file, jpeg);
    const endpoint = await open();
    await endpoint.reply(says('<image>\nIs <image> like <image>?', png, file, tiff), { maxTokens: 5 });
    const content = server.asked[0].messages[0].content;
    const uris = content.flatMap((part: { image_url?: { url: string } }) => (part.image_url ? [part.image_url.url] : []));
    expect(content.map((part: { type: string; text?: string }) => part.text ?? part.type)).toEqual([
      'image_url',
      'Is ',
      'image_url',
      ' like ',
      'image_url',
      '?',
    ]);
    expect(uris.slice(0, 2)).toEqual([
      `data:image/png;base64,${png.toString('base64')}`,
      `data:image/jpeg;base64,${jpeg.toString('base64')}`,
    ]);
    expect(uris[2]).toMatch(/^data:image\/png;base64,/);
    const shown = await sharp(Buffer.from(uris[2].split(',')[1], 'base64'))
      .raw()
      .toBuffer();
    expect(shown.length).toBe(6);
    expect(Math.abs(shown[0] - 10)).toBeLessThan(9);

    await endpoint.reply(says('What?', webp, gif), { maxTokens: 5 });
    const [first, second, text] = server.asked[1].messages[0].content;
    expect([first.image_url.url, second.image_url.url].map((uri) => uri.slice(0, 15))).toEqual(['data:image/webp', 'data:image/gif;']);
    expect(text).toEqual({ type: 'text', text: 'What?' });

    await expect(endpoint.reply(says('<image> <image>', png), { maxTokens: 5 })).rejects.toThrow('2 <image> tokens, but the prompt has 1');
    await expect(endpoint.reply(says('?', '/none.png'), { maxTokens: 5 })).rejects.toThrow('/none.png: there is no such file');
    await expect(endpoint.reply(says('?', new Uint8Array(30)), { maxTokens: 5 })).rejects.toThrow('picture 1: cannot be read');
  });

  it('sends a whole conversation', async () => {
    const turns = (['human', 'gpt', 'human'] as const).map((from, i) => ({ from, value: `turn ${i}` }));
    await (await open()).reply({ turns }, { maxTokens: 5, temperature: 0.5 });
    expect(server.asked[0]).toMatchObject({
      temperature: 0.5,
      messages: [
        { role: 'user', content: 'turn 0' },
        { role: 'assistant', content: 'turn 1' },
        { role: 'user', content: 'turn 2' },
      ],
    });
  });

  it('reads replies in every form', async () => {
    server.answer = () => null;
    expect((await ask([])).text).toBe('');
    const parts = { choices: [{ message: { content: [{ type: 'text', text: 'a' }, { type: 'other' }, { type: 'text', text: 'b' }] } }] };
    expect(await ask([{ status: 200, body: JSON.stringify(parts) }])).toEqual({ text: 'ab', cached: false });
  });
});

describe('trouble with an endpoint', () => {
  const passing: [string, Trouble][] = [
    ['too many requests', { status: 429 }],
    ['an overloaded server', { status: 503, body: '<html>later</html>' }],
    ['a broken connection', 'break'],
    ['a reply that is cut off', 'cut'],
    ['an error within a reply that is said to be well', { status: 200, body: '{"error":{"message":"upstream","code":502}}' }],
  ];
  it.each(passing)('passes: %s', async (_name, trouble) => {
    expect((await ask([trouble, trouble])).text).toBe('re: hello');
    expect(server.asked.length).toBe(3);
  });

  it('is waited for as long as the server asks, by all requests', async () => {
    const pauses: string[] = [];
    server.troubles = [{ status: 429, headers: { 'retry-after': '0.3' } }];
    const endpoint = await open({ concurrency: 1, onPause: (reason, seconds) => pauses.push(`${seconds}: ${reason}`) });
    const start = performance.now();
    await endpoint.replyAll([says('a'), says('b')], { maxTokens: 5 });
    expect(performance.now() - start).toBeGreaterThan(290);
    expect(pauses).toEqual([`0.3: ${server.url} answers with status 429: not now`]);
  });

  it('ends when it does not pass', async () => {
    const busy = { status: 500, body: 'out of memory' };
    await expect(ask([busy, busy, busy])).rejects.toThrow(`${server.url} answers with status 500: out of memory, 3 times`);
    await expect(ask(['silence', 'silence', 'silence'], { timeout: 0.05 })).rejects.toThrow(/gave no answer within 0.05 seconds, 3 times/);
  });

  it('is told at once where trying again is no use', async () => {
    const refused: [Trouble, string][] = [
      [{ status: 400, body: '{"error":{"message":"too long","code":"context_length_exceeded"}}' }, 'refuses with status 400: too long'],
      [{ status: 404, body: '{"error":"model not found"}' }, 'refuses with status 404: model not found'],
      [{ status: 401 }, 'wants a key: set OPENAI_API_KEY'],
      [{ status: 301, headers: { location: 'https://elsewhere/v1' } }, 'sends on to https://elsewhere/v1'],
      [{ status: 200, body: '<html>log in</html>' }, "does not answer as OpenAI's API does: <html>log in"],
      [{ status: 200, body: '{"choices":[]}' }, "does not answer as OpenAI's API does: "],
    ];
    for (const [trouble, message] of refused) await expect(ask([trouble], { model: 'tester' })).rejects.toThrow(`${server.url} ${message}`);
    expect(server.asked.length).toBe(refused.length);
    server.close();
    await expect(ask([], { model: 'a' })).rejects.toThrow(/^cannot reach http.*ECONNREFUSED/);
  });

  it('never shows a key', async () => {
    const body = JSON.stringify({ error: { message: 'Incorrect key sk-1234 provided' } });
    await expect(ask([{ status: 401, body }], { apiKey: 'sk-1234' })).rejects.toThrow(
      /refuses the key \(OPENAI_API_KEY\): Incorrect key \*\*\* /,
    );
    await expect(open({ apiKey: 'sk 12' })).rejects.toThrow(/^OPENAI_API_KEY holds characters that no key has/);
    await expect(open({ url: 'http://me:secret@host/v1' })).rejects.toThrow(/^the address of host has a name or password in it/);
    await expect(open({ url: 'localhost:8000' })).rejects.toThrow('must be like http://localhost:8000/v1');
  });

  it('asks for the name of a model where there are several', async () => {
    server.models = ['a', 'b'];
    await expect(open()).rejects.toThrow('has several models (a, b): name the one to ask');
    expect((await open({ model: 'b' })).model).toBe('b');
  });

  it('learns the other name of the longest reply', async () => {
    const body = '{"error":{"message":"Unsupported parameter: use max_completion_tokens instead."}}';
    const endpoint = await open();
    server.troubles = [{ status: 400, body }];
    await endpoint.replyAll([says('a')], { maxTokens: 5 });
    await endpoint.reply(says('b'), { maxTokens: 6 });
    expect(server.asked.map(({ max_tokens, max_completion_tokens }) => [max_tokens, max_completion_tokens])).toEqual([
      [5, undefined],
      [undefined, 5],
      [undefined, 6],
    ]);
  });
});

it('leaves out a temperature that a model does not take, and says so', async () => {
  const refusal = (message: string) => ({ status: 400, body: JSON.stringify({ error: { message } }) });
  const notes: string[] = [];
  // a key that is part of the words, which nobody is shown
  const endpoint = await open({ apiKey: 'token', onNote: (text) => notes.push(text) });
  server.troubles = [
    refusal("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
    refusal("Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."),
  ];
  await endpoint.reply(says('a'), { maxTokens: 5 });
  await endpoint.reply(says('b'), { maxTokens: 6 });
  expect(
    server.asked.map(({ max_tokens, max_completion_tokens, temperature }) => [max_tokens, max_completion_tokens, temperature]),
  ).toEqual([
    [5, undefined, 0],
    [undefined, 5, 0],
    [undefined, 5, undefined],
    [undefined, 6, undefined],
  ]);
  expect(notes).toEqual([`${endpoint.model} takes no temperature of 0: it answers with its own`]);
});

it('goes on asking with a temperature where it was something else', async () => {
  const refusal = (body: object) => ({ status: 422, body: JSON.stringify(body) });
  const notes: string[] = [];
  const endpoint = await open({ onNote: (text) => notes.push(text) });
  const quoted = { error: { message: 'What is the temperature? is too long' } };
  // one form quotes the whole request
  for (const troubles of [[refusal(quoted), refusal(quoted)], [refusal({ detail: [{ msg: 'too long', input: { temperature: 0 } }] })]]) {
    server.troubles = troubles;
    await expect(endpoint.reply(says('a'), { maxTokens: 5 })).rejects.toThrow('refuses with status 422');
  }
  await endpoint.reply(says('b'), { maxTokens: 5 });
  expect(server.asked.map(({ temperature }) => temperature)).toEqual([0, undefined, 0, 0]);
  expect(notes).toEqual([]);
});

describe('many requests', () => {
  it('are under way so many at a time, and give their replies in order', async () => {
    server.answer = async (request) => {
      await new Promise((resolve) => setTimeout(resolve, textOf(request) === '0' ? 40 : 5));
      return textOf(request);
    };
    const heard: number[] = [];
    const prompts = [...Array(10).keys()].map((i) => (i % 2 ? says(String(i)) : async () => says(String(i))));
    const endpoint = await open({ concurrency: 3 });
    const replies = await endpoint.replyAll(prompts, { maxTokens: 5, onReply: (index) => heard.push(index) });
    expect(replies.map(({ text }) => text)).toEqual(prompts.map((_, i) => String(i)));
    expect(server.mostAtOnce).toBe(3);
    expect(heard.indexOf(0)).toBeGreaterThan(0);
  });

  it('end with the first that fails, and with the signal', async () => {
    const prompts = [...Array(10).keys()].map((i) => says(String(i)));
    server.troubles = [{ status: 400 }];
    await expect((await open({ concurrency: 2 })).replyAll(prompts, { maxTokens: 5 })).rejects.toThrow('refuses with status 400');
    expect(server.asked.length).toBeLessThan(5);

    const stop = new AbortController();
    server.troubles = [{ status: 429, headers: { 'retry-after': '100' } }];
    const work = (await open({ signal: stop.signal })).replyAll(prompts, { maxTokens: 5 });
    setTimeout(() => stop.abort(new Error('stopped')), 20);
    await expect(work).rejects.toThrow('stopped');
  });
});

describe('replies on disk', () => {
  it('are not asked for again, whoever asks, unless something differs', async () => {
    const cache = folder();
    const [red, dark] = await Promise.all([pixel('png', 200), pixel('png', 20)]);
    const asked = async (prompt: ReturnType<typeof says>, options = {}, opened: Partial<EndpointOptions> = {}) => {
      const before = server.asked.length;
      const { cached, text } = await (await open({ cache, ...opened })).reply(prompt, { maxTokens: 5, ...options });
      expect(text).toBe(`re: ${prompt.turns[0].value.replace('<image>\n', '')}`);
      expect(cached).toBe(server.asked.length === before);
      return !cached;
    };
    expect(await asked(says('a', red))).toBe(true);
    expect(await asked(says('a', red))).toBe(false);
    const file = join(folder(), 'other name.png');
    writeFileSync(file, red);
    expect(await asked(says('<image>\na', file))).toBe(false);
    const others: Parameters<typeof asked>[] = [
      [says('b', red)],
      [says('a', dark)],
      [says('a')],
      [says('a', red), { maxTokens: 6 }],
      [says('a', red), { temperature: 1 }],
      [says('a', red), { run: 2 }],
      [says('a', red), {}, { model: 'other' }],
    ];
    for (const other of others) expect(await asked(...other)).toBe(true);
    for (const other of others) expect(await asked(...other)).toBe(false);
  });

  it('are whole or not there', async () => {
    const cache = folder();
    const endpoint = await open({ cache });
    await endpoint.reply(says('a'), { maxTokens: 5 });
    const [path] = readdirSync(cache, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.json'));
    const text = readFileSync(join(cache, path), 'utf8');
    expect(JSON.parse(text)).toMatchObject({ request: { model: 'tester', turns: [{ value: 'a' }] }, reply: { text: 're: a' } });
    for (const damaged of [text.slice(0, 40), '', '{"request":{},"reply":{"text":"re: b"}}', text.replace('"text":"re', '"txt":"re')]) {
      writeFileSync(join(cache, path), damaged);
      expect(await endpoint.reply(says('a'), { maxTokens: 5 })).toMatchObject({ text: 're: a', cached: false });
      expect(await endpoint.reply(says('a'), { maxTokens: 5 })).toMatchObject({ text: 're: a', cached: true });
    }
    const file = join(folder(), 'file');
    writeFileSync(file, '');
    await expect((await open({ cache: file })).reply(says('a'), { maxTokens: 5 })).rejects.toThrow(/file/);
  });
});
