// How much memory a process takes.

import { readFileSync } from 'node:fs';
import type { MemoryUse } from './metrics.ts';

/** Fields of /proc/<pid>/status: what is resident, the most that it was, and its parts. */
export type MemoryField = 'VmRSS' | 'VmHWM' | 'RssAnon' | 'RssFile';

/**
 * Memory of a process as Linux counts it, in MB of 2^20 bytes; undefined where the system does not say, or
 * the process is gone.
 */
export function processMb(field: MemoryField, pid: number | 'self' = 'self'): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
    return kib === undefined ? undefined : Number(kib) / 1024;
  } catch {
    return undefined;
  }
}

/** Of this process, now. */
export function memoryUse(): MemoryUse {
  const rssMb = process.memoryUsage.rss() / 2 ** 20;
  const anonymousMb = processMb('RssAnon');
  return anonymousMb === undefined ? { rssMb } : { rssMb, anonymousMb };
}
