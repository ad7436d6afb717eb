// A server under malformed requests: broken JSON, headers, pictures and bodies, clients that stop in the
// middle, guessed keys. Every one gets the status that it deserves, and the server goes on. A few hundred
// here; LLAVA_GEMMA_FUZZ=5000 sends as many.

import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { createRandom, type Random } from '../src/random.ts';
import { type RunningServer, startServer } from '../src/serve/server.ts';

const COUNT = Number(process.env.LLAVA_GEMMA_FUZZ ?? 200);
/** Requests under way at a time. */
const TOGETHER = 8;
const KEY = 'the-right-key';
/** Bytes that server and model may grow by. */
const GROWTH = 250e6;

let server: RunningServer;
let picture: Buffer;
let photo: Buffer;

beforeAll(async () => {
  server = await startServer({
    models: new Map([['tiny', resolvePath(bundledModel, 'the model')]]),
    host: '127.0.0.1',
    port: 0,
    keys: [KEY],
    pictures: { maxImages: 4 },
    maxBody: 200_000,
    maxPixels: 250_000,
    parallel: 4,
    queue: 32,
    maxLoaded: 1,
    prefixBytes: 2 ** 24,
  });
  await server.ready;
  const data = Buffer.from(Array.from({ length: 60 * 50 * 3 }, (_, i) => (i * 7919) % 256));
  const image = sharp(data, { raw: { width: 60, height: 50, channels: 3 } });
  picture = await image.png().toBuffer();
  photo = await image.jpeg().toBuffer();
});

afterAll(() => server.close(0));

// === Requests ===

interface Attempt {
  kind: string;
  /** What is written to the socket, piece by piece. */
  pieces: (string | Buffer)[];
  /** Statuses that are right; undefined stands for a connection that ends without one. */
  statuses: readonly (number | undefined)[];
  /** Whether the client leaves before an answer. */
  leaves?: boolean;
}

const uri = (bytes: Buffer, type = 'png') => `data:image/${type};base64,${bytes.toString('base64')}`;
const content = (url: string) => [
  { type: 'text', text: 'what?' },
  { type: 'image_url', image_url: { url } },
];
const valid = (): Record<string, unknown> => ({
  model: 'tiny',
  max_tokens: 4,
  temperature: 0,
  messages: [
    { role: 'system', content: 'brief' },
    { role: 'user', content: content(uri(picture)) },
  ],
});

function http(
  body: string | Buffer,
  { path = '/v1/chat/completions', method = 'POST', headers = {} as Record<string, string>, key = KEY } = {},
): Buffer {
  const all = {
    host: 'localhost',
    connection: 'close',
    authorization: `Bearer ${key}`,
    'content-type': 'application/json',
    'content-length': String(Buffer.byteLength(body)),
    ...headers,
  };
  const head = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.concat([Buffer.from(`${method} ${path} HTTP/1.1\r\n${head.join('')}\r\n`, 'latin1'), Buffer.from(body)]);
}

/** Something that stands where something else should. */
function junk(random: Random): unknown {
  const long = 'x'.repeat(random.integer(3000));
  return random.pick<unknown>([
    null,
    true,
    -1,
    0,
    1e308,
    2 ** 53,
    0.5,
    '',
    long,
    '\u0000\ud800',
    [],
    {},
    [[[]]],
    { role: 'user' },
    [null],
    ['a', 1],
    { type: 'image_url' },
    { toString: 1, constructor: { prototype: 1 } },
    JSON.parse('{"__proto__": {"polluted": true}}'),
    '<image>',
    '<end_of_turn>',
  ]);
}

/** Replaces, adds or takes away something somewhere in a value. */
function mutate(value: unknown, random: Random): unknown {
  if (typeof value !== 'object' || value === null || random.uniform() < 0.15) return junk(random);
  const copy = (Array.isArray(value) ? [...value] : { ...value }) as Record<string, unknown>;
  const keys = Object.keys(copy);
  const choice = random.uniform();
  if (keys.length === 0 || choice < 0.1)
    copy[random.pick(['zzz', '0', 'n', 'tools', 'stop', 'logit_bias', 'seed', 'stream_options', '__proto__x'])] = junk(random);
  else if (choice < 0.2) delete copy[random.pick(keys)];
  else {
    const key = random.pick(keys);
    copy[key] = mutate(copy[key], random);
  }
  return copy;
}

function damage(bytes: Buffer, random: Random): Buffer {
  const copy = Buffer.from(bytes);
  for (let i = random.integer(20); i >= 0; i--) copy[random.integer(copy.length)] = random.integer(256);
  return random.uniform() < 0.5 ? copy : copy.subarray(0, random.integer(copy.length) + 1);
}

