// Several processes train as one does, to the bit, under the launchers that this machine has; what ends one
// of them ends all. Without a launcher of MPI these tests are skipped, with a word about it.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { stringify } from 'yaml';
import { readMetrics } from '../src/runs/metrics.ts';
import { skipped } from './required.ts';
import { bin, enterToyFolder, type Outcome, recipes, train } from './toy.ts';

interface Launcher {
  command: string;
  make: 'Open MPI' | 'MPICH';
  /** The library of the other make. */
  other: string;
}

/** What the launcher of that name says of itself; empty where there is none. */
function versionOf(command: string): string {
  try {
    return execFileSync(command, ['--version'], { stdio: ['ignore', 'pipe', 'ignore'], encoding: 'utf8' });
  } catch {
    return '';
  }
}

function findLaunchers(): Launcher[] {
  const found = new Map<string, Launcher>();
  for (const command of ['mpirun.openmpi', 'mpirun.mpich', 'mpirun', 'mpiexec']) {
    const version = versionOf(command);
    if (/Open MPI|OpenRTE/.test(version))
      found.set('Open MPI', found.get('Open MPI') ?? { command, make: 'Open MPI', other: 'libmpich.so.12' });
    if (/HYDRA/i.test(version)) found.set('MPICH', found.get('MPICH') ?? { command, make: 'MPICH', other: 'libmpi.so.40' });
  }
  return [...found.values()];
}

const launchers = findLaunchers();
if (launchers.length === 0) skipped('mpi', 'no launcher of MPI is installed (apt-get install openmpi-bin libopenmpi3 mpich libmpich12)');
else if (launchers.length === 1) skipped('mpi', `only ${launchers[0].make} is installed, and some tests concern both makes`);

const env = {
  ...process.env,
  DEBUG: '',
  OMPI_ALLOW_RUN_AS_ROOT: '1',
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
  OMPI_MCA_rmaps_base_oversubscribe: '1',
  OMPI_MCA_hwloc_base_binding_policy: 'none',
};

/** Starts `train` in `size` processes, each of which leaves its pid in `pid.<rank>`. */
function launch(
  { command }: Pick<Launcher, 'command'>,
  size: number,
  words: readonly string[],
  more: { env?: object; options?: string[] } = {},
) {
  for (const name of readdirSync('.')) if (name.startsWith('pid.')) rmSync(name);
  const child = spawn(command, [...(more.options ?? []), '-n', `${size}`, './rank.sh', bin, 'train', ...words], {
    env: { ...env, ...more.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return { child, outcome: outcomeOf(child) };
}

function outcomeOf(child: ChildProcess): Promise<Outcome> {
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name]!.setEncoding('utf8').on('data', (text: string) => {
      said[name] += text;
    });
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...said })));
}

/**
 * Sends a signal to one process as soon as the status matches; returns how all ended, and after how many ms.
 */
async function signalled(launcher: Launcher, size: number, words: readonly string[], moment: RegExp, rank: number, signal: NodeJS.Signals) {
  const { child, outcome } = launch(launcher, size, words);
  let seen = '';
  let at = 0;
  child.stderr!.on('data', (text: string) => {
    seen += text;
    if (at > 0 || !moment.test(seen)) return;
    at = performance.now();
    process.kill(pidOf(rank), signal);
  });
  const ended = await outcome;
  return { ...ended, ms: performance.now() - at };
}

const pidOf = (rank: number) => Number(readFileSync(`pid.${rank}`, 'utf8'));

/** Whether a process runs; one that has ended may wait for whoever started it. */
function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) [ZX]/s.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

const stages = ['pretrain', 'finetune', 'lora'];
const weights = (out: string, names = stages) =>
  names.map((name) => readFileSync(join(out, 'checkpoints', name, 'model.safetensors')).toString('base64'));

/** What was logged, without times. */
const story = (out: string) =>
  readMetrics(join(out, 'metrics.jsonl')).map((event) =>
    event.type === 'step' ? [event.stage, event.step, event.loss, event.gradNorm, event.extra?.padding] : [event.type, event.stage],
  );

