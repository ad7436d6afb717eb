// Pictures that a request names by URL, where the server was told to fetch them. Only hosts that were named,
// only public addresses, no redirects, a time limit and a limit of bytes: the address that was checked is the
// one that is connected to.

import { lookup as lookUp } from 'node:dns';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP, type LookupFunction } from 'node:net';
import { isPublicAddress } from './addresses.ts';
import type { Take } from './body.ts';
import { ApiError } from './errors.ts';
import type { PictureSource } from './request.ts';

export interface RemoteOptions {
  /** `example.org`, `example.org:8443`, or `*.example.org` for all below it. */
  hosts: readonly string[];
  maxBytes: number;
  /** Milliseconds for the whole of it. Default: 10,000. */
  timeout?: number;
  /** Default: those of the public internet. */
  isAllowed?: (address: string) => boolean;
}

export interface Fetching {
  signal: AbortSignal;
  /** Told of bytes as they come; may throw an ApiError, which ends it. */
  take: Take;
}

/** A host and, unless it is the one of the protocol, its port; as URLs have them. */
const isListed = ({ host, protocol }: URL, hosts: readonly string[]) =>
  hosts.some((entry) => {
    const named = entry.toLowerCase().replace(protocol === 'http:' ? /:80$/ : /:443$/, '');
    return named.startsWith('*.') ? host.endsWith(named.slice(1)) : host === named;
  });

/** The bytes behind a URL. ApiError 400 says why there are none; it does not say what answered. */
export async function fetchPicture({ url: text, param }: PictureSource, options: RemoteOptions, fetching: Fetching): Promise<Uint8Array> {
  const { signal, take } = fetching;
  const { hosts, maxBytes, timeout = 10_000, isAllowed = isPublicAddress } = options;
  const fail = (what: string, code = 'invalid_image_url') => new ApiError(400, `Invalid '${param}': ${what}.`, { param, code });
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw fail('it is no URL');
  }
  if (url.username !== '' || url.password !== '') throw fail('it must not hold a user name or password');
  if (!isListed(url, hosts)) throw fail('this server fetches no images from that host', 'image_host_not_allowed');
  const host = url.hostname.replace(/^\[|\]$/g, '');
  if (isIP(host) !== 0 && !isAllowed(host)) throw fail('this server fetches no images from that address', 'image_host_not_allowed');

  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeout)]);
  try {
    const response = await get(url, limit, isAllowed);
    if (response.statusCode !== 200) {
      response.destroy();
      throw fail(`the host answered with status ${response.statusCode}; redirects are not followed`);
    }
    return await bytesOf(response, maxBytes, take, () => fail(`the image has more than ${maxBytes} bytes`, 'image_too_large'));
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof ApiError) throw error;
    throw fail(limit.aborted ? `the host took more than ${timeout / 1000} s` : 'the image could not be fetched');
  }
}

/** Resolves names to allowed addresses only: what is checked here is what is connected to. */
const checkedLookup =
  (isAllowed: (address: string) => boolean): LookupFunction =>
  (hostname, options, callback) => {
    lookUp(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, '');
      if (addresses.length === 0 || !addresses.every(({ address }) => isAllowed(address)))
        return callback(new Error(`${hostname} has an address that is not public`), '');
      const [{ address, family }] = addresses;
      return options.all ? callback(null, addresses) : callback(null, address, family);
    });
  };

function get(url: URL, signal: AbortSignal, isAllowed: (address: string) => boolean): Promise<IncomingMessage> {
  const request = url.protocol === 'https:' ? httpsRequest : httpRequest;
  return new Promise((resolve, reject) => {
    // no agent: nothing that was connected to for somebody else is used again
    const sent = request(url, { signal, agent: false, lookup: checkedLookup(isAllowed), headers: { accept: 'image/*' } }, resolve);
    sent.on('error', reject);
    sent.end();
  });
}

async function bytesOf(response: IncomingMessage, maxBytes: number, take: Take, tooLarge: () => ApiError): Promise<Uint8Array> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    size += chunk.length;
    // leaving the loop destroys the response
    if (size > maxBytes) throw tooLarge();
    take(chunk.length);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
