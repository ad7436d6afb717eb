import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isLoopback, isPublicAddress } from './addresses.ts';
import { ApiError } from './errors.ts';
import { fetchPicture, type RemoteOptions } from './remote-pictures.ts';

describe('public addresses', () => {
  test.each(['1.1.1.1', '93.184.216.34', '172.15.0.1', '172.32.0.1', '2606:4700::1111', '2a00:1450:4001::8'])('%s is one', (address) => {
    expect(isPublicAddress(address)).toBe(true);
  });

  test.each([
    ...[
      '127.0.0.1',
      '10.1.2.3',
      '172.16.0.1',
      '172.31.255.255',
      '192.168.1.1',
      '169.254.169.254',
      '100.64.0.1',
      '0.0.0.0',
      '224.0.0.1',
      '255.255.255.255',
    ],
    ...[
      '::1',
      '::',
      '::ffff:127.0.0.1',
      '::ffff:8.8.8.8',
      '64:ff9b::7f00:1',
      'fe80::1',
      'fc00::1',
      'fd12::1',
      'ff02::1',
      '2002:7f00:1::',
      '2001:db8::1',
    ],
    ...['', 'localhost', '1.1.1', 'example.org'],
  ])('%s is none', (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });

  test('hosts that only this machine reaches are told from others', () => {
    expect(['127.0.0.1', '127.9.9.9', '::1', 'localhost'].every(isLoopback)).toBe(true);
    expect(['0.0.0.0', '::', '192.168.0.2', 'localhost.example.org'].some(isLoopback)).toBe(false);
  });
});

describe('fetching a picture', () => {
  let server: Server;
  let host: string;
  const seen: string[] = [];

  beforeAll(async () => {
    server = createServer(({ url }, response) => {
      seen.push(url!);
      if (url === '/picture') response.end('a picture');
      else if (url === '/endless') {
        const more = setInterval(() => response.write('x'.repeat(1000)), 1);
        response.on('close', () => clearInterval(more));
      } else if (url === '/redirect') response.writeHead(302, { location: '/picture' }).end();
      else if (url !== '/silent') response.writeHead(404).end('secret of the neighbor');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    host = `localhost:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => void server.close());

  const get = (url: string, options: Partial<RemoteOptions> = {}, signal = new AbortController().signal, take = (_: number) => {}) =>
    fetchPicture(
      { url, param: 'url' },
      { hosts: [host], maxBytes: 5000, timeout: 500, isAllowed: () => true, ...options },
      { signal, take },
    );

  test('gives its bytes', async () => {
    expect(Buffer.from(await get(`http://${host}/picture`)).toString()).toBe('a picture');
  });

  test.each<[string, string, Partial<RemoteOptions>, RegExp]>([
    ['a host that is not listed', 'http://HOST/picture', { hosts: ['example.org'] }, /no images from that host/],
    ['another port', 'http://localhost:1/picture', {}, /no images from that host/],
    ['a name that looks like one below', 'http://HOST/picture', { hosts: ['*.host'] }, /no images from that host/],
    ['a name with a private address', 'http://HOST/picture', { isAllowed: isPublicAddress }, /could not be fetched/],
    ['a private address', 'http://127.0.0.1:PORT/picture', { hosts: ['127.0.0.1:PORT'], isAllowed: isPublicAddress }, /from that address/],
    ['one in hexadecimal', 'http://0x7f000001:PORT/', { hosts: ['127.0.0.1:PORT'], isAllowed: isPublicAddress }, /from that address/],
    ['a private IPv6 address', 'http://[::1]:PORT/', { hosts: ['[::1]:PORT'], isAllowed: isPublicAddress }, /from that address/],
    ['a redirect', 'http://HOST/redirect', {}, /status 302; redirects are not followed/],
    ['an error', 'http://HOST/none', {}, /status 404/],
    ['too much', 'http://HOST/endless', {}, /more than 5000 bytes/],
    ['silence', 'http://HOST/silent', {}, /more than 0.5 s/],
    ['a password', 'http://me:secret@HOST/picture', {}, /password/],
    ['a closed port', 'http://localhost:1/', { hosts: ['localhost:1'] }, /could not be fetched/],
    ['no URL', 'http://', {}, /no URL/],
  ])('refuses %s', async (_, url, options, message) => {
    const fill = (text: string) => text.replace('HOST', host).replace('PORT', host.split(':')[1]);
    const failed = get(fill(url), { ...options, ...(options.hosts ? { hosts: options.hosts.map(fill) } : {}) });
    await expect(failed).rejects.toThrow(message);
    await expect(failed).rejects.toMatchObject({ status: 400, details: { param: 'url' } });
    await expect(failed).rejects.not.toThrow(/secret of/);
  });

  test('counts the bytes that come, and ends where they are too many', async () => {
    let taken = 0;
    const count = (most: number) => (bytes: number) => {
      taken += bytes;
      if (taken > most) throw new ApiError(503, 'the server holds too many requests');
    };
    await get(`http://${host}/picture`, {}, undefined, count(100));
    expect(taken).toBe('a picture'.length);
    await expect(get(`http://${host}/endless`, {}, undefined, count(2500))).rejects.toThrow('holds too many');
  });

  test('takes hosts below a listed one', async () => {
    await expect(get('http://a.example.invalid/', { hosts: ['*.example.invalid'] })).rejects.toThrow(/could not be fetched/);
    await expect(get('http://example.invalid/', { hosts: ['*.example.invalid'] })).rejects.toThrow(/from that host/);
  });

  test('ends when the client goes away', async () => {
    const leaving = new AbortController();
    const waiting = get(`http://${host}/silent`, { timeout: 10_000 }, leaving.signal);
    setTimeout(() => leaving.abort(new Error('gone')), 50);
    await expect(waiting).rejects.toThrow('gone');
  });
});
