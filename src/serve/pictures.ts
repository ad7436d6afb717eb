// Pictures of a request: data URIs and, where it is allowed, URLs.

import { ApiError } from './errors.ts';
import { type Fetching, fetchPicture, type RemoteOptions } from './remote-pictures.ts';
import type { PictureSource } from './request.ts';

export interface PictureLimits {
  /** Pictures of one request. */
  maxImages: number;
  /** Where pictures may be fetched from; nowhere when absent. */
  remote?: RemoteOptions;
}

/** The files that OpenAI takes. Others have readers with more to go wrong. */
const SIGNATURES = [/^\xff\xd8\xff/, /^\x89PNG\r\n/, /^RIFF....WEBP/s, /^GIF8[79]a/];

/** The bytes of pictures, in order. ApiError 400 names the one that is wrong. */
export async function readPictures(sources: readonly PictureSource[], limits: PictureLimits, fetching: Fetching): Promise<Uint8Array[]> {
  const { maxImages, remote } = limits;
  if (sources.length > maxImages)
    throw new ApiError(400, `Too many images: this server takes ${maxImages} a request, and there are ${sources.length}.`, {
      param: 'messages',
      code: 'too_many_images',
    });
  // the first that fails ends the others
  const failed = new AbortController();
  const signal = AbortSignal.any([fetching.signal, failed.signal]);
  return Promise.all(
    sources.map(async (source) => {
      const bytes = await bytesOf(source, remote, { ...fetching, signal }).catch((error: unknown) => {
        failed.abort(error);
        throw error;
      });
      const start = Buffer.from(bytes.subarray(0, 16)).toString('latin1');
      if (!SIGNATURES.some((signature) => signature.test(start)))
        throw refuse(source, 'the image must be a PNG, JPEG, WebP or GIF', 'invalid_image_format');
      return bytes;
    }),
  );
}

const refuse = ({ param }: PictureSource, what: string, code: string) => new ApiError(400, `Invalid '${param}': ${what}.`, { param, code });

/** Characters before the data of a data URI, at most; what is shorter is no picture by itself. */
const MAX_NAME = 200;

const isBase64 = (text: string) => text.length % 4 !== 1 && /^[A-Za-z0-9+/]+={0,2}$/.test(text);

async function bytesOf(source: PictureSource, remote: RemoteOptions | undefined, fetching: Fetching): Promise<Uint8Array> {
  const { url } = source;
  if (/^https?:/i.test(url)) {
    if (remote) return fetchPicture(source, remote, fetching);
    throw refuse(source, 'this server fetches no images; give a data URI', 'remote_images_not_allowed');
  }
  // llama-server takes base64 by itself
  if (url.length > MAX_NAME && isBase64(url)) return Buffer.from(url, 'base64');
  const comma = url.indexOf(',');
  if (comma < 0 || comma > MAX_NAME || !/^data:image\/[a-z0-9.+-]+;base64$/i.test(url.slice(0, comma)))
    throw refuse(source, 'it must be a data URI: data:image/png;base64,...', 'invalid_image_url');
  const text = url.slice(comma + 1);
  // Buffer passes over what is not base64
  if (!isBase64(text)) throw refuse(source, 'its data are not base64', 'invalid_image_url');
  return Buffer.from(text, 'base64');
}
