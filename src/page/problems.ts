// What can go wrong, in sentences for those who ask.

/** Kinds that the page does something about; all others are only said. */
export type ProblemKind = 'away' | 'key' | 'other';

/** A problem whose message is a sentence. */
export class Problem extends Error {
  override name = 'Problem';
  readonly kind: ProblemKind;

  constructor(kind: ProblemKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** The server's `code`s (docs/serve.md) whose own words say less than can be said here. */
const SENTENCES: Record<string, string> = {
  queue_full: 'Too many questions are waiting already. Ask again in a moment.',
  overloaded: 'The server holds too many pictures at the moment. Ask again in a moment.',
  loading: 'The model is still being loaded. Ask again in a moment.',
  worker_died: 'The model stopped unexpectedly and is being started again. Ask once more in a moment.',
  model_unavailable: 'This model cannot be loaded; the server’s log says why. Choose another one.',
  model_not_found: 'The server no longer has this model. Load the page again to see those that it has.',
  shutting_down: 'The server is shutting down. Ask again when it is back.',
  request_too_large: 'The picture is too large a file for this server. Choose or make a smaller one.',
  invalid_image_format: 'The server reads pictures in PNG, JPEG, WebP or GIF, and this is none of these.',
  context_length_exceeded: 'The conversation has become too long for the model. Begin a new one.',
};

/** First letter large, a full stop at the end. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** A problem from what the server answered, an error in OpenAI's form or anything else. */
export function problemOf(status: number, body: unknown): Problem {
  const { code, message } = (body as { error?: { code?: unknown; message?: unknown } } | undefined)?.error ?? {};
  if (status === 401 || code === 'invalid_api_key') return new Problem('key', 'The server asks for an API key.');
  if (typeof code === 'string' && Object.hasOwn(SENTENCES, code)) return new Problem('other', SENTENCES[code]);
  if (typeof message === 'string' && message !== '') return new Problem('other', sentence(message));
  if (status === 413) return new Problem('other', SENTENCES.request_too_large);
  return new Problem('other', `The server answered with an error (status ${status}).`);
}

export const serverAway = () => new Problem('away', 'The server cannot be reached. Is it still running?');
export const brokenOff = () => new Problem('away', 'The connection broke before the answer was whole.');
