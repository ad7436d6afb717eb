// A study of eight variants with five seeds: is it as long as its plan says, does it end with the same bits
// however often it is killed, and what is it worth that its runs share stages?

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { stringify } from 'yaml';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import { createRandom } from '../src/random.ts';
import type { StudyPlan } from '../src/study/plan.ts';
import type { StudyCost } from '../src/study/results.ts';
import { busyCores, busyNote, round, thisMachine } from './statistics.ts';

const FOLDER = '.cache/bench/study';
const STUDY = join(FOLDER, 'study.yaml');
/** How far the plan may be off, and what sharing must bring. */
const PLAN_OFF = 0.25;
const LEAST_GAIN = 2;

/** A short recipe: most of it is stage 1, which the variants of stage 2 share. */
const set = [
  'data.train_scenes=400',
  'data.evaluation_scenes=20',
  'stages.0.steps=600',
  'stages.0.batch_size=4',
  'stages.1.epochs=',
  'stages.1.steps=40',
  'stages.1.batch_size=4',
];
const study = {
  name: 'Eight variants of stage 2',
  recipe: 'recipes/emoji-tiny.yaml',
  set,
  factors: [
    { name: 'rate', field: 'stages.1.lr', levels: [5e-4, 1e-3, 2e-3, 4e-3] },
    { name: 'decay', field: 'stages.1.weight_decay', levels: [0, 0.1] },
  ],
  seeds: 5,
  score: { splits: ['unseen-artist'] },
};

interface Options {
  json?: boolean;
  kills: number;
}

export function register(program: Command): void {
  program
    .command('study')
    .description('a study of 8 variants and 5 seeds: its plan, its bits after kills, and what sharing brings')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option('--kills <n>', 'how often it is killed', parseCount, 10)
    .action(benchStudy);
}

const start = (words: readonly string[], stdio: 'pipe' | 'ignore'): ChildProcess =>
  spawn(process.execPath, ['bin/llava-gemma.js', ...words], { stdio: ['ignore', stdio, stdio] });

/** Runs a command to its end, and how many seconds that took. UserError with what it said where it fails. */
async function finished(words: readonly string[]): Promise<{ seconds: number; stdout: string }> {
  const began = performance.now();
  const child = start(words, 'pipe');
  const [out, said]: [string[], string[]] = [[], []];
  child.stdout!.setEncoding('utf8').on('data', (text: string) => void out.push(text));
  child.stderr!.setEncoding('utf8').on('data', (text: string) => void said.push(text));
  const code = await new Promise((resolve) => child.on('close', resolve));
  if (code !== 0) throw new UserError(`llava-gemma ${words.join(' ')}: ${said.join('').trim().split('\n').at(-1)}`);
  return { seconds: (performance.now() - began) / 1000, stdout: out.join('') };
}

/** Kills the study at random moments, and lets it go on in between. */
async function killed(out: string, times: number, whole: number): Promise<number> {
  const random = createRandom(1, 'kills');
  let kills = 0;
  while (kills < times) {
    const child = start(['study', STUDY, '--out', out], 'ignore');
    // all sittings together stay below the whole
    const timer = setTimeout(() => child.kill('SIGKILL'), (1 + (random.uniform() * whole) / times) * 1000);
    const signal = await new Promise((resolve) => child.on('close', (_code, by) => resolve(by)));
    clearTimeout(timer);
    if (signal !== 'SIGKILL') break;
    kills++;
  }
  return kills;
}

async function benchStudy({ json, kills: asked }: Options): Promise<void> {
  const log = json ? console.error : console.log;
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(STUDY, stringify(study));
  log(`${cpus()[0].model.trim()}, ${availableParallelism()} cores`);
  const before = await busyCores();
  const plan = JSON.parse((await finished(['study', STUDY, '--plan', '--json'])).stdout) as StudyPlan;
  log(`planned: ${plan.seconds.total.toFixed(0)} s, ${plan.cpuSeconds.total.toFixed(0)} s of CPU time; ${plan.runs} runs`);

  const straight = join(FOLDER, 'straight');
  const { seconds } = await finished(['study', STUDY, '--out', straight]);
  const cost = JSON.parse(readFileSync(join(straight, 'cost.json'), 'utf8')) as StudyCost;
  const cpu = [...cost.runs, ...cost.pieces].reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
  const off = { time: plan.seconds.total / seconds - 1, cpu: plan.cpuSeconds.total / cpu - 1 };
  const percent = (share: number) => `${share > 0 ? '+' : ''}${(100 * share).toFixed(0)} %`;
  log(`took: ${seconds.toFixed(0)} s, ${cpu.toFixed(0)} s of CPU time; the plan is off by ${percent(off.time)} and ${percent(off.cpu)}`);

  const [run] = cost.runs;
  const alone = await finished(['train', join(straight, 'runs', run.id, 'recipe.yaml'), '--out', join(FOLDER, 'alone')]);
  const gain = (alone.seconds * plan.runs) / seconds;
  log(
    `one run by itself, without the exchanged pictures: ${alone.seconds.toFixed(1)} s; ${plan.runs} of them take ${gain.toFixed(1)} x as long`,
  );

  const other = join(FOLDER, 'killed');
  const kills = await killed(other, asked, seconds);
  await finished(['study', STUDY, '--out', other]);
  const resultOf = (out: string) => readFileSync(join(out, 'study.json'), 'utf8');
  const isSame = resultOf(straight) === resultOf(other);
  log(`killed ${kills} times and gone on: study.json is ${isSame ? 'the same to the bit' : 'ANOTHER'}`);
  const { busy, note } = busyNote(before, await busyCores());
  if (note) log(note);
  if (json)
    console.log(
      JSON.stringify({
        benchmark: 'study',
        machine: { ...thisMachine(), busy_cores: busy },
        runs: plan.runs,
        planned: { seconds: round(plan.seconds.total, 1), cpu_seconds: round(plan.cpuSeconds.total, 1) },
        took: { seconds: round(seconds, 1), cpu_seconds: round(cpu, 1) },
        alone_seconds: round(alone.seconds, 1),
        sharing_gain: round(gain, 2),
        kills,
        same_bits: isSame,
      }),
    );
  const isWhole = existsSync(other) && readdirSync(join(other, 'records')).every((name) => !name.endsWith('.sittings'));
  const wrong = [
    ...(isSame && isWhole ? [] : ['what was killed ended otherwise']),
    ...(kills === asked ? [] : [`it ended after ${kills} kills`]),
    ...(Math.abs(off.time) <= PLAN_OFF ? [] : [`the plan is off by more than ${PLAN_OFF * 100} %`]),
    ...(gain >= LEAST_GAIN ? [] : [`sharing brings less than ${LEAST_GAIN} x`]),
  ];
  if (wrong.length > 0) throw new UserError(wrong.join('; '));
}
