// What `llava-gemma eval --benchmarks` does.
import { basename, resolve } from 'node:path';
import type { EvaluationReport } from '../../benchmarks/assess.ts';
import { benchmarkNamed } from '../../benchmarks/benchmarks.ts';
import type { Condition } from '../../benchmarks/conditions.ts';
import { readCost } from '../../benchmarks/cost.ts';
import { chooseBenchmarks, type EvaluationRequest, mergeEvaluations, runEvaluation } from '../../benchmarks/evaluation.ts';
import { evaluationFolder, readSettings } from '../../benchmarks/evaluation-folder.ts';
import { reportTable } from '../../benchmarks/report.ts';
import { parseShard } from '../../benchmarks/subset.ts';
import { UserError } from '../../errors.ts';
import { createAsker } from '../../evaluate/asking.ts';
import { resolvePath } from '../../paths.ts';
import { modelContent } from '../../pretrained/content.ts';
import { loadModel } from '../../pretrained/load.ts';
import { lockRunFolder } from '../../runs/lock.ts';
import { createStatusLine, formatDuration } from '../../runs/status.ts';
import { formatCount } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';
import type { EvaluateFlags } from './eval.ts';

export interface BenchmarkFlags extends EvaluateFlags {
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

async function requestOf(flags: BenchmarkFlags): Promise<EvaluationRequest> {
  const { limit, shard, maxNewTokens, quantize, overwrite } = flags;
  const { data, out } = foldersOf(flags);
  const benchmarks = namesOf(flags.benchmarks!).map(benchmarkNamed);
  const model = resolvePath(flags.model, '--model');
  return {
    out,
    overwrite,
    model: basename(resolve(model)),
    content: await modelContent(model),
    chosen: await chooseBenchmarks(benchmarks, data, harnessesOf(flags.harness), limit),
    conditions: conditionsOf(flags),
    limit,
    shard: shard === undefined ? undefined : parseShard(shard),
    maxNewTokens,
    quantize,
  };
}

function print(out: string, report: EvaluationReport, json: boolean | undefined): void {
  const { cost, page } = evaluationFolder(out);
  console.log(json ? JSON.stringify(report, null, 2) : `${reportTable(report, readCost(cost)!)}\nreport: ${page}`);
}

/** Runs the command with --benchmarks, or with --merge. */
export async function evaluateBenchmarks(flags: BenchmarkFlags): Promise<void> {
  if (flags.merge.length > 0) return merge(flags);
  const request = await requestOf(flags);
  const lock = await lockRunFolder(request.out, { note: console.error });
  const status = createStatusLine();
  try {
    const report = await withInterrupt(async (signal) => {
      const openAsker = async () => createAsker(await loadModel(resolvePath(flags.model, '--model'), { quantize: flags.quantize }));
      return runEvaluation(request, openAsker, {
        batchSize: flags.batchSize,
        signal,
        onProgress: ({ benchmark, condition, done, total, remaining }) =>
          status.draw(
            `${benchmark} ${condition}  ${formatCount(done)} of ${formatCount(total)} answers  ETA ${remaining === undefined ? '-' : formatDuration(remaining)}`,
          ),
      });
    }, `the answers so far are in ${request.out}; the same command goes on`).finally(status.clear);
    print(request.out, report, flags.json);
  } finally {
    await lock.release();
  }
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
  print(out, await mergeEvaluations(flags.merge, request), flags.json);
}
