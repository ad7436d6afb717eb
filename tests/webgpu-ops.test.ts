// Every op on ONNX Runtime's WebGPU provider, against float64 loops (op-cases.ts); no node of them may run on
// the CPU, or the session does not open.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CASES, checkCases } from './op-cases.ts';
import { webgpu } from './webgpu.ts';

/** Few, because a software adapter takes long to compile their shaders. */
const CASES_PER_OP = 4;
/** Ops that this engine refuses, by name. */
const REFUSED = ['takeLast'];
/** float32 as shaders have it: exp, tanh and the like are good to a few units in the last place. */
const TOLERANCE = 3e-5;

describe.skipIf(!webgpu)('ops on WebGPU', () => {
  for (const [op, cases] of Object.entries(CASES))
    test(op, async () => {
      const sample = fc.sample(cases, { numRuns: CASES_PER_OP, seed: 1 }).filter(({ label }) => !label.includes('float16'));
      const check = checkCases(webgpu!, sample, { tolerance: TOLERANCE, checked: false });
      if (REFUSED.includes(op)) await expect(check).rejects.toThrow(`${op}: ONNX Runtime has no kernel for WebGPU`);
      else await check;
    });
});
