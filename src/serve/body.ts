// Bodies of requests as JSON, within a limit each and one for all of them together.

import { ApiError } from './errors.ts';

/** Puts bytes on the account. ApiError 503 where too much is being held already. */
export type Take = (bytes: number) => void;

export interface BodyReader {
  /**
   * Reads the body and keeps its bytes on the account until `release`, with those that `take` adds. ApiError
   * 400, 413, 415, or 503 where too much is being held already.
   */
  read(request: Request): Promise<{ value: unknown; take: Take; release(): void }>;
}

/** Bodies of the largest size that are held at a time: while they are read, wait or are answered. */
const HELD_BODIES = 8;

export function createBodyReader(maxBytes: number): BodyReader {
  let held = 0;
  const tooLarge = () => new ApiError(413, `the request is larger than ${maxBytes} bytes`, { code: 'request_too_large' });

  async function read(request: Request) {
    const type = request.headers.get('content-type') ?? '';
    if (!/^application\/json\s*(;|$)/i.test(type))
      throw new ApiError(415, 'the body must be application/json', { code: 'unsupported_media_type' });
    if (Number(request.headers.get('content-length') ?? 0) > maxBytes) throw tooLarge();
    let size = 0;
    let isReleased = false;
    const release = () => {
      held -= size;
      size = 0;
      isReleased = true;
    };
    const take: Take = (bytes) => {
      // pictures that are still on their way when the request has failed would never be given back
      if (isReleased) throw new ApiError(503, 'the request has ended', { code: 'request_ended' });
      size += bytes;
      held += bytes;
      if (held > maxBytes * HELD_BODIES)
        throw new ApiError(503, 'the server holds too many requests; try again', { code: 'overloaded', retryAfter: 1 });
    };
    try {
      const chunks: Uint8Array[] = [];
      for await (const chunk of request.body ?? []) {
        if (size + chunk.length > maxBytes) throw tooLarge();
        take(chunk.length);
        chunks.push(chunk);
      }
      return { value: parse(Buffer.concat(chunks)), take, release };
    } catch (error) {
      release();
      if (error instanceof ApiError) throw error;
      throw new ApiError(400, 'the body ended before it was whole', { code: 'incomplete_body' });
    }
  }

  return { read };
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new ApiError(400, 'the body is not valid JSON in UTF-8', { code: 'invalid_json' });
  }
}
