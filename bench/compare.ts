// This checkout against another one, such as an older commit: training steps at both sizes, prefill and
// decoding. Each side runs its own built code in a process of its own (compare/side.ts); they take turns in
// one run, so that a noisy machine hurts both alike.

import { existsSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import type { GenerateAnswer, Request } from './compare/side.ts';
import { makeFiles } from './generate/files.ts';
import { benchShapes } from './generate/shapes.ts';
import type { MemoryAnswer } from './peers/generate-peer.ts';
import { type Server, startServer } from './peers/server.ts';
import { busyCores, busyNote, median, PAUSE, round, thisMachine } from './statistics.ts';
import { STEPS_PER_TURN, type Turn } from './train-step/held-stage.ts';

/** Whose language model is prefilled and decoded. */
const SHAPE = 'small';
const TASKS = ['train-small', 'train-large', 'generate'];

export function register(program: Command): void {
  program
    .command('compare')
    .description('another checkout, such as an older commit, against this one: training steps, prefill and decoding')
    .requiredOption('--with <folder>', 'the other checkout, built (npm ci && npm run build)')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option('--tasks <list>', 'what is measured', TASKS.join())
    .option('--rounds <n>', 'turns of each side', parseCount, 6)
    .option('--threads <n>', 'threads of each side', parseCount, availableParallelism())
    .option('--spin', 'let idle threads spin: for a machine on which nothing else runs')
    .action(benchCompare);
}

interface Options {
  with: string;
  json?: boolean;
  tasks: string;
  rounds: number;
  threads: number;
  spin?: boolean;
}

const SIDES = ['other', 'ours'] as const;
type SideName = (typeof SIDES)[number];
type Both<T> = Record<SideName, T>;
const both = <T>(of: (side: SideName) => T): Both<T> => ({ other: of('other'), ours: of('ours') });

/** Wall and CPU time of something, in ms: a number a turn and step. */
interface Times {
  ms: number[];
  cpu: number[];
}

/**
 * A number of each side, and the other's over ours: above 1, this checkout is faster, or takes less memory.
 */
interface Comparison {
  other: number;
  ours: number;
  ratio: number;
}

interface TaskResult {
  /** Medians by what was measured: `step`, or `prefill` and `decode` (a token). */
  ms: Record<string, Comparison>;
  /**
   * The least CPU time over all threads: other processes take no part in it, and only ever make it longer.
   */
  cpu_ms: Record<string, Comparison>;
  peak_memory_mb: Comparison;
}

async function benchCompare(options: Options): Promise<void> {
  const { json, rounds, threads, spin = false } = options;
  const tasks = options.tasks.split(',');
  for (const task of tasks) if (!TASKS.includes(task)) throw new UserError(`--tasks: no task "${task}"; there are ${TASKS.join(', ')}`);
  const folders = both((side) => resolve(side === 'ours' ? '.' : options.with, 'dist'));
  for (const folder of Object.values(folders))
    if (!existsSync(folder)) throw new UserError(`${folder} is not there: build that checkout (npm ci && npm run build)`);
  const log = json ? console.error : console.log;
  const machine = { ...thisMachine(), threads, spin };
  log(`${machine.cpu}, ${threads} of ${machine.cores} cores, load ${loadavg()[0].toFixed(1)}`);
  log(
    `other: ${folders.other}\nours:  ${folders.ours}\ntimes are medians, CPU times the least of ${rounds} turns; ratios above 1: ours is faster, or smaller\n`,
  );
  const before = await busyCores();
  const results: Record<string, TaskResult> = {};
  for (const task of tasks) {
    results[task] = await compareTask(task, folders, { rounds, threads, spin }, log);
    log(describe(task, results[task]));
  }
  const { busy, note } = busyNote(before, await busyCores());
  if (note) log(`\n${note}; those of CPU time suffer less`);
  if (json)
    console.log(
      JSON.stringify({ benchmark: 'compare', machine: { ...machine, busy_cores: busy }, checkouts: folders, rounds, tasks: results }),
    );
}

async function compareTask(
  task: string,
  folders: Both<string>,
  { rounds, ...engine }: { rounds: number; threads: number; spin: boolean },
  log: (line: string) => void,
): Promise<TaskResult> {
  const script = fileURLToPath(new URL('compare/side.js', import.meta.url));
  const servers = both((side) => startServer(side, process.execPath, [script, folders[side]], { apart: true }));
  const ask = <T>(side: SideName, request: Request) => servers[side].request<T>(request);
  try {
    const times = task === 'generate' ? await generation(ask, rounds, engine, log) : await steps(ask, task, rounds, engine);
    const memory = {} as Both<number>;
    for (const side of SIDES) memory[side] = (await ask<MemoryAnswer>(side, { op: 'memory' })).peak_mb;
    const compare = (of: (times: Times) => number) =>
      Object.fromEntries(Object.entries(times).map(([what, sides]) => [what, comparison(both((side) => of(sides[side])))]));
    return {
      ms: compare(({ ms }) => median(ms)),
      cpu_ms: compare(({ cpu }) => Math.min(...cpu)),
      peak_memory_mb: comparison(memory),
    };
  } finally {
    for (const server of Object.values<Server>(servers)) server.stop();
  }
}

type Ask = <T>(side: SideName, request: Request) => Promise<T>;
type EngineOptions = { threads: number; spin: boolean };

const noTimes = () => both((): Times => ({ ms: [], cpu: [] }));

/** Turns in which the one and the other side come first by turns. */
async function takeTurns(rounds: number, turn: (side: SideName) => Promise<void>): Promise<void> {
  for (let round = 0; round < rounds; round++)
    for (const side of round % 2 === 0 ? SIDES : SIDES.toReversed()) {
      await sleep(PAUSE);
      await turn(side);
    }
}

/** Largest relative difference of the first losses that two versions of one model may have. */
const LOSS_TOLERANCE = 1e-5;

async function steps(ask: Ask, task: string, rounds: number, engine: EngineOptions): Promise<Record<string, Both<Times>>> {
  const size = task.replace('train-', '');
  const perTurn = 1 + STEPS_PER_TURN[size];
  const losses = {} as Both<number>;
  for (const side of SIDES) {
    await ask(side, { op: 'load-step', size, totalSteps: 1 + rounds * perTurn, ...engine });
    losses[side] = (await ask<Turn>(side, { op: 'step', steps: 1 })).losses[0];
  }
  if (!(Math.abs(losses.ours / losses.other - 1) < LOSS_TOLERANCE))
    throw new Error(`${task}: the first losses differ, ${losses.other} and ${losses.ours}: the checkouts do not do the same work`);
  const times = noTimes();
  await takeTurns(rounds, async (side) => {
    const { ms, cpu_ms } = await ask<Turn>(side, { op: 'step', steps: perTurn });
    times[side].ms.push(...ms.slice(1));
    times[side].cpu.push(...cpu_ms.slice(1));
  });
  return { step: times };
}

async function generation(
  ask: Ask,
  rounds: number,
  engine: EngineOptions,
  log: (line: string) => void,
): Promise<Record<string, Both<Times>>> {
  const { prompt, decode } = benchShapes[SHAPE].workload;
  const files = await makeFiles(SHAPE, ['ours'], { embedding: 'Q4_0', accuracyLevel: 4 }, log);
  for (const side of SIDES) {
    await ask(side, { op: 'load-generator', folder: files.ours, ...engine });
    await ask(side, { op: 'generate', prompt: 64, tokens: 4 });
  }
  const times = { prefill: noTimes(), decode: noTimes() };
  await takeTurns(rounds, async (side) => {
    const answer = await ask<GenerateAnswer>(side, { op: 'generate', prompt, tokens: decode + 1 });
    times.prefill[side].ms.push((1000 * prompt) / answer.prefill);
    times.prefill[side].cpu.push(answer.prefill_cpu_ms);
    times.decode[side].ms.push(1000 / answer.decode);
    times.decode[side].cpu.push(answer.decode_cpu_ms);
  });
  return times;
}

const comparison = ({ other, ours }: Both<number>): Comparison => ({
  other: round(other, 3),
  ours: round(ours, 3),
  ratio: round(other / ours, 3),
});

function describe(task: string, { ms, cpu_ms: cpu, peak_memory_mb: memory }: TaskResult): string {
  const line = (label: string, { other, ours, ratio }: Comparison, unit: string) =>
    `  ${label.padEnd(18)} other ${other.toFixed(1).padStart(9)} ${unit}  ours ${ours.toFixed(1).padStart(9)} ${unit}  ratio ${ratio.toFixed(3)}`;
  return [
    task,
    ...Object.entries(ms).flatMap(([what, wall]) => [line(what, wall, 'ms'), line(`${what}, CPU time`, cpu[what], 'ms')]),
    line('peak memory', memory, 'MB'),
  ].join('\n');
}
