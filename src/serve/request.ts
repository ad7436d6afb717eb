// The body of POST /v1/chat/completions: what OpenAI's API reference has, less what is not done here. Fields
// that would change the answer and are not followed are refused, as OpenAI does with fields it does not know.

import { z } from 'zod';
import { MAP_KINDS } from '../explain/explanation.ts';
import type { Turn } from '../text/chat.ts';
import { imageToken } from '../text/tokenizer.ts';
import type { Ask, ExplainAsk } from './ask.ts';
import { ApiError } from './errors.ts';

/** Pictures that one request may show, and texts that may end an answer. */
const MAX_STOPS = 4;

/** Messages of a request, and parts of all of them together. */
const MAX_MESSAGES = 4096;
const MAX_PARTS = 4096;
/** Entries of `metadata`, as OpenAI has it. */
const MAX_METADATA = 16;

/** A list whose length is looked at first: each element that is wrong costs memory until all are read. */
const atMost = <T extends z.ZodType>(most: number, element: T) => z.array(z.unknown()).max(most).pipe(z.array(element));

/** The same, of a list that must hold something. */
const someOf = <T extends z.ZodType>(most: number, element: T) =>
  atMost(most, element).refine((list) => list.length > 0, 'there must be one at least');

const empty = (value: unknown) => typeof value === 'object' && value !== null && Object.keys(value).length === 0;

const text = z.strictObject({ type: z.literal('text'), text: z.string() });
const image = z.strictObject({
  type: z.literal('image_url'),
  image_url: z.strictObject({ url: z.string(), detail: z.enum(['auto', 'low', 'high']).nullish() }),
});
const name = z.string().nullish();
const texts = z.union([z.string(), someOf(MAX_PARTS, text)]);

const nothing = z.custom(empty).nullish();
/** What an answer of ours, or of other servers, carries along when it is sent back as a message. */
const unusedInAnswers = { refusal: nothing, annotations: nothing, audio: nothing, function_call: nothing, tool_calls: nothing };

const message = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal(['system', 'developer']), content: texts, name }),
  z.strictObject({
    role: z.literal('user'),
    content: z.union([z.string(), someOf(MAX_PARTS, z.discriminatedUnion('type', [text, image]))]),
    name,
  }),
  z.strictObject({ role: z.literal('assistant'), content: texts, name, ...unusedInAnswers }),
]);
type Message = z.infer<typeof message>;

/** A number from 1, or what llama-server takes for no limit. */
const count = z.int().refine((value) => value >= 1 || value === -1, 'must be 1 or more, or -1 for no limit');

/** Tokens: the context ends first. */
const NO_LIMIT = 2 ** 31 - 1;

const penalty = z.number().min(0.01).max(10).nullish();

/** What is followed. */
const followed = {
  model: z.string(),
  messages: someOf(MAX_MESSAGES, message),
  max_tokens: count.nullish(),
  max_completion_tokens: count.nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().min(0).max(1).nullish(),
  /** Of llama-server and vLLM. */
  top_k: z.int().min(-1).nullish(),
  repetition_penalty: penalty,
  /** The same, as llama-server and Ollama call it. */
  repeat_penalty: penalty,
  seed: z.int().nullish(),
  stop: z.union([z.string().min(1), atMost(MAX_STOPS, z.string().min(1))]).nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.literal(false).nullish() }).nullish(),
};

const only = (...values: unknown[]) => z.custom((value) => values.includes(value));

/** What is taken where it changes nothing. */
const neutral: Record<string, z.ZodType> = {
  n: only(1),
  frequency_penalty: only(0),
  presence_penalty: only(0),
  logit_bias: z.custom(empty),
  response_format: z.strictObject({ type: z.literal('text') }),
  tools: z.custom(empty),
  tool_choice: only('none', 'auto'),
  modalities: z.tuple([z.literal('text')]),
  store: only(false),
  service_tier: only('auto', 'default'),
  parallel_tool_calls: z.boolean(),
  functions: z.custom(empty),
  function_call: only('none', 'auto'),
  reasoning_effort: only('none'),
  user: z.string(),
  // null alone
  ...Object.fromEntries(['audio', 'prediction', 'verbosity', 'web_search_options'].map((name) => [name, z.never()])),
  safety_identifier: z.string(),
  prompt_cache_key: z.string(),
  metadata: z
    .custom((value) => typeof value === 'object' && value !== null && Object.keys(value).length <= MAX_METADATA)
    .pipe(z.record(z.string(), z.string())),
  /** Of llama-server: what was read before is always used. */
  cache_prompt: only(true),
  /** Of llama-server, vLLM and Ollama, where they ask for nothing. */
  min_p: only(0),
  typical_p: only(1),
  chat_template_kwargs: z.custom(empty),
  keep_alive: z.union([z.string(), z.number()]),
};

