// Our side of `npm run bench -- stage`: `train` itself over a recipe, started as `node side.js <recipe> <run
// folder>`. It is held after each turn inside the status that the trainer reports to, so that the thread
// which prepares the data goes on as it does in a run. One request a line on stdin: {"steps": n}; one answer
// a line on descriptor 3.

import { readSync, writeFileSync, writeSync } from 'node:fs';
import { processMb } from '../../src/runs/memory.ts';
import { loadRecipe } from '../../src/train/recipe.ts';
import { train } from '../../src/train/run.ts';
import type { Turn } from '../train-step/held-stage.ts';

/** The answer that comes unasked, before the first step. */
export interface Greeting {
  /** Seconds that the frozen encoder took, and its pictures were read in; none where it did not run. */
  encodeSeconds: number;
}

export interface StageTurn extends Turn {
  /** Most that the process held in RAM during the turn, mapped files included, in 2^20 bytes; Linux only. */
  peak_mb: number;
  /** The same without mapped files, as far as its last moment tells. */
  mapped_mb: number;
}

const [recipe, out] = process.argv.slice(2);
const answer = (value: object) => writeSync(3, `${JSON.stringify(value)}\n`);

/** The next line of stdin; the process sleeps until it comes. */
function readLine(): string {
  const byte = Buffer.alloc(1);
  let line = '';
  while (readSync(0, byte) === 1 && byte[0] !== 10) line += byte.toString();
  return line;
}

/** Begins to look for the most that is held. */
function forgetPeak(): void {
  // Linux, proc(5): 5 sets VmHWM to what is held now
  writeFileSync('/proc/self/clear_refs', '5');
}

let left = 0;
let turn: StageTurn;
let began = { time: 0, cpu: process.cpuUsage() };

function waitForTurn(): void {
  const line = readLine();
  if (line === '') process.exit(0);
  left = (JSON.parse(line) as { steps: number }).steps;
  turn = { ms: [], cpu_ms: [], losses: [], peak_mb: 0, mapped_mb: 0 };
  forgetPeak();
  began = { time: performance.now(), cpu: process.cpuUsage() };
}

const started = { encoding: Number.NaN };
await train({
  recipe: loadRecipe(recipe),
  title: 'bench stage',
  out,
  mode: 'overwrite',
  signal: new AbortController().signal,
  status: {
    note(text) {
      if (text.startsWith('encoding pictures')) started.encoding = performance.now();
      if (!/^stage \S+ trains /.test(text)) return;
      answer({ encodeSeconds: Number.isNaN(started.encoding) ? 0 : (performance.now() - started.encoding) / 1000 } satisfies Greeting);
      waitForTurn();
    },
    update({ loss }) {
      const { user, system } = process.cpuUsage(began.cpu);
      turn.ms.push(performance.now() - began.time);
      turn.cpu_ms.push((user + system) / 1000);
      turn.losses.push(loss);
      if (--left === 0) {
        answer({ ...turn, peak_mb: processMb('VmHWM') ?? 0, mapped_mb: processMb('RssFile') ?? 0 } satisfies StageTurn);
        waitForTurn();
      } else began = { time: performance.now(), cpu: process.cpuUsage() };
    },
    progress() {},
    close() {},
  },
});