const kinds: Record<string, (random: Random) => Omit<Attempt, 'kind'>> = {
  // some of what is changed is still right
  'a field': (random) => ({ pieces: [http(JSON.stringify(mutate(valid(), random)))], statuses: [200, 400, 404] }),
  'JSON that is none': (random) => {
    const text = Buffer.from(JSON.stringify(valid()));
    text[random.integer(40)] = random.integer(256);
    return { pieces: [http(text)], statuses: [200, 400, 404] };
  },
  nesting: (random) => ({ pieces: [http(random.pick(['[', '{"a":']).repeat(random.integer(30_000)))], statuses: [400] }),
  'a picture': (random) => {
    const [bytes, type] = random.pick([
      [picture, 'png'],
      [photo, 'jpeg'],
    ] as const);
    return {
      pieces: [http(JSON.stringify({ ...valid(), messages: [{ role: 'user', content: content(uri(damage(bytes, random), type)) }] }))],
      statuses: [200, 400],
    };
  },
  'a bomb': (random) => {
    // the header says that there is a lot
    const bytes = Buffer.from(picture);
    bytes.writeUInt32BE(random.pick([0, 30_000, 2 ** 31 - 1]), 16 + 4 * random.integer(2));
    return { pieces: [http(JSON.stringify({ ...valid(), messages: [{ role: 'user', content: content(uri(bytes)) }] }))], statuses: [400] };
  },
  'a URL': (random) => {
    const url = random.pick([
      'http://169.254.169.254/',
      'file:///etc/passwd',
      'data:text/html;base64,AAAA',
      'data:image/png,AAAA',
      'ftp://x',
      '//x',
      'data:image/png;base64,A*',
      '\0',
    ]);
    return { pieces: [http(JSON.stringify({ ...valid(), messages: [{ role: 'user', content: content(url) }] }))], statuses: [400] };
  },
  'too large': (random) => ({ pieces: [http('x'.repeat(200_001 + random.integer(100_000)))], statuses: [413, undefined] }),
  'a length that is a lie': (random) => ({
    pieces: [http('{}', { headers: { 'content-length': random.pick(['-1', '1e3', '99999999999', '0x10', '2, 3']) } })],
    statuses: [400, 413],
  }),
  'another type': (random) => ({
    pieces: [
      http('--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--', {
        headers: { 'content-type': random.pick(['multipart/form-data; boundary=b', 'text/plain', '', 'application/jsonx']) },
      }),
    ],
    statuses: [415],
  }),
  'a broken body': (random) => {
    const whole = http(JSON.stringify(valid()));
    return { pieces: [whole.subarray(0, whole.length - 1 - random.integer(300))], statuses: [], leaves: true };
  },
  'broken chunks': (random) => {
    const head = http('', { headers: { 'transfer-encoding': 'chunked' } })
      .toString('latin1')
      .replace(/content-length: 0\r\n/, '');
    return {
      pieces: [head, random.pick(['zz\r\n', '5\r\nabc', 'ffffffffffffffff\r\n', '-1\r\n', '0\r\n\r\n'])],
      statuses: [400, undefined],
      leaves: random.uniform() < 0.5,
    };
  },
  'an answer that nobody waits for': () => ({
    pieces: [http(JSON.stringify({ ...valid(), stream: true, max_tokens: 64 }))],
    statuses: [],
    leaves: true,
  }),
  'a header': (random) => ({
    pieces: [
      http('{}', {
        headers: {
          [random.pick(['x y', 'x', 'é', 'content-length', 'authorization'])]: random.pick([
            '\x01',
            'x'.repeat(20_000),
            'a\r\n b',
            '5',
            '\xff',
          ]),
        },
      }),
    ],
    statuses: [400, 401, 431, undefined],
  }),
  'no HTTP': (random) => ({
    pieces: [
      random.pick([
        '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
        'GET\r\n\r\n',
        'GET / HTTP/9.9\r\n\r\n',
        'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
        '\0\0\0\0\r\n\r\n',
        'GET http://[::1 HTTP/1.1\r\nHost: localhost\r\n\r\n',
      ]),
    ],
    statuses: [400, 401, 505, undefined],
  }),
  'a path': (random) => ({
    pieces: [
      http('', {
        method: random.pick(['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']),
        path: random.pick([
          '/../../etc/passwd',
          '/v1/models/..%2f..%2fetc%2fpasswd',
          '/v1/models/%00',
          '/%',
          '/v1/chat/completions/',
          '//',
          '/v1/explain',
          `/${'a'.repeat(3000)}`,
          '/v1/models/%ff',
        ]),
      }),
    ],
    statuses: [400, 404, 405, undefined],
  }),
  'a method': (random) => ({ pieces: [http('', { method: random.pick(['GET', 'PUT', 'DELETE', 'PATCH']) })], statuses: [405] }),
  'a key': (random) => ({
    pieces: [
      http(JSON.stringify(valid()), {
        key: random.pick(['', KEY.slice(0, -1), `${KEY}x`, KEY.toUpperCase(), ' ', 'x'.repeat(5000), '\xff', `${KEY} ${KEY}`]),
      }),
    ],
    statuses: [401],
  }),
};

