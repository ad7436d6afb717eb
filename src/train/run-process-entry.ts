// The process that `trainInProcess` starts.

import { openEngine } from '../engine/devices.ts';
import type { RunSummary } from '../runs/folder.ts';
import { serveParent } from './child-side.ts';
import { deviceOf, train } from './run.ts';
import type { ProcessRun } from './run-process.ts';

serveParent<ProcessRun, RunSummary>(async ({ threads, ...run }, context) => {
  const engine = await openEngine(deviceOf(run.recipe), threads === undefined ? {} : { threads });
  return train({ ...run, ...context, engine });
});
