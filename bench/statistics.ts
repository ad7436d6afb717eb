// Numbers of a run: medians, and how busy the machine is without us.

import { readFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

export { median } from '../src/arrays.ts';

/** Pause before a turn, in ms: threads of the side before may spin for a moment before they sleep. */
export const PAUSE = 200;

export const round = (value: number, digits: number) => Number(value.toFixed(digits));

/** Cores that other processes may keep busy without a word about it. */
const QUIET = 0.2;

/** Looks before a machine is called busy: a side that has just loaded frees memory for seconds. */
const LOOKS = 6;

/** What figures are to be read beside. */
export const thisMachine = () => ({ cpu: cpus()[0].model.trim(), cores: availableParallelism(), node: process.version });

/** Cores' worth of work that the machine does in a second in which we do none: the least of some looks. */
export async function busyCores(): Promise<number> {
  const spent = () => cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
  let least = Number.POSITIVE_INFINITY;
  for (let look = 0; look < LOOKS && least > QUIET; look++) {
    await sleep(PAUSE);
    const [start, work] = [performance.now(), spent()];
    await sleep(1000);
    least = Math.min(least, (spent() - work) / (performance.now() - start));
  }
  return least;
}

/**
 * The larger of two looks at the machine, before and after the turns, and a sentence where it was not idle.
 */
export function busyNote(before: number, after: number): { busy: number; note?: string } {
  const busy = round(Math.max(before, after), 2);
  return busy > QUIET ? { busy, note: `other processes keep ${busy} cores busy: no ratio of times is to be trusted` } : { busy };
}

/** CPU seconds of a process so far; undefined where there is no /proc. */
export function cpuSeconds(pid: number): number | undefined {
  try {
    // behind the name, which may have spaces: utime and stime are fields 14 and 15, in hundredths
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return undefined;
  }
}
