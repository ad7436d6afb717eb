// Whether a process of this machine lives, told by more than its pid, which another may have by now.

import { readFileSync, readlinkSync } from 'node:fs';
import { hostname } from 'node:os';

/** PF_EXITING of Linux: the process runs no code of its own any more, but its memory is still being freed. */
const EXITING = 0x4;

/** What a process is known by, on the machine that it runs on. */
export interface ProcessIdentity {
  pid: number;
  /** The machine as it is since it was started, and the pid's name space; undefined where unknown. */
  machine?: string;
  /** When the process was started, in the machine's own count; undefined where it is unknown. */
  started?: string;
}

/**
 * State, whether it is ending, and start of a process on Linux, fields 3, 9 and 22 of /proc/<pid>/stat;
 * undefined where there is none.
 */
function processStat(pid: number): { state: string; isEnding: boolean; started: string } | undefined {
  try {
    // the name before the fields is in parentheses and may hold anything
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return { state: fields[0], isEnding: (Number(fields[6]) & EXITING) !== 0, started: fields[19] };
  } catch {
    return undefined;
  }
}

/** Names what a pid means something within: a boot of Linux and a name space, elsewhere the host. */
function machineName(): string {
  try {
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()} ${readlinkSync('/proc/self/ns/pid')}`;
  } catch {
    return hostname();
  }
}

export function thisProcess(): ProcessIdentity {
  const { pid } = process;
  return { pid, machine: machineName(), started: processStat(pid)?.started };
}

/**
 * Whether a process lives, is `ending` (it was killed, and its memory is being freed), or is `gone`;
 * undefined where that cannot be seen from here.
 */
export function lifeOf({ machine, pid, started }: ProcessIdentity): 'running' | 'ending' | 'gone' | undefined {
  if (machine !== machineName()) return undefined;
  if (started !== undefined) {
    const stat = processStat(pid);
    if (stat === undefined || stat.started !== started || /[ZX]/.test(stat.state)) return 'gone';
    return stat.isEnding ? 'ending' : 'running';
  }
  try {
    process.kill(pid, 0);
    // a process of that number: this one, or a later one
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH' ? 'gone' : undefined;
  }
}
