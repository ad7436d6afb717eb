// What `llava-gemma eval --benchmarks` does.
import { basename, resolve } from 'node:path';
import type { EvaluationReport } from '../../benchmarks/assess.ts';
import type { Benchmark } from '../../benchmarks/benchmark.ts';
import { benchmarkNamed } from '../../benchmarks/benchmarks.ts';
import type { Condition } from '../../benchmarks/conditions.ts';
import { readCost } from '../../benchmarks/cost.ts';
import { chooseBenchmarks, type EvaluationRequest, mergeEvaluations, runEvaluation } from '../../benchmarks/evaluation.ts';
import { evaluationFolder, readSettings } from '../../benchmarks/evaluation-folder.ts';
import { reportTable } from '../../benchmarks/report.ts';
import { parseShard } from '../../benchmarks/subset.ts';
import { UserError } from '../../errors.ts';
import { type Asker, createAsker } from '../../evaluate/asking.ts';
import { resolvePath } from '../../paths.ts';
import { modelContent } from '../../pretrained/content.ts';
import { loadModel } from '../../pretrained/load.ts';
import { createEndpointAsker } from '../../remote/asker.ts';
import { openEndpoint } from '../../remote/endpoint.ts';
import { lockRunFolder } from '../../runs/lock.ts';
import { createStatusLine, formatDuration } from '../../runs/status.ts';
import { formatCount } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';
import type { EvaluateFlags } from './eval.ts';
import { type JudgeFlags, openNamedJudge, sayNote, sayPause } from './judge.ts';

export interface BenchmarkFlags extends EvaluateFlags, JudgeFlags {
  /** Address of a server that is asked in place of a model of this machine. */
  endpoint?: string;
  endpointModel?: string;
  /** Names with commas between them. */
  benchmarks?: string;
  harness: string[];
  exchanged: boolean;
  shard?: string;
  /** Folders of shares. */
  merge: string[];
  overwrite?: boolean;
}

/** `pope=lmms-eval` -> { pope: 'lmms-eval' }. */
function harnessesOf(given: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    given.map((text) => {
      const [name, harness, ...more] = text.split('=');
      if (!name || !harness || more.length > 0)
        throw new UserError(`--harness ${text}: must be a benchmark and its rules, such as pope=lmms-eval`);
      return [benchmarkNamed(name).name, harness];
    }),
  );
}

function conditionsOf({ blind, exchanged }: BenchmarkFlags): Condition[] {
  return ['plain', ...(blind ? (['blind'] as const) : []), ...(exchanged ? (['exchanged'] as const) : [])];
}

/** The folders that the command needs. */
function foldersOf({ data, imageFolder, split, out, merge }: BenchmarkFlags): { data: string; out: string } {
  const what = merge.length > 0 ? '--merge' : '--benchmarks';
  if (data === undefined) throw new UserError(`${what} needs --data, the folder of the downloads (llava-gemma benchmarks lists them)`);
  if (out === undefined) throw new UserError(`${what} needs --out, a folder for answers and report`);
  if (imageFolder !== undefined)
    throw new UserError("--image-folder is for questions of one's own; benchmarks have their pictures in --data");
  if (split.length > 0) throw new UserError('--split names splits of the emoji scenes; leave it out with --benchmarks');
  return { data, out };
}

/** The names of --benchmarks. */
function namesOf(text: string): string[] {
  const names = text.split(',').map((name) => name.trim());
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UserError(`--benchmarks names ${twice} twice`);
  return names;
}

/** Who is asked. */
interface Asked {
  /** Its name in answers, and what stands for its content. */
  model: string;
  content: string;
  open(): Promise<Asker>;
}

async function askedOf({ model, quantize, device, endpoint: url, endpointModel }: BenchmarkFlags, signal: AbortSignal): Promise<Asked> {
  if (url !== undefined) {
    const endpoint = await openEndpoint({ url, model: endpointModel, signal, onPause: sayPause, onNote: sayNote });
    return { model: endpoint.model, content: endpoint.name, open: async () => createEndpointAsker(endpoint) };
  }
  if (endpointModel !== undefined) throw new UserError('--endpoint-model goes with --endpoint');
  const folder = resolvePath(model, '--model');
  const open = async () => createAsker(await loadModel(folder, { quantize, device }));
  return { model: basename(resolve(folder)), content: await modelContent(folder), open };
}

