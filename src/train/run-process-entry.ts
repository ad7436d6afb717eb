// The process that `trainInProcess` starts.

import { createOrtEngine } from '../engine/ort.ts';
import type { RunSummary } from '../runs/folder.ts';
import { serveParent } from './child-side.ts';
import { train } from './run.ts';
import type { ProcessRun } from './run-process.ts';

serveParent<ProcessRun, RunSummary>(({ threads, ...run }, context) =>
  train({ ...run, ...context, engine: createOrtEngine(threads === undefined ? {} : { threads }) }),
);
