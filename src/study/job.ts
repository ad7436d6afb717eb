// What a study has done in processes of their own, one for each piece, and what they say of it. A process
// ends when the study does, however that ends.

import { type ChildProcess, fork } from 'node:child_process';
import type { LlavaRecipe } from '../train/recipe.ts';
import type { BenchmarkAsked } from './measures.ts';

export interface Job {
  kind: 'features' | 'stages' | 'run';
  recipe: LlavaRecipe;
  title: string;
  /** Of the run. */
  out: string;
  threads: number;
  /** Of a run: what is measured once it is trained, and where that goes. */
  measures?: { out: string; exchanged: boolean; benchmarks: BenchmarkAsked[] };
}

export type Outcome =
  | { kind: 'finished'; seconds: number; cpuSeconds: number; peakRssMb: number }
  | { kind: 'diverged'; stage: string; step: number; seconds: number; cpuSeconds: number; peakRssMb: number }
  /** What is wrong with recipe, data or machine; of others there is a stack. */
  | { kind: 'failed'; message: string }
  | { kind: 'stopped' };

export type ToParent =
  | { type: 'step'; stage: string; step: number; totalSteps: number }
  | { type: 'note'; text: string }
  | { type: 'end'; outcome: Outcome };
export type ToChild = { type: 'begin'; job: Job } | { type: 'stop' };

/** Node 20 runs no TypeScript: tests start the process that was built from it. */
const processFile = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/study/job-process.js', import.meta.url)
  : new URL('./job-process.js', import.meta.url);

export interface RunningJob {
  outcome: Promise<Outcome>;
  /** Asks it to save and to end. */
  stop(): void;
}

/** Starts a job. It never rejects: what goes wrong is an outcome. */
export function startJob(job: Job, onMessage: (message: ToParent) => void): RunningJob {
  // a Ctrl-C reaches all processes of a terminal: this one passes it on, and the job heeds only that
  const child: ChildProcess = fork(processFile, { execArgv: [], stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let said = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-4000);
  });
  const outcome = new Promise<Outcome>((resolve) => {
    let end: Outcome | undefined;
    child.on('message', (message: ToParent) => {
      if (message.type === 'end') end = message.outcome;
      onMessage(message);
    });
    child.on('error', (error) => resolve({ kind: 'failed', message: error.message }));
    child.on('close', (code, signal) => {
      const why = signal
        ? `its process was ended by ${signal}${signal === 'SIGKILL' ? ' (out of memory?)' : ''}`
        : `its process ended with code ${code}: ${said.trim()}`;
      resolve(end ?? { kind: 'failed', message: why });
    });
  });
  const send = (message: ToChild) => void (child.connected && child.send(message, () => {}));
  send({ type: 'begin', job });
  return { outcome, stop: () => send({ type: 'stop' }) };
}
