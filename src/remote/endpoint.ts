// A model behind an OpenAI-compatible endpoint (POST /chat/completions): vLLM, llama.cpp, Ollama, LM Studio,
// TGI, OpenAI itself. Trouble that passes is waited for, replies are kept on disk, and so many requests are
// under way at a time.

import { setTimeout as pause } from 'node:timers/promises';
import { z } from 'zod';
import { mapConcurrently } from '../concurrent.ts';
import { UserError } from '../errors.ts';
import { isTransientStatus, networkErrorOf, persist, retryAfterOf, TransientError } from '../retry.ts';
import { type ChatPrompt, readPrompt } from './chat-messages.ts';
import { openReplyCache, REPLIES_FOLDER } from './reply-cache.ts';

/** The environment variable that holds the key, as in OpenAI's own software. */
export const KEY_VARIABLE = 'OPENAI_API_KEY';

/** Seconds to wait before each further try. */
const PAUSES = [1, 2, 4, 8, 16, 32];
const TIMEOUT_SECONDS = 180;
const CONCURRENCY = 8;
/** Characters of a server's words in a message. */
const QUOTED = 300;

export interface EndpointOptions {
  /** `http://localhost:8000/v1`; of an address without a path, `/v1` is meant. */
  url: string;
  /** Default: the only one that the endpoint has. */
  model?: string;
  /** It is sent, and shown nowhere. Default: `OPENAI_API_KEY`. */
  apiKey?: string;
  /** Seconds within which a whole reply must have come, at most 300. Default: 180. */
  timeout?: number;
  /** Requests under way at a time. Default: 8. */
  concurrency?: number;
  /** Seconds to wait before each further try. Default: 1, 2, 4, ... 32. */
  pauses?: readonly number[];
  /** Folder of the replies that are kept; `false`: none are. Default: `.cache/replies`. */
  cache?: string | false;
  signal?: AbortSignal;
  onPause?(reason: string, seconds: number): void;
  /** Told of what is asked otherwise than it was meant to be. */
  onNote?(text: string): void;
}

export interface ReplyOptions {
  /** Longest reply in tokens. */
  maxTokens: number;
  /** Default: 0. */
  temperature?: number;
  /** Asks the same once more: replies to different runs are kept apart. Default: 1. */
  run?: number;
}

const replySchema = z.object({
  /** As it came, white space included. */
  text: z.string(),
  /** `stop`, or `length` where it was cut off. */
  finish: z.string().optional(),
  /** What the endpoint calls the model that answered. */
  model: z.string().optional(),
  /** As the endpoint counts, where it does. */
  promptTokens: z.number().optional(),
  completionTokens: z.number().optional(),
});

export interface Reply extends z.infer<typeof replySchema> {
  /** It was kept from an earlier run: nothing was asked. */
  cached: boolean;
}

export interface Endpoint {
  /** Address and model, for reports. */
  readonly name: string;
  readonly model: string;
  /**
   * UserError for what the endpoint refuses, for trouble that does not pass, and for a prompt with pictures
   * that cannot be read.
   */
  reply(prompt: ChatPrompt, options: ReplyOptions): Promise<Reply>;
  /**
   * Replies in the order of the prompts; a function gives one when its turn comes. After an error nothing
   * more is begun; what was under way is kept. `onReply` hears of each as it comes, in no order.
   */
  replyAll(
    prompts: readonly (ChatPrompt | (() => Promise<ChatPrompt>))[],
    options: ReplyOptions & { onReply?(index: number, reply: Reply): void },
  ): Promise<Reply[]>;
}

const completionSchema = z.looseObject({
  model: z.string().optional(),
  choices: z
    .array(
      z.looseObject({
        message: z.looseObject({
          content: z.union([z.string(), z.array(z.looseObject({ text: z.string().optional() }))]).nullish(),
        }),
        finish_reason: z.string().nullish(),
      }),
    )
    .min(1),
  usage: z.looseObject({ prompt_tokens: z.number().optional(), completion_tokens: z.number().optional() }).nullish(),
});

const modelsSchema = z.looseObject({ data: z.array(z.looseObject({ id: z.string() })) });
/** OpenAI's form, and the plainer ones of others. */
const errorSchema = z.union([
  z.looseObject({ error: z.looseObject({ message: z.string(), code: z.union([z.string(), z.number()]).nullish() }) }),
  z.looseObject({ error: z.string() }).transform(({ error }) => ({ error: { message: error, code: undefined } })),
]);