const optionally = (fields: Record<string, z.ZodType>): Record<string, z.ZodType> =>
  Object.fromEntries(Object.entries(fields).map(([name, type]) => [name, type.nullish()]));
const optional = optionally(neutral);

const schema = z.strictObject({ ...followed, ...optional });

/** Parts of an answer that one request may have measured. */
const MAX_MEASURED = 16;

/** An explanation comes whole, and is of a whole answer: what asks for more is refused. */
const neutralInExplanations: Record<string, z.ZodType> = {
  stream: only(false),
  stop: z.custom((value) => Array.isArray(value) && value.length === 0),
  logprobs: only(false),
  top_logprobs: only(0),
};

const explainSchema = z.strictObject({
  ...followed,
  ...optional,
  ...optionally(neutralInExplanations),
  /** Ours: parts of the answer whose maps are measured. */
  faithfulness: atMost(MAX_MEASURED, z.int().min(0)).nullish(),
  /** Ours: which map of these parts. */
  measured_map: z.enum(MAP_KINDS).nullish(),
});

/** Where a picture is, and which field says so. */
export interface PictureSource {
  url: string;
  param: string;
}

export interface ChatRequest {
  model: string;
  /** The pictures are yet to be read. */
  ask: Omit<Ask, 'images'>;
  pictures: PictureSource[];
  stream: boolean;
  includeUsage: boolean;
}

export interface ExplainRequest extends Omit<ChatRequest, 'ask'> {
  ask: Omit<ExplainAsk, 'images'>;
}

/** Reads the body, parsed as JSON. ApiError 400 names the field that is wrong. */
export function parseChatRequest(body: unknown): ChatRequest {
  return chatRequestOf(parsedBy(schema, body, Object.keys(neutral)));
}

/**
 * The body of POST /v1/explain: that of a chat completion, which may end with the answer that is to be
 * explained. ApiError 400 as above.
 */
export function parseExplainRequest(body: unknown): ExplainRequest {
  const { faithfulness, measured_map, messages, ...data } = parsedBy(
    explainSchema,
    body,
    Object.keys({ ...neutral, ...neutralInExplanations }),
  );
  const last = messages.at(-1)!;
  const answer = last.role === 'assistant' ? wordsOf(last) : undefined;
  if (answer !== undefined && messages.length === 1) throw invalid(0, 'the question goes before its answer');
  const request = chatRequestOf({ ...data, messages: answer === undefined ? messages : messages.slice(0, -1) });
  return { ...request, ask: { ...request.ask, answer, faithfulness: faithfulness ?? [], measured: measured_map ?? 'relevancy' } };
}

/** `unfollowed` are the fields that are taken where they change nothing alone. */
function parsedBy<T>(type: z.ZodType<T>, body: unknown, unfollowed: readonly string[]): T {
  checkParts(body);
  const parsed = type.safeParse(body);
  if (!parsed.success) throw refusalOf(parsed.error.issues[0], body, unfollowed);
  return parsed.data;
}

/** All parts together are few: those of each message may be, and still be too many to look at. */
function checkParts(body: unknown): void {
  const { messages } = (body ?? {}) as { messages?: unknown };
  if (!Array.isArray(messages) || messages.length > MAX_MESSAGES) return;
  const partsOf = (content: unknown) => (Array.isArray(content) ? content.length : 0);
  const parts = messages.reduce<number>((sum, each) => sum + partsOf((each as { content?: unknown } | null)?.content), 0);
  if (parts > MAX_PARTS)
    throw new ApiError(400, `Invalid 'messages': they have ${parts} parts, more than the ${MAX_PARTS} that are taken.`, {
      param: 'messages',
      code: 'invalid_value',
    });
}

function chatRequestOf(data: z.infer<typeof schema>): ChatRequest {
  if (data.max_tokens && data.max_completion_tokens && data.max_tokens !== data.max_completion_tokens)
    throw new ApiError(400, "Give 'max_completion_tokens' or 'max_tokens', not both.", { param: 'max_tokens', code: 'invalid_value' });
  if (data.top_logprobs && !data.logprobs)
    throw new ApiError(400, "'top_logprobs' is for requests with 'logprobs': true.", { param: 'top_logprobs', code: 'invalid_value' });
  if (data.stream_options && !data.stream)
    throw new ApiError(400, "'stream_options' is for requests with 'stream': true.", { param: 'stream_options', code: 'invalid_value' });
  const { turns, pictures } = layOut(data.messages);
  const { temperature, top_p, top_k, repetition_penalty, repeat_penalty, seed } = data;
  if (repetition_penalty && repeat_penalty && repetition_penalty !== repeat_penalty)
    throw new ApiError(400, "Give 'repetition_penalty' or 'repeat_penalty', not both.", { param: 'repeat_penalty', code: 'invalid_value' });
  const most = data.max_completion_tokens ?? data.max_tokens ?? undefined;
  return {
    model: data.model,
    ask: {
      turns,
      maxNewTokens: most === -1 ? NO_LIMIT : most,
      sampling: {
        temperature: temperature ?? undefined,
        topP: top_p ?? undefined,
        topK: top_k === -1 ? 0 : (top_k ?? undefined),
        repetitionPenalty: repetition_penalty ?? repeat_penalty ?? undefined,
        seed: seed ?? undefined,
      },
      stop: [data.stop ?? []].flat(),
      logprobs: data.logprobs ? (data.top_logprobs ?? 0) : undefined,
    },
    pictures,
    stream: data.stream ?? false,
    includeUsage: data.stream_options?.include_usage ?? false,
  };
}

