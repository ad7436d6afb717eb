import { expect, it } from 'vitest';
import { memoryUse, processMb } from './memory.ts';

it('reads what the system says of a process, its parts among it', () => {
  const { rssMb, anonymousMb } = memoryUse();
  expect(rssMb).toBeGreaterThan(10);
  if (process.platform === 'linux') {
    expect(anonymousMb).toBeLessThan(rssMb);
    expect(processMb('RssAnon', process.pid)! / anonymousMb!).toBeCloseTo(1, 1);
    expect(processMb('VmHWM')!).toBeGreaterThanOrEqual(processMb('VmRSS')! - 64);
    expect(processMb('VmRSS')!).toBeGreaterThan(processMb('RssFile')!);
  }
  // a process that is not there
  expect(processMb('VmRSS', 2 ** 22 + 1)).toBeUndefined();
});
