// Two processes with a thread each, under mpirun, against one process with two threads: the large step of
// train-step, each micro-batch a row. They take turns, and must have the same losses to the bit.

import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import { type Server, startServer } from './peers/server.ts';
import { busyCores, busyNote, median, PAUSE, round, thisMachine } from './statistics.ts';
import type { Turn } from './train-step/held-stage.ts';

const RANKS = 2;
/** Steps of a turn, after one that is left out. */
const TIMED = 2;

interface Options {
  json?: boolean;
  mpirun: string;
  rounds: number;
}

export function register(program: Command): void {
  program
    .command('ranks')
    .description('two processes with a thread each under mpirun, against one with two threads')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option('--mpirun <command>', 'the launcher', 'mpirun')
    .option('--rounds <n>', 'turns of each side', parseCount, 6)
    .action(benchRanks);
}

async function benchRanks({ json, mpirun, rounds }: Options): Promise<void> {
  const log = json ? console.error : console.log;
  const file = fileURLToPath(new URL('./ranks/side.js', import.meta.url));
  // of Open MPI; MPICH binds no process
  process.env.OMPI_MCA_hwloc_base_binding_policy = 'none';
  const sides: Record<'one' | 'ranks', Server> = {
    one: startServer('one process', process.execPath, [file, `${RANKS}`]),
    ranks: startServer(`${RANKS} processes`, launcher(mpirun), ['-n', `${RANKS}`, process.execPath, file, '1']),
  };
  const times = { one: { ms: [] as number[], cpu: [] as number[] }, ranks: { ms: [] as number[], cpu: [] as number[] } };
  try {
    log(`${cpus()[0].model.trim()}, ${availableParallelism()} cores; ${mpirun}`);
    const before = await busyCores();
    for (let turn = 0; turn < rounds; turn++) {
      const losses: string[] = [];
      // who goes first takes turns too
      for (const side of turn % 2 === 0 ? (['one', 'ranks'] as const) : (['ranks', 'one'] as const)) {
        await sleep(PAUSE);
        const result = await sides[side].request<Turn>({ steps: 1 + TIMED });
        times[side].ms.push(...result.ms.slice(1));
        times[side].cpu.push(...result.cpu_ms.slice(1));
        losses.push(result.losses.join());
      }
      if (losses[0] !== losses[1]) throw new UserError(`the losses differ: ${losses.join(' and ')}`);
    }
    const medians = (side: keyof typeof times) => ({ ms: median(times[side].ms), cpu: median(times[side].cpu) });
    const [one, ranks] = [medians('one'), medians('ranks')];
    const { busy, note } = busyNote(before, await busyCores());
    const ratio = { time: round(one.ms / ranks.ms, 3), cpu: round(one.cpu / ranks.cpu, 3) };
    log(`one process, ${RANKS} threads: ${one.ms.toFixed(0)} ms a step (CPU ${one.cpu.toFixed(0)} ms)`);
    log(`${RANKS} processes, 1 thread each: ${ranks.ms.toFixed(0)} ms a step (CPU ${ranks.cpu.toFixed(0)} ms)`);
    log(
      `the processes reach ${ratio.time.toFixed(2)} of the one (${ratio.cpu.toFixed(2)} by CPU time); the losses are the same to the bit`,
    );
    if (note) log(note);
    if (json)
      console.log(
        JSON.stringify({
          benchmark: 'ranks',
          machine: { ...thisMachine(), busy_cores: busy },
          rounds,
          one_ms: round(one.ms, 1),
          ranks_ms: round(ranks.ms, 1),
          one_cpu_ms: round(one.cpu, 1),
          ranks_cpu_ms: round(ranks.cpu, 1),
          ratio: ratio.time,
          cpu_ratio: ratio.cpu,
        }),
      );
  } finally {
    for (const side of Object.values(sides)) side.stop();
  }
}

/** UserError where there is no such launcher. */
function launcher(command: string): string {
  try {
    execFileSync(command, ['--version'], { stdio: 'ignore' });
    return command;
  } catch {
    throw new UserError(`${command} is no launcher of MPI; install one (apt-get install openmpi-bin), or give --mpirun`);
  }
}
