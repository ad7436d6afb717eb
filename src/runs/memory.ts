// How much memory this process takes.

import { readFileSync } from 'node:fs';
import type { MemoryUse } from './metrics.ts';

/** Of the text of /proc/<pid>/status, what is resident and no file's, in MB of 2^20 bytes. */
export function anonymousMbOf(status: string): number | undefined {
  const kib = /^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1];
  return kib === undefined ? undefined : Number(kib) / 1024;
}

/** Of this process, now. */
export function memoryUse(): MemoryUse {
  const rssMb = process.memoryUsage.rss() / 2 ** 20;
  if (process.platform !== 'linux') return { rssMb };
  try {
    const anonymousMb = anonymousMbOf(readFileSync('/proc/self/status', 'utf8'));
    return anonymousMb === undefined ? { rssMb } : { rssMb, anonymousMb };
  } catch {
    // /proc need not be there
    return { rssMb };
  }
}
