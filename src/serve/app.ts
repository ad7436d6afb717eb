// The HTTP API: OpenAI's chat completions for the models that are served, and what operators look at. It
// knows nothing of processes or sockets: tests call it as clients would.

import { Hono } from 'hono';
import type { Ask, ServedModel } from './ask.ts';
import { type BodyReader, createBodyReader } from './body.ts';
import { answerWhole, answerWithEvents } from './chat.ts';
import { ApiError, toApiError } from './errors.ts';
import type { KeyCheck } from './keys.ts';
import type { LogEntry, RequestRecord } from './log.ts';
import { METRICS_TYPE } from './metrics.ts';
import { type PageFiles, pageResponse } from './page-files.ts';
import { type PictureLimits, readPictures } from './pictures.ts';
import { type ChatRequest, parseChatRequest, parseExplainRequest } from './request.ts';
import type { ServerMetrics } from './server-metrics.ts';

export interface AppOptions {
  /** At least one. */
  models: readonly ServedModel[];
  metrics: ServerMetrics;
  /** What is served at `/`, to everybody. */
  page: PageFiles;
  /** Everybody is served when absent. */
  isAllowed?: KeyCheck;
  pictures: PictureLimits;
  /** Bytes of a request. */
  maxBody: number;
  /** Milliseconds after which a client that reads nothing is let go. */
  stall: number;
  /** Whether the server is about to end: it takes no more requests. */
  isDraining(): boolean;
  log?(entry: LogEntry): void;
}

const OPEN_PATHS = ['/health', '/v1/health'];
/** Routes that are counted by their names: what others ask for must not fill the memory of the metrics. */
const ROUTES = [...OPEN_PATHS, '/metrics', '/v1/models', '/v1/chat/completions', '/v1/explain'];

interface Env {
  Variables: { record: RequestRecord; isHandedOn: boolean };
}

export function createApp(options: AppOptions): Hono<Env> {
  const { models, metrics, page, isAllowed, isDraining } = options;
  const bodies = createBodyReader(options.maxBody);
  const app = new Hono<Env>();

  // nothing of it is secret, and a browser asks for it before anybody could type a key
  for (const [path, file] of page) app.get(path, (c) => pageResponse(file, c.req.header('if-none-match')));

  app.use(async (c, next) => {
    const { method, path } = c.req;
    const start = performance.now();
    const finish: RequestRecord['finish'] = (entry) => {
      const ms = performance.now() - start;
      const route = ROUTES.includes(path) ? path : 'other';
      metrics.requests.add(1, { route, status: String(entry.status) });
      // who only looks, does so again and again: pages, and what collects metrics
      if (method !== 'GET' || entry.status >= 400) options.log?.({ method, path, ms, ...entry });
    };
    c.set('record', { start, finish });
    await next();
    // an answer that is streamed ends later
    if (!c.get('isHandedOn')) finish({ status: c.res.status });
  });

  app.use(async (c, next) => {
    if (isAllowed && !OPEN_PATHS.includes(c.req.path) && !isAllowed(c.req.header('authorization')))
      throw new ApiError(401, 'Incorrect API key provided: give one as Authorization: Bearer <key>.', { code: 'invalid_api_key' });
    await next();
  });

  for (const path of OPEN_PATHS)
    app.get(path, () => {
      const asked = models.filter(({ state }) => state !== 'idle');
      const isReady = asked.length > 0 && asked.every(({ state }) => state === 'ready');
      if (isDraining()) throw new ApiError(503, 'the server is shutting down', { code: 'shutting_down' });
      if (!isReady) throw new ApiError(503, 'Loading model', { code: 'loading', retryAfter: 1 });
      return Response.json({ status: 'ok' });
    });

  app.get('/metrics', () => new Response(metrics.text(), { headers: { 'Content-Type': METRICS_TYPE } }));
  app.get('/v1/models', () => Response.json({ object: 'list', data: models.map(describe) }));
  app.get('/v1/models/:id{.+}', (c) => Response.json(describe(modelNamed(models, c.req.param('id')))));

  app.post('/v1/chat/completions', async (c) => {
    const { signal } = c.req.raw;
    const { request, model, ask, release } = await readAsk(c.req.raw, bodies, options, parseChatRequest);
    const record = c.get('record');
    c.set('isHandedOn', true);
    const context = { model, ask, signal, metrics, record, stall: options.stall };
    return request.stream ? answerWithEvents(context, request.includeUsage, release) : answerWhole(context).finally(release);
  });

  app.post('/v1/explain', async (c) => {
    const { model, ask, release } = await readAsk(c.req.raw, bodies, options, parseExplainRequest);
    return Response.json(await model.explain(ask, c.req.raw.signal).finally(release));
  });

  for (const path of ROUTES)
    app.all(path, (c) => {
      throw new ApiError(405, `${c.req.method} ${path} is not served here`, { code: 'not_served' });
    });
  app.notFound((c) =>
    new ApiError(404, `Unknown request URL: ${c.req.method} ${c.req.path.slice(0, 200)}`, { code: 'unknown_url' }).response(),
  );
  app.onError((error) => {
    if (!(error instanceof ApiError)) console.error(error);
    return toApiError(error).response();
  });
  return app;
}

/** Reads a request for an answer, pictures included. `release` is to be called when it is answered. */
async function readAsk<A extends Omit<Ask, 'images'>, R extends Omit<ChatRequest, 'ask'> & { ask: A }>(
  raw: Request,
  bodies: BodyReader,
  { models, pictures, isDraining }: AppOptions,
  parse: (body: unknown) => R,
): Promise<{ request: R; model: ServedModel; ask: R['ask'] & Pick<Ask, 'images'>; release(): void }> {
  if (isDraining()) throw new ApiError(503, 'the server is shutting down', { code: 'shutting_down', retryAfter: 5 });
  const { value, release } = await bodies.read(raw);
  try {
    const request = parse(value);
    const model = modelNamed(models, request.model);
    const images = await readPictures(request.pictures, pictures, raw.signal);
    return { request, model, ask: { ...request.ask, images }, release };
  } catch (error) {
    release();
    throw error;
  }
}

function modelNamed(models: readonly ServedModel[], id: string): ServedModel {
  const model = models.find((model) => model.id === id);
  if (!model) {
    const known = models.map(({ id }) => id).join(', ');
    throw new ApiError(404, `The model '${id.slice(0, 200)}' does not exist; there is ${known}.`, {
      param: 'model',
      code: 'model_not_found',
    });
  }
  return model;
}

function describe({ id, created, state, details }: ServedModel) {
  return {
    id,
    object: 'model',
    created,
    owned_by: 'llava-gemma',
    architecture: { input_modalities: ['text', 'image'], output_modalities: ['text'] },
    status: state,
    meta: details ? { n_ctx: details.contextLength, n_params: details.parameters, image_tokens: details.imageTokens } : null,
  };
}
