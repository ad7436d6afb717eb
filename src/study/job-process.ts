// The process of one piece of a study (job.ts).

import { serveParent } from '../train/child-side.ts';
import type { Job } from './job.ts';
import { doWork } from './job-work.ts';
import type { MeasureTimes } from './measures.ts';

serveParent<Job, MeasureTimes>(doWork);
