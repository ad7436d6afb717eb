// The server as the one who answers: OpenAI's chat completions, and our own explanations.

import type { AnswerEvent, AnswerExplanation, ModelInfo, Question, ServerAnswerer } from './answerer.ts';
import { brokenOff, Problem, problemOf, serverAway } from './problems.ts';
import { serverEvents } from './server-events.ts';

/** The part of a chunk that is read. */
interface Chunk {
  choices?: { delta: { content?: string }; finish_reason: 'stop' | 'length' | null }[];
  usage?: { completion_tokens: number } | null;
  error?: object;
}

/** A file as a data URI. */
function dataUri(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(new Problem('other', 'The picture cannot be read any more. Choose it again.'));
    reader.readAsDataURL(file);
  });
}

/** A model in the server's list. */
interface Listed {
  id: string;
  status: ModelInfo['state'];
  files?: string[];
  quantize?: ModelInfo['quantize'];
}

export function createHttpAnswerer(base = ''): ServerAnswerer {
  let key = '';
  /** The last picture as it is sent: a conversation shows one again and again. */
  let encoded: { picture: Blob; uri: Promise<string> } | undefined;

  function uriOf(picture: Blob): Promise<string> {
    if (encoded?.picture !== picture) encoded = { picture, uri: dataUri(picture) };
    return encoded.uri;
  }

  const credentials = (): Record<string, string> => (key === '' ? {} : { Authorization: `Bearer ${key}` });

  /** Asks the server; a Problem for every status but 200. */
  async function request(path: string, signal: AbortSignal, body?: object): Promise<Response> {
    const headers = { ...credentials(), ...(body ? { 'Content-Type': 'application/json' } : {}) };
    const options = body ? { method: 'POST', body: JSON.stringify(body) } : {};
    const response = await fetch(base + path, { ...options, headers, signal }).catch((error: unknown) => {
      signal.throwIfAborted();
      throw error instanceof TypeError ? serverAway() : error;
    });
    if (response.ok) return response;
    throw problemOf(response.status, await response.json().catch(() => undefined));
  }

  async function bodyOf({ model, messages, picture, settings }: Question, answer?: string): Promise<object> {
    const { temperature, maxTokens, seed } = settings;
    const image = picture && { type: 'image_url', image_url: { url: await uriOf(picture) } };
    const told = messages.map(({ role, text }, i) => ({
      role,
      content: image && i === 0 ? [image, { type: 'text', text }] : text,
    }));
    return {
      model,
      messages: answer === undefined ? told : [...told, { role: 'assistant', content: answer }],
      temperature,
      max_tokens: maxTokens,
      seed,
    };
  }

  async function* answer(question: Question, signal: AbortSignal): AsyncGenerator<AnswerEvent> {
    const body = { ...(await bodyOf(question)), stream: true, stream_options: { include_usage: true } };
    const { body: stream } = await request('/v1/chat/completions', signal, body);
    let finish: 'stop' | 'length' = 'stop';
    let tokens = 0;
    try {
      for await (const data of serverEvents(stream!)) {
        if (data === '[DONE]') {
          yield { type: 'end', finish, tokens };
          return;
        }
        const { choices = [], usage, error } = JSON.parse(data) as Chunk;
        if (error) throw problemOf(200, { error });
        tokens = usage?.completion_tokens ?? tokens;
        finish = choices[0]?.finish_reason ?? finish;
        const text = choices[0]?.delta.content;
        if (text) yield { type: 'text', text };
      }
    } catch (error) {
      signal.throwIfAborted();
      throw error instanceof TypeError ? brokenOff() : error;
    }
    throw brokenOff();
  }

  return {
    answer,
    async models(signal) {
      const { data } = (await (await request('/v1/models', signal)).json()) as { data: Listed[] };
      return data.map(({ id, status, files, quantize }) => ({ id, state: status, files, quantize }));
    },
    async explain(question, answer, { parts, kind }, signal) {
      const body = { ...(await bodyOf(question, answer)), faithfulness: parts, measured_map: kind };
      return (await (await request('/v1/explain', signal, body)).json()) as AnswerExplanation;
    },
    async memory(signal) {
      const text = await (await request('/metrics', signal)).text();
      const lines = [...text.matchAll(/^llava_gemma_resident_memory_bytes\{.*\} (\S+)$/gm)];
      return lines.length === 0 ? undefined : lines.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
    },
    identify(given) {
      key = given;
    },
    credentials,
  };
}
