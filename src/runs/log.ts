// What a run reports while it is on, written to all who read it.

import type { FolderLock } from '../folder-lock.ts';
import type { RunFolder } from './folder.ts';
import { type MetricEvent, type NewMetricEvent, openMetrics } from './metrics.ts';
import { openTensorboard } from './tensorboard.ts';

export interface Log {
  events: MetricEvent[];
  write(event: NewMetricEvent): void;
  close(): void;
}

/** Of a process that writes nothing. */
export const silentLog: Log = { events: [], write() {}, close() {} };

/** The log of a run that goes on after the events of `past`. Nothing is written once the lock is lost. */
export function openLog(folder: RunFolder, past: MetricEvent[], lock: FolderLock): Log {
  const metrics = openMetrics(folder.metrics);
  const tensorboard = openTensorboard(folder.path, past);
  const events = [...past];
  return {
    events,
    write(event) {
      lock.check();
      const timed = metrics.write(event);
      tensorboard.write(timed);
      events.push(timed);
    },
    close() {
      metrics.close();
      tensorboard.close();
    },
  };
}