/** The address that requests are below. UserError, which shows no password, for one that is none. */
function baseOf(url: string): URL {
  if (!/^https?:\/\/[^/]/i.test(url) || !URL.canParse(url))
    throw new UserError('the address of an endpoint must be like http://localhost:8000/v1');
  const base = new URL(url);
  if (base.username !== '' || base.password !== '')
    throw new UserError(`the address of ${base.host} has a name or password in it; put the key into ${KEY_VARIABLE}`);
  base.pathname = base.pathname.replace(/\/+$/, '').replace(/\/chat\/completions$/, '') || '/v1';
  return base;
}

function keyOf(given: string | undefined): string | undefined {
  const key = (given ?? process.env[KEY_VARIABLE])?.trim();
  // fetch would refuse it, and show it in its message
  if (key && !/^[\x21-\x7e]+$/.test(key)) throw new UserError(`${KEY_VARIABLE} holds characters that no key has; copy it again`);
  return key || undefined;
}

type Send = (path: string, body?: object) => Promise<unknown>;

/** One request: the JSON that comes back, or an error that says whether trying again is worthwhile. */
function createSender(base: URL, shown: string, options: EndpointOptions): Send {
  const { timeout = TIMEOUT_SECONDS, signal } = options;
  const key = keyOf(options.apiKey);
  const quoted = (text: string) => (key === undefined ? text : text.replaceAll(key, '***')).trim().slice(0, QUOTED);
  // before the first proper answer, what looks like a wrong address is one
  let answered = false;

  function refusal(status: number, headers: Headers, text: string): Error {
    const words = errorSchema.safeParse(parseJson(text)).data?.error.message;
    const message = quoted(words ?? text) || 'nothing more is said';
    if (isTransientStatus(status)) return new TransientError(`${shown} answers with status ${status}: ${message}`, retryAfterOf(headers));
    if (status === 401 || status === 403)
      return new UserError(
        key === undefined ? `${shown} wants a key: set ${KEY_VARIABLE}` : `${shown} refuses the key (${KEY_VARIABLE}): ${message}`,
      );
    if (status >= 300 && status < 400) return new UserError(`${shown} sends on to ${headers.get('location')}: give that address`);
    return new EndpointRefusal(`${shown} refuses with status ${status}: ${message}`, status, words);
  }

  return async (path, body) => {
    const url = new URL(base);
    url.pathname += path;
    const headers: Record<string, string> = { accept: 'application/json', 'user-agent': 'llava-gemma' };
    if (key !== undefined) headers.authorization = `Bearer ${key}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    const silence = AbortSignal.timeout(timeout * 1000);
    let response: Response;
    let text: string;
    try {
      response = await fetch(url, {
        method: body === undefined ? 'GET' : 'POST',
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        // a key goes nowhere but where it was meant to go
        redirect: 'manual',
        signal: signal ? AbortSignal.any([signal, silence]) : silence,
      });
      text = await response.text();
    } catch (error) {
      signal?.throwIfAborted();
      if (silence.aborted) throw new TransientError(`${shown} gave no answer within ${timeout} seconds`);
      const { code, message } = networkErrorOf(error);
      const isNowhere = !answered && (code === 'ECONNREFUSED' || code === 'ENOTFOUND');
      if (isNowhere) throw new UserError(`cannot reach ${shown}: ${quoted(message)}`);
      throw new TransientError(`the connection to ${shown} broke: ${quoted(message)}`);
    }
    if (!response.ok) throw refusal(response.status, response.headers, text);
    const value = parseJson(text);
    const { data: failed } = errorSchema.safeParse(value);
    // some that pass requests on answer 200 whatever came back to them
    if (failed) throw refusal(Number(failed.error.code) || 400, response.headers, text);
    if (value === undefined) {
      const message = `${shown} does not answer as OpenAI's API does: ${quoted(text) || 'with nothing'}`;
      throw answered ? new TransientError(message) : new UserError(message);
    }
    answered = true;
    return value;
  };
}

/** The endpoint understood, and will not. */
export class EndpointRefusal extends UserError {
  readonly status: number;
  /** Its own words, as they came, where it has the form of an error: a key may be in them. */
  readonly words: string | undefined;
  constructor(message: string, status: number, words: string | undefined) {
    super(message);
    this.status = status;
    this.words = words;
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function replyOf(value: unknown, shown: string): z.infer<typeof replySchema> {
  const parsed = completionSchema.safeParse(value);
  if (!parsed.success)
    throw new UserError(`${shown} does not answer as OpenAI's API does: ${z.prettifyError(parsed.error).split('\n')[0]}`);
  const { choices, model, usage } = parsed.data;
  const [{ message, finish_reason }] = choices;
  const { content } = message;
  return {
    text: typeof content === 'string' ? content : (content ?? []).map(({ text = '' }) => text).join(''),
    finish: finish_reason ?? undefined,
    model,
    promptTokens: usage?.prompt_tokens,
    completionTokens: usage?.completion_tokens,
  };
}

/** Runs so much work at a time; the rest waits in line. */
function createLimit(count: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = [];
  let free = count;
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else free++;
    }
  };
}

