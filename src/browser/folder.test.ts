import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { UserError } from '../errors.ts';
import { fileAt } from './files.ts';
import { openFolder } from './folder.ts';

/** What the server has, by URL: a status, or a file with its version. */
let server: Map<string, number | { bytes: Uint8Array; etag?: string }>;
let asked: string[];

beforeEach(() => {
  server = new Map();
  asked = [];
  vi.stubGlobal('location', { href: 'https://page.example/' });
  vi.stubGlobal('fetch', async (url: string, { headers = {} }: { headers?: Record<string, string> } = {}) => {
    asked.push(url);
    const found = server.get(url) ?? 404;
    const answer = (response: Response) => Object.defineProperty(response, 'url', { value: url });
    if (typeof found === 'number') return answer(new Response('no', { status: found }));
    const { bytes, etag } = found;
    const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(headers.Range ?? '') ?? [];
    const all: Record<string, string> = etag === undefined ? {} : { ETag: etag };
    if (start === undefined) return answer(new Response(bytes.slice(), { headers: all }));
    const part = { ...all, 'Content-Range': `bytes ${start}-${end}/${bytes.length}` };
    return answer(new Response(bytes.slice(Number(start), Number(end) + 1), { status: 206, headers: part }));
  });
});
afterEach(() => vi.unstubAllGlobals());

const put = (url: string, content: string | Uint8Array, etag?: string) =>
  server.set(url, { bytes: typeof content === 'string' ? new TextEncoder().encode(content) : content, etag });

describe('a folder on a server', () => {
  it('is below its path, whatever follows that', async () => {
    put('https://host.example/models/mine/config.json?token=x', '{}');
    const folder = await openFolder('https://host.example/models/mine/?token=x#top');
    expect([folder.name, folder.bytes]).toEqual(['mine', 2]);
    expect(asked.every((url) => /^https:\/\/host\.example\/models\/mine\/[\w.-]+\?token=x$/.test(url))).toBe(true);
    folder.close();
  });

  it.each([
    ['config.json', 401, /config\.json: the server answered 401: does it want a key/],
    ['config.json', 403, /answered 403: does it want a key/],
    ['generation_config.json', 429, /generation_config\.json: the server answered 429$/],
    ['tokenizer_config.json', 503, /tokenizer_config\.json: the server answered 503$/],
    ['model.safetensors', 500, /model\.safetensors: the server answered 500$/],
  ])('%s that is not given out (%i) is no file that is not there', async (name, status, message) => {
    put('https://host.example/m/config.json', '{}');
    server.set(`https://host.example/m/${name}`, status);
    const opening = openFolder('https://host.example/m');
    await expect(opening).rejects.toThrow(message);
    await expect(opening).rejects.toThrow(UserError);
  });

  it('may lack what is optional: stores that list nothing refuse it', async () => {
    put('https://host.example/m/config.json', '{}');
    for (const name of ['generation_config.json', 'chat_template.jinja']) server.set(`https://host.example/m/${name}`, 403);
    (await openFolder('https://host.example/m')).close();
  });

  it('has weights of one version: parts of another one are refused', async () => {
    const url = 'https://host.example/m/model.safetensors';
    put('https://host.example/m/config.json', '{}');
    const weights = (value: number) => new Uint8Array(2 ** 23 + 10).fill(value);
    put(url, weights(1), '"first"');
    const folder = await openFolder('https://host.example/m');
    const source = fileAt(`${folder.path}/model.safetensors`)!;
    expect((await source.read(5, 2))[0]).toBe(1);
    put(url, weights(2), '"second"');
    await expect(source.read(2 ** 23, 2)).rejects.toThrow(/has changed on the server since it was opened; load it again$/);
    // a server that tells no versions is believed
    put(url, weights(2));
    expect((await source.read(2 ** 23, 2))[0]).toBe(2);
    folder.close();
  });
});
