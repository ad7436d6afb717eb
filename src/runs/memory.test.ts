import { expect, it } from 'vitest';
import { anonymousMbOf, memoryUse } from './memory.ts';

it('reads what is resident and no file from the system', () => {
  expect(anonymousMbOf('VmRSS:\t  9000 kB\nRssAnon:\t    2048 kB\nRssFile:\t 1 kB\n')).toBe(2);
  expect(anonymousMbOf('VmRSS:\t  9000 kB\n')).toBeUndefined();
  const { rssMb, anonymousMb } = memoryUse();
  expect(rssMb).toBeGreaterThan(10);
  if (process.platform === 'linux') expect(anonymousMb).toBeLessThan(rssMb);
});