/** The only model of an endpoint. UserError where there are several, or where it does not say. */
async function onlyModel(send: Send, shown: string): Promise<string> {
  const models = modelsSchema.safeParse(await send('/models')).data?.data.map(({ id }) => id) ?? [];
  if (models.length === 1) return models[0];
  const listed = models.length > 10 ? `${models.slice(0, 10).join(', ')}, ...` : models.join(', ');
  throw new UserError(`${shown} has ${models.length === 0 ? 'no list of models' : `several models (${listed})`}: name the one to ask`);
}

/**
 * Opens an endpoint. UserError for a malformed address or key, and, where no model is named, for an endpoint
 * that has not exactly one.
 */
export async function openEndpoint(options: EndpointOptions): Promise<Endpoint> {
  const { concurrency = CONCURRENCY, pauses = PAUSES, cache = REPLIES_FOLDER, signal } = options;
  const base = baseOf(options.url);
  const shown = `${base.origin}${base.pathname}`;
  const send = createSender(base, shown, options);
  const limit = createLimit(concurrency);
  const kept = cache === false ? undefined : openReplyCache(cache, replySchema);
  const gaveUp = (reason: string, tries: number) =>
    new UserError(`${reason}, ${tries} times${kept ? '; replies so far are kept, and the same command goes on from there' : ''}`);

  /** When the endpoint asks one request to wait, all wait. */
  let heldUntil = 0;
  const sendPersistently: Send = (path, body) =>
    persist(
      async () => {
        for (let wait = heldUntil - Date.now(); wait > 0; wait = heldUntil - Date.now())
          await pause(wait, undefined, { signal }).catch(() => signal?.throwIfAborted());
        try {
          return await send(path, body);
        } catch (error) {
          if (error instanceof TransientError) heldUntil = Math.max(heldUntil, Date.now() + error.retryAfter * 1000);
          throw error;
        }
      },
      { pauses, signal, onPause: options.onPause, gaveUp },
    );

  const model = options.model ?? (await onlyModel(sendPersistently, shown));
  /** OpenAI's reasoning models have another name for it, and say so; they take no temperature. */
  let limitField = 'max_tokens';
  let takesTemperature = true;

  async function complete(body: object, maxTokens: number, temperature: number | undefined): Promise<unknown> {
    const field = limitField;
    const sampling = temperature !== undefined && takesTemperature ? { temperature } : {};
    try {
      return await sendPersistently('/chat/completions', { ...body, ...sampling, [field]: maxTokens });
    } catch (error) {
      const words = (error instanceof EndpointRefusal && error.words) || '';
      if (field === 'max_tokens' && /max_completion_tokens/.test(words)) {
        limitField = 'max_completion_tokens';
        return complete(body, maxTokens, temperature);
      }
      if (!('temperature' in sampling) || !/temperature/i.test(words)) throw error;
      const answered = await complete(body, maxTokens, undefined);
      // it was that, and not a text of the prompt's that is quoted
      if (takesTemperature) options.onNote?.(`${model} takes no temperature of ${temperature}: it answers with its own`);
      takesTemperature = false;
      return answered;
    }
  }

  const reply = (prompt: ChatPrompt, { maxTokens, temperature = 0, run = 1 }: ReplyOptions): Promise<Reply> =>
    limit(async () => {
      signal?.throwIfAborted();
      const { identity, messages } = await readPrompt(prompt);
      const request = { endpoint: base.href, model, ...identity, maxTokens, temperature, run };
      const known = await kept?.find(request);
      if (known) return { ...known, cached: true };
      const body = { model, messages: await messages() };
      const fresh = replyOf(await complete(body, maxTokens, temperature), shown);
      await kept?.keep(request, fresh);
      return { ...fresh, cached: false };
    });

  return {
    name: `${shown} ${model}`,
    model,
    reply,
    replyAll: (prompts, { onReply, ...options }) =>
      mapConcurrently(prompts, concurrency, async (prompt, index) => {
        const one = await reply(typeof prompt === 'function' ? await prompt() : prompt, options);
        onReply?.(index, one);
        return one;
      }),
  };
}
