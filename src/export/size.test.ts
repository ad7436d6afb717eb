import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { llavaConfigSchema } from '../models/llava.ts';
import { exportBytes } from './size.ts';

test('an export is told to be as large as it is, or a little larger', () => {
  const config = llavaConfigSchema.parse(JSON.parse(readFileSync('assets/models/tiny-llava/config.json', 'utf8')));
  // of docs/export.md, in MB
  const measured = {
    'transformers.js': { fp32: 24.6, fp16: 12.4, q8: 7.4, q4: 5.8, q4f16: 5.1 },
    'llama.cpp': { F32: 21.4, F16: 10.8, Q8_0: 8.5, Q4_0: 7.7 },
  } as const;
  for (const [to, sizes] of Object.entries(measured))
    for (const [dtype, megabytes] of Object.entries(sizes)) {
      const told = exportBytes(config, to as keyof typeof measured, [dtype]) / 1e6 / megabytes;
      expect(told, `${to} ${dtype}`).toBeGreaterThan(1);
      expect(told, `${to} ${dtype}`).toBeLessThan(1.25);
    }
});
