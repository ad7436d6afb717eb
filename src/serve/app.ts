// The HTTP API: OpenAI's chat completions for the models that are served, and what operators look at. It
// knows nothing of processes or sockets: tests call it as clients would.

import { Hono } from 'hono';
import type { Ask, ServedModel } from './ask.ts';
import { type BodyReader, createBodyReader } from './body.ts';
import { answerWhole, answerWithEvents, leftBy } from './chat.ts';
import { diskFileResponse } from './disk-files.ts';
import { ApiError, toApiError } from './errors.ts';
import type { KeyCheck } from './keys.ts';
import type { LogEntry, RequestRecord } from './log.ts';
import { METRICS_TYPE } from './metrics.ts';
import { PAGE_HEADERS, type PageFiles, pageResponse } from './page-files.ts';
import { type PictureLimits, readPictures } from './pictures.ts';
import { type ChatRequest, parseChatRequest, parseExplainRequest } from './request.ts';
import type { ServerMetrics } from './server-metrics.ts';
import type { TabFiles } from './tab-files.ts';

export interface AppOptions {
  /** At least one. */
  models: readonly ServedModel[];
  metrics: ServerMetrics;
  /** What is served at `/`, to everybody. */
  page: PageFiles;
  /** What models in the tab of a browser need; no model is offered there when absent. */
  tab?: TabFiles;
  /** Everybody is served when absent. */
  isAllowed?: KeyCheck;
  /** Whether requests may be sent to this name; to any when absent. */
  isName?(name: string): boolean;
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

const MODEL_HEADERS = {
  'Cache-Control': 'private, no-cache',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'X-Content-Type-Options': 'nosniff',
};

interface Env {
  Variables: { record: RequestRecord; isHandedOn: boolean };
}

export function createApp(options: AppOptions): Hono<Env> {
  const { models, metrics, page, tab, isAllowed, isName, isDraining } = options;
  const bodies = createBodyReader(options.maxBody);
  const app = new Hono<Env>();

  // nothing of it is secret, and a browser asks for it before anybody could type a key
  for (const [path, file] of page) app.get(path, (c) => pageResponse(file, c.req.header('if-none-match')));
  for (const [name, file] of tab?.runtime ?? [])
    app.get(`/onnxruntime/${name}`, (c) => diskFileResponse(file, (header) => c.req.header(header), PAGE_HEADERS));

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

  if (isName)
    app.use(async (c, next) => {
      const name = new URL(c.req.url).hostname;
      if (!isName(name))
        throw new ApiError(403, `this server is asked as localhost; to ask it as ${name.slice(0, 200)}, start it with --allow-name`, {
          code: 'name_not_allowed',
        });
      await next();
    });

  app.use(async (c, next) => {
    if (isAllowed && !OPEN_PATHS.includes(c.req.path) && !isAllowed(c.req.header('authorization')))
      throw new ApiError(401, 'Incorrect API key provided: give one as Authorization: Bearer <key>.', { code: 'invalid_api_key' });
    await next();
  });

  for (const path of OPEN_PATHS)
    app.get(path, () => {
      // models that take turns in memory are loaded again and again: who asks for one waits
      const isReady = models.some(({ details, state, isDown }) => details && state !== 'failed' && !isDown);
      if (isDraining()) throw new ApiError(503, 'the server is shutting down', { code: 'shutting_down' });
      if (!isReady) throw new ApiError(503, 'Loading model', { code: 'loading', retryAfter: 1 });
      return Response.json({ status: 'ok' });
    });

  app.get('/metrics', () => new Response(metrics.text(), { headers: { 'Content-Type': METRICS_TYPE } }));
  app.get('/v1/models', () => Response.json({ object: 'list', data: models.map((model) => describe(model, tab)) }));
  app.get('/v1/models/:id{.+}', (c) => Response.json(describe(modelNamed(models, c.req.param('id')), tab)));

  app.get('/models/:id/:file', (c) => {
    const file = tab?.models.get(c.req.param('id'))?.get(c.req.param('file'));
    return file ? diskFileResponse(file, (header) => c.req.header(header), MODEL_HEADERS) : c.notFound();
  });

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
    const { signal } = c.req.raw;
    try {
      return Response.json(await model.explain(ask, signal));
    } catch (error) {
      if (!signal.aborted) throw error;
      c.set('isHandedOn', true);
      return leftBy({ metrics, record: c.get('record') }, error).response();
    } finally {
      release();
    }
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
  const { value, take, release } = await bodies.read(raw);
  try {
    const request = parse(value);
    const model = modelNamed(models, request.model);
    const images = await readPictures(request.pictures, pictures, { signal: raw.signal, take });
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

function describe({ id, created, state, details, quantize }: ServedModel, tab: TabFiles | undefined) {
  const files = tab?.models.get(id);
  return {
    id,
    object: 'model',
    created,
    owned_by: 'llava-gemma',
    architecture: { input_modalities: ['text', 'image'], output_modalities: ['text'] },
    status: state,
    meta: details ? { n_ctx: details.contextLength, n_params: details.parameters, image_tokens: details.imageTokens } : null,
    ...(files ? { files: [...files.keys()] } : {}),
    ...(quantize ? { quantize } : {}),
  };
}