// === Sending ===

/** Status and body of what comes back. */
async function send({ kind, pieces, leaves }: Attempt): Promise<{ status?: number; body: string }> {
  const socket = connect(server.port, '127.0.0.1');
  let text = '';
  socket.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.on('close', resolve));
  for (const piece of pieces) {
    socket.write(piece);
    if (pieces.length > 1) await sleep(5);
  }
  if (leaves) {
    await sleep(10);
    socket.destroy();
  }
  // who has not sent all says that there is no more
  const ending = setTimeout(() => socket.end(), 3000);
  const isClosed = await Promise.race([closed.then(() => true), sleep(20_000, false, { ref: false })]);
  clearTimeout(ending);
  if (!isClosed) throw new Error(`${kind}: the server does not answer ${String(pieces[0]).slice(0, 300)}`);
  const [head, ...rest] = text.split('\r\n\r\n');
  const status = /^HTTP\/1\.1 (\d+)/.exec(head)?.[1];
  return { status: status === undefined ? undefined : Number(status), body: rest.join('\r\n\r\n') };
}

async function memory(): Promise<number> {
  await sleep(1200);
  const response = await fetch(`http://127.0.0.1:${server.port}/metrics`, { headers: { authorization: `Bearer ${KEY}` } });
  const lines = (await response.text()).matchAll(/^llava_gemma_resident_memory_bytes\{process="tiny"\} (\d+)$/gm);
  return [...lines].reduce((sum, [, bytes]) => sum + Number(bytes), process.memoryUsage.rss());
}

async function isWell(): Promise<boolean> {
  const response = await fetch(`http://127.0.0.1:${server.port}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${KEY}` },
    body: JSON.stringify(valid()),
  });
  return response.ok && (await response.json()).choices[0].message.content.length > 0;
}

test(`${COUNT} malformed requests get the right statuses, and the server goes on`, { timeout: 60_000 + COUNT * 200 }, async () => {
  expect(await isWell()).toBe(true);
  const { pid } = server.models[0];
  const names = Object.keys(kinds);
  const attempts = Array.from({ length: COUNT }, (_, i): Attempt => {
    const kind = names[i % names.length];
    return { kind, ...kinds[kind](createRandom(i, kind)) };
  });
  const wrong: string[] = [];
  const seen = new Map<string, number>();
  let next = 0;
  const sendOn = async () => {
    while (next < attempts.length) {
      const attempt = attempts[next++];
      const { status, body } = await send(attempt);
      seen.set(`${attempt.kind} ${status}`, (seen.get(`${attempt.kind} ${status}`) ?? 0) + 1);
      const describe = (what: string) =>
        wrong.push(`${attempt.kind}: ${what}: ${status} ${body.slice(0, 200)} <- ${String(attempt.pieces[0]).slice(0, 300)}`);
      if (attempt.leaves) continue;
      if (!attempt.statuses.includes(status)) describe('another status');
      if (
        status !== undefined &&
        status >= 400 &&
        !/^\{"error":\{"message":".+","type":"\w+","param":(null|".*"),"code":"\w+"\}\}$/s.test(body) &&
        !/HEAD|TRACE/.test(String(attempt.pieces[0]).slice(0, 5))
      )
        describe('not an error in the form of OpenAI');
    }
  };
  const half = () => Promise.all(Array.from({ length: TOGETHER }, sendOn));
  const rest = attempts.splice(Math.floor(COUNT / 3));
  await half();
  const before = await memory();
  attempts.push(...rest);
  await half();
  expect(wrong).toEqual([]);
  expect((await memory()) - before).toBeLessThan(GROWTH);
  expect(server.models[0].pid).toBe(pid);
  expect(server.models[0].load).toEqual({ running: 0, waiting: 0 });
  expect(await isWell()).toBe(true);
  // the changes are not all of one kind
  expect(seen.get('a field 400') ?? 0).toBeGreaterThan(0);
  expect(seen.get('a picture 400') ?? 0).toBeGreaterThan(0);
  if (process.env.LLAVA_GEMMA_FUZZ) console.log(Object.fromEntries([...seen].sort()));
});