// === Messages ===

/**
 * The turns that a template of strict alternation takes. Words of the system go before those of the question
 * that follows, as Gemma 3's template puts them; messages of one role that follow each other are one turn;
 * pictures stand before the words of their message, as in LLaVA's data.
 */
function layOut(messages: readonly Message[]): { turns: Turn[]; pictures: PictureSource[] } {
  const pictures = messages.flatMap((message, i) => picturesOf(message, i));
  const turns: Turn[] = [];
  let system: string[] = [];
  messages.forEach((message, i) => {
    const words = wordsOf(message);
    if (pictures.length > 0 && words.includes(imageToken))
      throw invalid(i, `leave ${imageToken} out of the text: pictures are parts of type "image_url"`);
    if (message.role === 'system' || message.role === 'developer') {
      system.push(words);
      return;
    }
    const from = message.role === 'user' ? 'human' : 'gpt';
    if (from === 'gpt' && turns.length === 0) throw invalid(i, 'the conversation begins with a message of the user');
    const places = `${imageToken}\n`.repeat(picturesOf(message, i).length);
    const value = places + [...(from === 'human' ? system : []), words].join('\n\n');
    if (from === 'human') system = [];
    const last = turns.at(-1);
    if (last?.from === from) last.value += `\n\n${value}`;
    else turns.push({ from, value });
  });
  if (turns.at(-1)?.from !== 'human' || system.length > 0)
    throw invalid(messages.length - 1, 'the conversation ends with a message of the user');
  return { turns, pictures };
}

function wordsOf({ content }: Message): string {
  if (typeof content === 'string') return content;
  return content.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('\n');
}

function picturesOf({ content }: Message, at: number): PictureSource[] {
  if (typeof content === 'string') return [];
  return content.flatMap((part, i) =>
    part.type === 'image_url' ? [{ url: part.image_url.url, param: `messages[${at}].content[${i}].image_url.url` }] : [],
  );
}

const invalid = (at: number, what: string) =>
  new ApiError(400, `Invalid 'messages[${at}]': ${what}.`, { param: `messages[${at}]`, code: 'invalid_value' });

// === Refusals ===

type Issue = z.core.$ZodIssue;

const nameOf = (path: readonly PropertyKey[]) =>
  path.map((part, i) => (typeof part === 'number' ? `[${part}]` : `${i > 0 ? '.' : ''}${String(part)}`)).join('');

/** The deepest complaint: of the forms that a value may have, the one that it comes nearest to. */
function deepest(issue: Issue, path: readonly PropertyKey[] = []): { issue: Issue; path: PropertyKey[] } {
  const at = [...path, ...issue.path];
  if (issue.code !== 'invalid_union') return { issue, path: at };
  const inner = issue.errors.flatMap(([first]) => (first ? [deepest(first, at)] : []));
  const best = inner.toSorted((a, b) => b.path.length - a.path.length)[0];
  return best && best.path.length > at.length ? best : { issue, path: at };
}

function refusalOf(top: Issue, body: unknown, unfollowed: readonly string[]): ApiError {
  const { issue, path } = deepest(top);
  if (issue.code === 'unrecognized_keys') {
    const param = nameOf([...path, issue.keys[0]]).slice(0, 200);
    return new ApiError(400, `Unknown parameter: '${param}'.`, { param, code: 'unknown_parameter' });
  }
  const param = nameOf(path);
  if (path.length === 0) return new ApiError(400, 'The body must be a JSON object.', { code: 'invalid_type' });
  const value = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], body);
  if (value === undefined)
    return new ApiError(400, `Missing required parameter: '${param}'.`, { param, code: 'missing_required_parameter' });
  if (unfollowed.includes(String(path[0]))) {
    const message = `Unsupported value: '${param}' cannot be followed by this server; leave it out.`;
    return new ApiError(400, message, { param, code: 'unsupported_parameter' });
  }
  const code = issue.code === 'invalid_type' || issue.code === 'invalid_union' ? 'invalid_type' : 'invalid_value';
  return new ApiError(400, `Invalid value for '${param}': ${issue.message}.`, { param, code });
}
