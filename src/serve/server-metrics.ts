// What a server counts.

import type { ServedModel } from './ask.ts';
import { type ProcessFigures, processFigures, type WorkerReport } from './messages.ts';
import { createMetrics, type Metrics } from './metrics.ts';

const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const BETWEEN = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

/** What the processes of models have said last, by the ids of the models. */
export type WorkerReports = Map<string, WorkerReport>;

export function createServerMetrics(models: readonly ServedModel[], reports: WorkerReports) {
  const metrics: Metrics = createMetrics();
  const each = (read: (model: ServedModel) => number) => () => models.map((model) => [{ model: model.id }, read(model)] as const);
  metrics.gauge(
    'llava_gemma_model_ready',
    '1 where the model can be asked.',
    each(({ state }) => Number(state === 'ready')),
  );
  metrics.gauge(
    'llava_gemma_requests_running',
    'Requests that are being answered.',
    each(({ load }) => load.running),
  );
  metrics.gauge(
    'llava_gemma_requests_waiting',
    'Requests that wait for their turn.',
    each(({ load }) => load.waiting),
  );
  metrics.gauge('llava_gemma_prefix_cache_bytes', 'Memory that keeps what was read for earlier prompts.', () =>
    Array.from(reports, ([model, { prefixBytes }]) => [{ model }, prefixBytes] as const),
  );
  const byProcess = (figure: keyof ProcessFigures) => () => [
    [{ process: 'server' }, processFigures()[figure]] as const,
    ...Array.from(reports, ([model, report]) => [{ process: model }, report[figure]] as const),
  ];
  metrics.gauge('llava_gemma_resident_memory_bytes', 'Resident memory of the server and of each model.', byProcess('rss'));
  metrics.gauge('llava_gemma_heap_bytes', "Of it, JavaScript's heap.", byProcess('heap'));
  metrics.gauge('llava_gemma_external_bytes', 'Of it, buffers beside the heap that JavaScript holds.', byProcess('external'));
  metrics.gauge('llava_gemma_cpu_seconds', 'CPU time of the server and of each model since it was started.', byProcess('cpu'));
  return {
    text: metrics.text,
    requests: metrics.counter('llava_gemma_requests_total', 'Requests by route and status.'),
    promptTokens: metrics.counter('llava_gemma_prompt_tokens_total', 'Tokens of prompts, those of pictures included.'),
    cachedTokens: metrics.counter('llava_gemma_cached_prompt_tokens_total', 'Of these, tokens that had been read before.'),
    generatedTokens: metrics.counter('llava_gemma_generated_tokens_total', 'Tokens of answers.'),
    deaths: metrics.counter('llava_gemma_worker_deaths_total', 'Processes of models that ended unexpectedly.'),
    cancelled: metrics.counter('llava_gemma_requests_cancelled_total', 'Requests whose client went away.'),
    firstToken: metrics.histogram('llava_gemma_time_to_first_token_seconds', 'From the request to the first text.', SECONDS),
    betweenTokens: metrics.histogram('llava_gemma_inter_token_seconds', 'Between pieces of an answer.', BETWEEN),
    duration: metrics.histogram('llava_gemma_request_duration_seconds', 'From the request to the end of the answer.', SECONDS),
  };
}

export type ServerMetrics = ReturnType<typeof createServerMetrics>;