/** UserError where answers would in the end have nobody to judge them. */
function checkJudge(benchmarks: readonly Benchmark[], { judge }: JudgeFlags): void {
  const needing = benchmarks.find(({ judged }) => judged === 'always');
  if (needing && judge === undefined)
    throw new UserError(
      `answers to ${needing.name} are graded by a judge: --judge ADDRESS of an OpenAI-compatible endpoint, local:FOLDER, or rules`,
    );
}

async function requestOf(flags: BenchmarkFlags, { model, content }: Asked): Promise<EvaluationRequest> {
  const { limit, shard, maxNewTokens, quantize, overwrite } = flags;
  const { data, out } = foldersOf(flags);
  const benchmarks = namesOf(flags.benchmarks!).map(benchmarkNamed);
  checkJudge(benchmarks, flags);
  return {
    out,
    overwrite,
    model,
    content,
    chosen: await chooseBenchmarks(benchmarks, data, harnessesOf(flags.harness), limit),
    conditions: conditionsOf(flags),
    limit,
    shard: shard === undefined ? undefined : parseShard(shard),
    maxNewTokens,
    quantize,
  };
}

function print(out: string, report: EvaluationReport, json: boolean | undefined): void {
  const { cost, page, upload } = evaluationFolder(out);
  const uploads = (report.uploads ?? []).map(({ benchmark, server }) => `${upload(benchmark)}: for ${server}`);
  console.log(json ? JSON.stringify(report, null, 2) : [reportTable(report, readCost(cost)!), ...uploads, `report: ${page}`].join('\n'));
}

/** Runs the command with --benchmarks, or with --merge. */
export async function evaluateBenchmarks(flags: BenchmarkFlags): Promise<void> {
  if (flags.merge.length > 0) return merge(flags);
  const { out } = foldersOf(flags);
  const status = createStatusLine();
  const report = await withInterrupt(async (signal) => {
    const asked = await askedOf(flags, signal);
    const request = await requestOf(flags, asked);
    const judge = await openNamedJudge(flags, signal);
    const lock = await lockRunFolder(out, { note: console.error });
    try {
      return await runEvaluation(request, asked.open, {
        batchSize: flags.batchSize,
        judge,
        signal,
        onProgress: ({ benchmark, condition, done, total, remaining }) =>
          status.draw(
            `${benchmark} ${condition}  ${formatCount(done)} of ${formatCount(total)} answers  ETA ${remaining === undefined ? '-' : formatDuration(remaining)}`,
          ),
      });
    } finally {
      await lock.release();
    }
  }, `the answers so far are in ${out}; the same command goes on`).finally(status.clear);
  print(out, report, flags.json);
}

/** Puts shares together; what was asked is read out of the first. */
async function merge(flags: BenchmarkFlags): Promise<void> {
  if (flags.benchmarks !== undefined) throw new UserError('--merge reads the benchmarks out of the shares; leave --benchmarks out');
  const { data, out } = foldersOf(flags);
  const { benchmarks, conditions, limit, maxNewTokens, model, content, quantize } = readSettings(flags.merge[0]);
  const harnesses = Object.fromEntries(benchmarks.map(({ name, harness }) => [name, harness]));
  const names = benchmarks.map(({ name }) => benchmarkNamed(name));
  const request = {
    out,
    overwrite: flags.overwrite,
    model,
    content,
    chosen: await chooseBenchmarks(names, data, harnesses, limit ?? undefined),
    conditions,
    limit: limit ?? undefined,
    maxNewTokens: maxNewTokens ?? undefined,
    quantize: quantize ?? undefined,
  };
  checkJudge(names, flags);
  const report = await withInterrupt(
    async (signal) => mergeEvaluations(flags.merge, request, await openNamedJudge(flags, signal)),
    'judgements so far are kept, and the same command goes on from there',
  );
  print(out, report, flags.json);
}
