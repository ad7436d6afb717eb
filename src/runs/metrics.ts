// metrics.jsonl, the source of truth about a run: one JSON object per line, appended in one write as it
// happens, so that a killed run loses at most part of its last line. TensorBoard files and reports are made
// from it.
import { appendFileSync, closeSync, existsSync, openSync, readFileSync, truncateSync } from 'node:fs';
import { onDisk } from '../disk.ts';
import type { Scores } from '../evaluate/samples.ts';

interface EventBase {
  stage: string;
  /** Optimizer steps of this stage that were finished when the event happened. */
  step: number;
  /** Seconds since 1970. */
  time: number;
}

/** Measurements over the steps since the last such event. */
export interface StepEvent extends EventBase {
  type: 'step';
  /** Passes over the stage's data so far. */
  epoch: number;
  /** Mean loss per label, in nats. */
  loss: number;
  learningRate: number;
  /** Global norm of the gradient before clipping. */
  gradNorm: number;
  tokensPerSecond: number;
  /** Seconds spent in this stage so far, over all sessions of a resumed run. */
  seconds: number;
  /** Seconds a step waited for its batches. Runs of earlier versions have none of these three. */
  dataWait?: number;
  memory?: MemoryUse;
  /** By module: norm of its gradient before clipping; size of the last update, as a share of the weights. */
  modules?: Record<string, ModuleMeasures>;
  /** Anything specific to a task, such as the accuracy of contrastive retrieval. */
  extra?: Record<string, number>;
}

/** Of this process, in MB of 2^20 bytes. */
export interface MemoryUse {
  rssMb: number;
  /** What is not a file's: the rest can be read again. Where the system tells it apart (Linux). */
  anonymousMb?: number;
}

export interface ModuleMeasures {
  gradNorm: number;
  /** Norm of the last update, divided by that of the weights before it. */
  updateRatio: number;
}

/** Parameters of a stage that have one learning rate and one weight decay. */
export interface TrainedGroup {
  /** The module, and the patterns that decide. */
  name: string;
  tensors: number;
  /** How many of them are matrices, which alone decay. */
  decayed: number;
  /** How many have moments in 8-bit codes, if there are any. */
  coded?: number;
  numbers: number;
  /** Peak learning rate. */
  learningRate: number;
  weightDecay: number;
}

/** What a stage trains, before its first step. */
export interface TrainsEvent extends EventBase {
  type: 'trains';
  groups: TrainedGroup[];
  /** Numbers that stay as they are. */
  frozen: number;
}

/** The loss of samples that are not trained on. */
export interface HeldOutEvent extends EventBase {
  type: 'held-out';
  seconds: number;
  /** Mean loss per label, in nats. */
  loss: number;
  samples: number;
  /** How much larger the loss is with the pictures of other samples; left out where there are no others. */
  imageGain?: number;
}

/** Something looks wrong with the training. */
export interface WarningEvent extends EventBase {
  type: 'warning';
  sign: Sign;
  /** The module that shows it, if it is one. */
  module?: string;
  /** In one sentence. */
  message: string;
}

/** What warnings are about: docs/training.md says when each is given. */
export type Sign =
  | 'loss-spike'
  | 'gradient-spike'
  | 'not-finite'
  | 'dead-gradient'
  | 'update-ratio'
  | 'unmoved-weights'
  | 'clipping'
  | 'learning-rate'
  | 'image-ignored'
  | 'overfitting';

/** A stage has ended. */
export interface StageEvent extends EventBase {
  type: 'stage';
  seconds: number;
  firstLoss: number;
  lastLoss: number;
  /** Samples that were left out, if there are any. */
  skipped?: number;
}

/** The model was scored. */
export interface EvaluationEvent extends EventBase {
  type: 'evaluation';
  seconds: number;
  scores: Scores;
}

export type MetricEvent = TrainsEvent | StepEvent | HeldOutEvent | WarningEvent | StageEvent | EvaluationEvent;

/** An event as the trainer reports it; the time is added when it is written. */
export type NewMetricEvent = MetricEvent extends infer Event ? (Event extends MetricEvent ? Omit<Event, 'time'> : never) : never;

/** Where a run resumes: the stages finished before, the stage in progress and its finished steps. */
export interface ResumePoint {
  finishedStages: readonly string[];
  stage: string;
  step: number;
}

/** JSON has no NaN and no infinity and writes them as null; no event has a null of its own. */
const notFinite = (_key: string, value: unknown) => (value === null ? Number.NaN : value);

/**
 * The events of a file, each with the byte offset of its end; numbers that were not finite are NaN. Stops
 * before a line that is cut off or not JSON.
 */
function readLines(path: string): { event: MetricEvent; end: number }[] {
  const bytes = onDisk(path, () => readFileSync(path));
  const lines: { event: MetricEvent; end: number }[] = [];
  let start = 0;
  for (let end = bytes.indexOf(10, start); end >= 0; end = bytes.indexOf(10, start)) {
    try {
      lines.push({ event: JSON.parse(bytes.toString('utf8', start, end), notFinite) as MetricEvent, end: end + 1 });
    } catch {
      break;
    }
    start = end + 1;
  }
  return lines;
}

/** All events of a run; none if the file is absent. */
export function readMetrics(path: string): MetricEvent[] {
  return existsSync(path) ? readLines(path).map(({ event }) => event) : [];
}

/**
 * Truncates the file after the last event that a run resumed at `point` does not repeat. Returns the events
 * that remain.
 */
export function truncateMetrics(path: string, point: ResumePoint): MetricEvent[] {
  if (!existsSync(path)) return [];
  const lines = readLines(path);
  const ended = new Set<string>();
  const staysDone = ({ type, stage, step }: MetricEvent) => {
    if (type === 'stage') ended.add(stage);
    // the scoring of a finished model comes after all stages, and is never finished if a run is resumed
    if (type === 'evaluation' && ended.has(stage)) return false;
    return point.finishedStages.includes(stage) || (stage === point.stage && step <= point.step);
  };
  const firstRepeated = lines.findIndex(({ event }) => !staysDone(event));
  const kept = firstRepeated < 0 ? lines : lines.slice(0, firstRepeated);
  onDisk(path, () => truncateSync(path, kept.at(-1)?.end ?? 0));
  return kept.map(({ event }) => event);
}

export interface MetricsWriter {
  /** Appends an event and returns it with its time. */
  write(event: NewMetricEvent): MetricEvent;
  close(): void;
}

/** UserError, also of `write`, where the disk is full or the file cannot be written. */
export function openMetrics(path: string): MetricsWriter {
  const file = onDisk(path, () => openSync(path, 'a'));
  return {
    write(event) {
      const timed: MetricEvent = { ...event, time: Date.now() / 1000 };
      // all of the line, or an error
      onDisk(path, () => appendFileSync(file, `${JSON.stringify(timed)}\n`));
      return timed;
    },
    close: () => closeSync(file),
  };
}
