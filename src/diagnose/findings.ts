// What a diagnosis says: signs with their numbers, what healthy looks like, where the threshold comes from,
// and what to do.

/**
 * `unknown` could not be measured; `info` is a number without a threshold, to be compared with that of
 * others.
 */
export type Level = 'red' | 'amber' | 'green' | 'unknown' | 'info';

export interface Finding {
  /** Name of the sign. */
  sign: string;
  level: Level;
  /** What was found, in words with its numbers. */
  found: string;
  numbers: Record<string, number>;
  healthy: string;
  /** Of the threshold: a paper, or `ours`. */
  source: string;
  /** What to do; empty where nothing is wrong. */
  advice: string;
  /** Where in a run it was seen first. */
  at?: { stage: string; step: number };
}

const severity: Record<Level, number> = { red: 0, amber: 1, unknown: 2, info: 3, green: 4 };

/** Signs in the order in which one causes the next. */
const CAUSES = [
  'not-finite',
  'learning-rate',
  'dead-gradient',
  'label-shift',
  'label-mask',
  'untrained-connector',
  'stage-1-skipped',
  'unmoved-weights',
  'collapsed-connector',
  'norm-mismatch',
  'no-attention',
  'visual-sinks',
  'overfitting',
  'image-ignored',
  'same-rows',
  'yes-bias',
  'constant-answer',
  'repeated-answers',
  'unparsed-answers',
  'modality-gap',
  'mir',
];

const place = ({ sign }: Finding) => (CAUSES.includes(sign) ? CAUSES.indexOf(sign) : CAUSES.length);

/** The worst first; of equals, those that cause others before these. */
export const rankFindings = (findings: readonly Finding[]): Finding[] =>
  findings.toSorted((a, b) => severity[a.level] - severity[b.level] || place(a) - place(b));

/** What is said of a sign, and at which level. */
export interface Verdict {
  level: Level;
  found: string;
  numbers?: Record<string, number>;
  at?: Finding['at'];
}

export const short = (value: number) => String(Number(value.toPrecision(3)));
export const percent = (share: number) => `${short(100 * share)} %`;

/** A finding, with advice only where something is wrong. */
export function findingOf(
  sign: { sign: string; healthy: string; source: string; advice: string },
  { numbers = {}, ...verdict }: Verdict,
): Finding {
  const isWrong = verdict.level === 'red' || verdict.level === 'amber';
  return { ...sign, ...verdict, numbers, advice: isWrong ? sign.advice : '' };
}
