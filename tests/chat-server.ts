// An OpenAI-compatible endpoint on this machine, for tests: its answers, and the ways in which it fails.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

// biome-ignore lint/suspicious/noExplicitAny: whatever was sent
export type ChatRequest = any;

/** What to do with a request instead of answering it. */
export type Trouble = { status: number; body?: string; headers?: Record<string, string> } | 'break' | 'cut' | 'silence';

export interface ChatServer {
  url: string;
  /** Bodies of the requests for completions, in the order in which they came. */
  asked: ChatRequest[];
  authorizations: (string | undefined)[];
  /** Most requests that were under way at once. */
  mostAtOnce: number;
  /** Spent one a request, before anything is answered. */
  troubles: Trouble[];
  models: string[];
  /** The answer; a promise keeps the request waiting. */
  answer(request: ChatRequest): string | null | Promise<string | null>;
  close(): Promise<void>;
}

/** The text of a request's last message, without its pictures. */
export const textOf = ({ messages }: ChatRequest): string => {
  const { content } = messages.at(-1);
  if (typeof content === 'string') return content;
  return content.flatMap((part: { text?: string }) => (part.text === undefined ? [] : [part.text])).join('\n');
};

const bodyOf = async (request: IncomingMessage) => {
  let text = '';
  for await (const piece of request.setEncoding('utf8')) text += piece;
  return text === '' ? undefined : JSON.parse(text);
};

export async function startChatServer(answer: ChatServer['answer'] = () => 'yes'): Promise<ChatServer> {
  let underWay = 0;
  const http = createServer(async (request, response) => {
    underWay++;
    server.mostAtOnce = Math.max(server.mostAtOnce, underWay);
    response.on('close', () => underWay--);
    await respond(request, response).catch(() => response.destroy());
  });

  async function respond(request: IncomingMessage, response: ServerResponse) {
    const send = (body: unknown, status = 200, headers: Record<string, string> = {}) => {
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    };
    server.authorizations.push(request.headers.authorization);
    const body = await bodyOf(request);
    if (request.url === '/v1/models') return send({ object: 'list', data: server.models.map((id) => ({ id, object: 'model' })) });
    if (request.url !== '/v1/chat/completions') return send({ error: { message: `no route ${request.url}`, code: null } }, 404);
    server.asked.push(body);
    const trouble = server.troubles.shift();
    if (trouble === 'silence') return;
    if (trouble === 'break') return request.socket.destroy();
    if (trouble === 'cut') {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' });
      response.write('{"choices": [');
      return void setTimeout(() => request.socket.destroy(), 5);
    }
    if (trouble) return send(trouble.body ?? { error: { message: 'not now' } }, trouble.status, trouble.headers);
    const content = await server.answer(body);
    send({
      id: 'chatcmpl-1',
      object: 'chat.completion',
      model: `${body.model}-0001`,
      choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
      usage: { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 },
    });
  }

  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const server: ChatServer = {
    url: `http://127.0.0.1:${(http.address() as AddressInfo).port}/v1`,
    asked: [],
    authorizations: [],
    mostAtOnce: 0,
    troubles: [],
    models: ['tester'],
    answer,
    close: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
  return server;
}
