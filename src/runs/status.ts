// The status of a run on stderr: one line, redrawn in place on a terminal, printed at log steps elsewhere.
import { createColors } from 'picocolors';

export interface Progress {
  stage: string;
  /** Position of the stage, from 1, and the number of stages. */
  stageNumber: number;
  stageCount: number;
  /** Finished optimizer steps. */
  step: number;
  totalSteps: number;
  loss: number;
  learningRate: number;
  tokensPerSecond: number;
}

/** `75` -> `1:15`, `3675` -> `1:01:15`. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** The text of the status line. `eta` is in seconds, undefined before it is known. */
export function formatProgress(progress: Progress, eta: number | undefined): string {
  const width = String(progress.totalSteps).length;
  const stage = progress.stageCount > 1 ? `${progress.stageNumber}/${progress.stageCount} ${progress.stage}` : progress.stage;
  return [
    stage,
    `step ${String(progress.step).padStart(width)}/${progress.totalSteps}`,
    `loss ${progress.loss.toFixed(4)}`,
    `lr ${progress.learningRate.toExponential(2)}`,
    `${Math.round(progress.tokensPerSecond).toLocaleString('en')} tokens/s`,
    `ETA ${eta === undefined ? '-' : formatDuration(eta)}`,
  ].join('  ');
}

/**
 * Highest resident memory of this process so far, in MB of 2^20 bytes (libuv reports KiB on every platform).
 */
export function peakRssMb(): number {
  return process.resourceUsage().maxRSS / 1024;
}

export interface Status {
  /**
   * Call after each optimizer step; `logged` says whether this step's metrics were written, which is when
   * plain lines are printed.
   */
  update(progress: Progress, logged: boolean): void;
  /** How far something is that takes a while beside the steps. Call as often as there is something to say. */
  progress(text: string): void;
  /** A line that stays, such as the start of a stage. */
  note(text: string): void;
  /** Ends, leaving the last status line on the screen. */
  close(): void;
}

/** Tells nobody. */
export const silentStatus: Status = { update() {}, progress() {}, note() {}, close() {} };

/** The part of a stream that a status needs. */
export interface StatusStream {
  write(text: string): unknown;
  isTTY?: boolean;
  columns?: number;
}

const REDRAW_SECONDS = 0.1;

/** Where there is no terminal, progress is told after this time, and then as often. */
const TELL_SECONDS = 10;

/** One line that is redrawn in place. */
export interface StatusLine {
  /** Whether there is a terminal to draw on; elsewhere, callers print what matters with `note`. */
  isInPlace: boolean;
  /** Draws the line, at most ten times a second unless it is the last one. */
  draw(line: string, isLast?: boolean): void;
  /** A line that stays. */
  note(text: string): void;
  /** Erases the line. */
  clear(): void;
  /** Ends, leaving the line on the screen. */
  close(): void;
}

/**
 * A line on `stream`; `now` gives seconds. In CI, lines are plain even if the stream claims to be a terminal.
 */
export function createStatusLine(
  stream: StatusStream = process.stderr,
  now: () => number = () => performance.now() / 1000,
  isCI: boolean = Boolean(process.env.CI),
): StatusLine {
  const isInPlace = stream.isTTY === true && !isCI;
  const colors = createColors(isInPlace && !process.env.NO_COLOR);
  let drawnAt = Number.NEGATIVE_INFINITY;
  let isDrawn = false;
  const clear = () => {
    if (isDrawn) stream.write('\r\x1b[K');
    isDrawn = false;
  };
  return {
    isInPlace,
    draw(line, isLast = false) {
      if (!isInPlace || (!isLast && now() - drawnAt < REDRAW_SECONDS)) return;
      clear();
      // A line longer than the terminal would wrap, and could not be erased.
      stream.write(colors.dim(line.slice(0, (stream.columns ?? 80) - 1)));
      drawnAt = now();
      isDrawn = true;
    },
    note(text) {
      clear();
      stream.write(`${text}\n`);
    },
    clear,
    close() {
      if (isDrawn) stream.write('\n');
      isDrawn = false;
    },
  };
}

/** The status of a run, on a status line as above. */
export function createStatus(
  stream: StatusStream = process.stderr,
  now: () => number = () => performance.now() / 1000,
  isCI: boolean = Boolean(process.env.CI),
): Status {
  const status = createStatusLine(stream, now, isCI);
  let stage: string | undefined;
  let firstStep = 0;
  let firstTime = 0;
  let toldAt = now();
  return {
    progress(text) {
      if (status.isInPlace) return status.draw(text);
      if (now() - toldAt < TELL_SECONDS) return;
      toldAt = now();
      status.note(text);
    },
    update(progress, logged) {
      if (progress.stage !== stage) {
        stage = progress.stage;
        firstStep = progress.step;
        firstTime = now();
      }
      const done = progress.step - firstStep;
      const eta = done > 0 ? ((now() - firstTime) / done) * (progress.totalSteps - progress.step) : undefined;
      const line = formatProgress(progress, eta);
      if (status.isInPlace) status.draw(line, progress.step === progress.totalSteps);
      else if (logged) status.note(line);
    },
    note: status.note,
    close: status.close,
  };
}