const sentences = (text: string) => text.split('\n').filter((line) => line.includes('error: '));

beforeAll(async () => {
  if (launchers.length === 0) return;
  const leave = await enterToyFolder();
  const { evaluate: _, ...rest } = recipes.llava;
  const shared = { accumulation: 4, batch_size: 2, steps: 3 };
  const [pretrain, finetune] = rest.stages.map((stage) => ({ ...stage, ...shared }));
  const lora = { ...finetune, name: 'lora', train: ['multi_modal_projector'], lora: { rank: 4, alpha: 8, dropout: 0.2 }, steps: 2 };
  const all = [{ ...pretrain, steps: 2 }, { ...finetune, save_every: 1 }, lora];
  writeFileSync('drawn.yaml', stringify({ ...rest, stages: all }));
  await train('drawn.yaml', '--out', 'one');
  // the same samples, without drawing them anew
  const fromFile = ({ data, ...stage }: (typeof all)[number]) => ({
    ...stage,
    data: { data_path: `scenes/train_${data}.json`, image_folder: 'scenes/images' },
  });
  writeFileSync('shared.yaml', stringify({ task: rest.task, model: rest.model, stages: all.map(fromFile) }));
  writeFileSync('rank.sh', `#!/bin/sh\necho $$ > pid.$OMPI_COMM_WORLD_RANK$PMI_RANK\nexec node "$@"\n`);
  chmodSync('rank.sh', 0o755);
  return leave;
}, 120_000);

