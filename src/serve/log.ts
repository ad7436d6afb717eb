// What is noted of each request: a line on stderr.

export interface LogEntry {
  method: string;
  path: string;
  status: number;
  ms: number;
  promptTokens?: number;
  tokens?: number;
  /** Why an answer ended before its end. */
  ended?: string;
}

/** Of a request that is under way. */
export interface RequestRecord {
  /** `performance.now()` at its beginning. */
  readonly start: number;
  /** To be called once, at the very end. */
  finish(entry: Omit<LogEntry, 'method' | 'path' | 'ms'>): void;
}

/** One line: when, what was asked, how it ended, how long it took, and tokens of prompt and answer. */
export function logLine({ method, path, status, ms, promptTokens, tokens, ended }: LogEntry, now = new Date()): string {
  // what a client has written must not look like lines of ours
  const shown = JSON.stringify(path.slice(0, 200)).slice(1, -1);
  const counts = tokens === undefined ? '' : ` ${promptTokens}+${tokens} tokens`;
  return `${now.toISOString()} ${method} ${shown} ${status} ${Math.round(ms)} ms${counts}${ended ? ` (${ended})` : ''}`;
}