describe.runIf(launchers.length > 0)('a run of several processes', () => {
  it.each(
    launchers.map(
      (launcher, i) =>
        [
          launcher.make,
          ...(
            [
              [4, '--shard-moments'],
              [2, ''],
            ] as const
          )[i],
          launcher,
        ] as const,
    ),
  )('%s, %i processes %s: the weights, adapters and losses of one, to the bit', async (make, size, flag, launcher) => {
    // features are encoded anew, by all
    rmSync('.cache', { recursive: true });
    const out = `${make[0]}-${size}`;
    const { code, stderr } = await launch(launcher, size, ['shared.yaml', '--out', out, ...(flag ? [flag] : [])]).outcome;
    expect(code, stderr).toBe(0);
    expect(weights(out)).toEqual(weights('one'));
    const adapter = join('checkpoints', 'lora', 'adapter', 'adapter_model.safetensors');
    expect(readFileSync(join(out, adapter)).equals(readFileSync(join('one', adapter)))).toBe(true);
    expect(story(out)).toEqual(story('one'));
    // said and written by the first alone
    expect(stderr.match(/encoding pictures/g)).toHaveLength(1);
    expect(stderr.match(/1\/3 pretrain {2}step 2\/2/g)).toHaveLength(1);
    expect(stderr).toContain(`${size} processes, ${size} on this host`);
    expect(readdirSync(join(out, 'checkpoints')).sort()).toEqual([...stages].sort());
    expect(existsSync(join(out, 'summary.json'))).toBe(true);
  });

  it('is stopped on any process after the same step, killed on any, and goes on with another number of them', async () => {
    const [first] = launchers;
    const other = launchers.at(-1)!;
    const stopped = await signalled(first, 2, ['shared.yaml', '--out', 'often', '--shard-moments'], /finetune {2}step 1\//, 1, 'SIGTERM');
    expect(stopped.code, stopped.stderr).toBe(130);
    expect(stopped.stderr.match(/interrupted; go on with: llava-gemma train --resume --out often/g)).toHaveLength(1);
    expect(existsSync('often/checkpoints/finetune/optimizer.safetensors')).toBe(true);
    for (const [launcher, size, rank, moment] of [
      [other, 2, 0, /finetune {2}step 3\//],
      [first, 4, 3, /lora {2}step 1\//],
    ] as const) {
      const killed = await signalled(launcher, size, ['--resume', '--out', 'often'], moment, rank, 'SIGKILL');
      expect(killed.code, killed.stderr).not.toBe(0);
      const pids = Array.from({ length: size }, (_, of) => pidOf(of));
      await vi.waitFor(() => expect(pids.filter(isRunning)).toEqual([]), { timeout: 5000 - killed.ms });
    }
    await train('--resume', '--out', 'often');
    expect(weights('often')).toEqual(weights('one'));
    expect(story('often')).toEqual(story('one'));
  });

  it('ends where a process falls silent, with one sentence, after the time limit', async () => {
    const words = ['shared.yaml', '--out', 'silent', '--mpi-timeout', '3'];
    const { code, stderr, ms } = await signalled(launchers[0], 2, words, /finetune {2}step 1\//, 1, 'SIGSTOP');
    expect(code, stderr).toBe(1);
    expect(sentences(stderr)).toEqual([
      'error: process 1 of 2 has given no sign of life for 3 s: it hangs, its host or the network is gone, or it needs a longer --mpi-timeout',
    ]);
    expect(ms).toBeLessThan(10_000);
  });

  it('says in one sentence that its batches cannot be shared, and what would do', async () => {
    const { code, stderr } = await launch(launchers[0], 2, ['shared.yaml', '--out', 'odd', '--set', 'stages.1.accumulation=1']).outcome;
    expect(code).toBe(1);
    expect(sentences(stderr)).toEqual([
      'error: stage finetune: a step has accumulation 1, which 2 processes cannot share: give --set stages.1.accumulation=2 --set stages.1.batch_size=1, which leaves 2 samples in a step, or another number of processes',
    ]);
    expect(existsSync('odd')).toBe(false);
  });

  it('leaves out the same bad samples as one process, and lists them', async () => {
    const samples = await Promise.all(
      Array.from({ length: 8 }, async (_, i) => {
        const image = `bad-${i}.png`;
        await sharp({ create: { width: 32, height: 32, channels: 3, background: { r: 30 * i, g: 90, b: 10 } } }).toFile(image);
        // the ends of two are missing
        if (i === 2 || i === 5) writeFileSync(image, readFileSync(image).subarray(0, 60 + i));
        return {
          id: `${i}`,
          image,
          conversations: [
            { from: 'human', value: '<image>\nwhat?' },
            { from: 'gpt', value: `a red ${i}` },
          ],
        };
      }),
    );
    writeFileSync('bad.json', JSON.stringify(samples));
    const stage = { ...recipes.llava.stages[1], name: 'bad', data: { data_path: 'bad.json', image_folder: '.' }, on_bad_sample: 'skip' };
    const steps = { batch_size: 2, accumulation: 2, steps: 4 };
    writeFileSync('bad.yaml', stringify({ task: 'llava', model: recipes.llava.model, stages: [{ ...stage, ...steps }] }));
    await train('bad.yaml', '--out', 'bad-one');
    rmSync('.cache', { recursive: true });
    const { code, stderr } = await launch(launchers[0], 2, ['bad.yaml', '--out', 'bad-two']).outcome;
    expect(code, stderr).toBe(0);
    expect(weights('bad-two', ['bad'])).toEqual(weights('bad-one', ['bad']));
    // the words of the decoder are not always the same
    const skipped = (out: string) => {
      const lines = readFileSync(join(out, 'skipped.jsonl'), 'utf8').trim().split('\n');
      return lines.map((line) => JSON.parse(line) as { image: string; reason: string }).sort((a, b) => (a.image < b.image ? -1 : 1));
    };
    expect(skipped('bad-two').map(({ image }) => image)).toEqual(skipped('bad-one').map(({ image }) => image));
    for (const { image, reason } of skipped('bad-two')) expect(reason).toContain(`${image}: cannot be read as an image`);
    expect(skipped('bad-two')).toHaveLength(2);
  });
});

describe.runIf(launchers.length > 1)('a library of another make than the launcher', () => {
  it.each(launchers.map((launcher) => [launcher.make, launcher] as const))('is one sentence under %s', async (make, launcher) => {
    const given = { LLAVA_GEMMA_MPI_LIBRARY: launcher.other };
    const { code, stderr } = await launch(launcher, 2, ['shared.yaml', '--out', 'wrong'], { env: given }).outcome;
    expect(code).toBe(1);
    const command = make === 'Open MPI' ? "Open MPI's mpirun" : "MPICH's mpiexec";
    expect(sentences(stderr)).toEqual([
      `error: ${command} started 2 processes, but ${launcher.other} knows of 1: library and launcher are of different makes; use the mpirun of the library's make, or give the path of ${make}'s library in LLAVA_GEMMA_MPI_LIBRARY`,
    ]);
    expect(existsSync('wrong')).toBe(false);
  });
});

// === Two hosts ===

const [left, right] = [`lg${process.pid}a`, `lg${process.pid}b`];
const addresses = { [left]: '10.213.77.1', [right]: '10.213.77.2' };

function ip(...words: string[]): void {
  execFileSync('ip', words, { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** Joins two network namespaces by a pair of virtual cards. Why not, where that is not allowed. */
function joinHosts(): string | undefined {
  try {
    for (const name of [left, right]) ip('netns', 'add', name);
    ip('link', 'add', `${left}v`, 'netns', left, 'type', 'veth', 'peer', 'name', `${right}v`, 'netns', right);
    for (const [name, address] of Object.entries(addresses)) {
      ip('-n', name, 'addr', 'add', `${address}/24`, 'dev', `${name}v`);
      ip('-n', name, 'link', 'set', `${name}v`, 'up');
      ip('-n', name, 'link', 'set', 'lo', 'up');
    }
    execFileSync('ip', ['netns', 'exec', left, 'unshare', '--uts', 'hostname', left], { stdio: ['ignore', 'ignore', 'pipe'] });
    return undefined;
  } catch (error) {
    return (error as Error).message.split('\n').at(-1) || (error as Error).message;
  }
}

function separateHosts(): void {
  for (const name of [left, right]) {
    try {
      ip('netns', 'delete', name);
    } catch {
      // it was never made
    }
  }
}

const obstacle = launchers.length > 0 ? joinHosts() : 'no launcher';
if (obstacle !== undefined && launchers.length > 0) console.warn(`skipped: two hosts need network namespaces: ${obstacle}`);
afterAll(separateHosts);

describe.runIf(obstacle === undefined)('two hosts', () => {
  it.each(launchers.slice(0, 1).map((launcher) => [launcher.make, launcher] as const))(
    '%s: the bits of one process, over a network',
    async (make, launcher) => {
      const agent = join(process.cwd(), 'agent.sh');
      const cases = Object.entries(addresses).map(([name, address]) => `${address}) name=${name};;`);
      writeFileSync(
        agent,
        `#!/bin/sh\nhost=$1; shift\ncase $host in ${cases.join(' ')} esac\nexec ip netns exec $name unshare --uts sh -c "hostname $name; cd ${process.cwd()}; $*"\n`,
      );
      chmodSync(agent, 0o755);
      const hosts = Object.values(addresses).join(',');
      const options =
        make === 'Open MPI'
          ? ['--mca', 'plm_rsh_agent', agent, '--host', hosts]
          : ['-launcher', 'rsh', '-launcher-exec', agent, '-hosts', hosts];
      rmSync('.cache', { recursive: true });
      const out = `hosts-${make[0]}`;
      const within = [
        'netns',
        'exec',
        left,
        'unshare',
        '--uts',
        'sh',
        '-c',
        `hostname ${left}; exec "$0" "$@"`,
        launcher.command,
        ...options,
      ];
      const { code, stderr } = await launch({ command: 'ip' }, 2, ['drawn.yaml', '--out', out], { options: within }).outcome;
      expect(code, stderr).toBe(0);
      expect(stderr).toContain('2 processes, 1 on this host');
      expect(weights(out)).toEqual(weights('one'));
      expect(story(out)).toEqual(story('one'));
    },
  );
});
