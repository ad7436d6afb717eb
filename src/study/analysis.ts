// One score of a study: its cells beside what they must beat, effects and interactions, cells in pairs.

import type { Estimate } from '../statistics/estimate.ts';
import { holm } from '../statistics/families.ts';
import { twoWayMean } from '../statistics/linear-model.ts';
import { correlation, discordantPairs, mcnemar, oddsRatio } from '../statistics/paired.ts';
import { smallestShift } from '../statistics/power.ts';
import { meanCredit } from '../statistics/proportion.ts';
import { type Lenth, lenth } from '../statistics/unreplicated.ts';
import { BASELINES, type Baseline } from './answered.ts';
import type { ScoreTable } from './answers.ts';
import { combinations, type Effect, type EffectsModel, fitEffects, type ModelRun } from './effects.ts';
import type { StudyFactor } from './study-schema.ts';
import type { Study, Variant } from './variants.ts';

export interface CellScore {
  cell: string;
  seeds: number;
  /**
   * Mean credit over questions and seeds. With several seeds, errors are of questions and runs, else of
   * questions alone.
   */
  value: number;
  se: number;
  low: number;
  high: number;
  byRun: number[];
  baselines: Partial<Record<Baseline, number>>;
}

export interface PairScore extends Estimate {
  a: string;
  b: string;
  /** Of the family of all pairs. */
  pHolm: number;
  /** Of the credits of the two over questions, each a mean over seeds. */
  correlation: number;
  /**
   * Answers to the same question with the same seed of which exactly one is right; where credit is yes or
   * no.
   */
  onlyA?: number;
  onlyB?: number;
  oddsRatio?: number;
  midP?: number;
}

export interface SimpleEffect {
  factor: string;
  level: string;
  from: string;
  /** The other factor, and how large the effect is at each of its levels. */
  by: string;
  at: { level: string; effect: Estimate }[];
}

export interface ScoreAnalysis {
  score: string;
  questions: number;
  clusters: number;
  /** Questions that not all runs were asked: left out. */
  leftOut: number;
  cells: CellScore[];
  /** Whether runs of a cell differ in their seeds, so that noise between them is measured. */
  runNoise: boolean;
  /** Standard deviation of the scores of a cell between seeds, pooled; null with one seed. */
  runSd: number | null;
  main: Effect[];
  interactions: Effect[];
  simple: SimpleEffect[];
  notTold: EffectsModel['notTold'];
  pairs: PairScore[];
  /** The smallest effect that had an 80 % chance of being seen: of the main effect with the largest error. */
  smallestVisible: number | null;
  /** Of a study with one seed a cell: which effects stand out from the others. */
  lenth?: Lenth & { active: string[] };
}

/** Cells in pairs are listed for up to so many. */
const MOST_CELLS = 24;

/** `baseOf` says what a run begins with that others begin with too. */
export function analyzeScore(
  study: Study,
  table: ScoreTable,
  baseOf: (run: string) => string | undefined = () => undefined,
): ScoreAnalysis & { model: EffectsModel | undefined } {
  const pictures = table.questions.map(({ cluster }) => cluster);
  const runs = table.runs.map(
    ({ run, credits }): ModelRun => ({
      levels: run.variant.levels,
      run: run.id,
      base: baseOf(run.id),
      credits,
    }),
  );
  const model = fitEffects(modelFactors(study.factors), runs, pictures);
  const effects = model ? effectsOf(model) : { main: [], interactions: [] };
  const cells = study.variants.flatMap((variant) => cellScore(variant, table, pictures));
  const runSd = pooledSd(cells.map(({ byRun }) => byRun));
  const largest = Math.max(0, ...effects.main.map(({ se }) => se));
  const df = Math.min(...effects.main.map((effect) => effect.df));
  const isLenth = model !== undefined && !model.runNoise && effects.main.length + effects.interactions.length >= 3;
  return {
    model,
    score: table.name,
    questions: table.questions.length,
    clusters: new Set(pictures).size,
    leftOut: table.leftOut,
    cells,
    runNoise: model?.runNoise ?? false,
    runSd,
    ...effects,
    simple: model ? simpleEffects(model) : [],
    notTold: model?.notTold ?? [],
    pairs: pairsOf(study.variants, table, pictures),
    smallestVisible: largest > 0 && df > 0 ? largest * smallestShift(df) : null,
    ...(isLenth ? { lenth: lenthOf([...effects.main, ...effects.interactions]) } : {}),
  };
}

export const modelFactors = (factors: readonly StudyFactor[]) =>
  factors.map(({ name, levels }) => ({ name, levels: levels.map(({ label }) => label) }));

const runsOfVariant = (variant: Variant, { runs }: ScoreTable) => runs.filter(({ run }) => run.variant === variant);

const mean = (values: ArrayLike<number>) => Array.from(values).reduce((sum, value) => sum + value, 0) / values.length;

/** Standard deviation within groups, pooled; null without two values in one. */
function pooledSd(groups: readonly (readonly number[])[]): number | null {
  const squares = groups.reduce((sum, group) => sum + group.reduce((inner, value) => inner + (value - mean(group)) ** 2, 0), 0);
  const df = groups.reduce((sum, { length }) => sum + Math.max(0, length - 1), 0);
  return df > 0 ? Math.sqrt(squares / df) : null;
}

function cellScore(variant: Variant, table: ScoreTable, pictures: readonly string[]): CellScore[] {
  const runs = runsOfVariant(variant, table);
  if (runs.length === 0 || pictures.length === 0) return [];
  const values = runs.flatMap(({ credits }) => [...credits]);
  const byPicture = runs.flatMap(() => pictures);
  const byRun = runs.flatMap(({ run }) => pictures.map(() => run.id));
  const twoWay = runs.length > 1 ? twoWayMean(values, byPicture, byRun) : undefined;
  // where all answers are right, or all wrong, two ways know no error, and an interval without width would be
  // a claim
  const estimate = twoWay && twoWay.se > 0 ? twoWay : meanCredit(values, { clusters: byPicture });
  const baselines = Object.fromEntries(
    BASELINES.flatMap((name) => {
      const known = runs.flatMap(({ baselines: { [name]: value } }) => (value === undefined ? [] : [value]));
      return known.length > 0 ? [[name, mean(known)]] : [];
    }),
  );
  const { value, se, low, high } = estimate;
  return [
    {
      cell: variant.label,
      seeds: runs.length,
      value,
      se,
      low: Math.max(0, low),
      high: Math.min(1, high),
      byRun: runs.map(({ credits }) => mean(credits)),
      baselines,
    },
  ];
}

// === Effects ===

function effectsOf(model: EffectsModel): { main: Effect[]; interactions: Effect[] } {
  const all = model.terms.flatMap((names) =>
    combinations(model.factors, names).flatMap((levels) => {
      const estimate = model.effect(levels);
      return estimate ? [{ order: names.length, effect: { label: effectLabel(model, levels), ...estimate } }] : [];
    }),
  );
  const of = (isWanted: (order: number) => boolean) => all.filter(({ order }) => isWanted(order)).map(({ effect }) => effect);
  return { main: of((order) => order === 1), interactions: of((order) => order > 1) };
}

/** `depth: linear -> 4`, `stage 1: no x depth: 4`. */
export function effectLabel({ factors }: Pick<EffectsModel, 'factors'>, levels: Readonly<Record<string, string>>): string {
  const entries = Object.entries(levels);
  const first = (name: string) => factors.find((factor) => factor.name === name)!.levels[0];
  if (entries.length === 1) return `${entries[0][0]}: ${first(entries[0][0])} -> ${entries[0][1]}`;
  return entries.map(([name, level]) => `${name}: ${level}`).join(' x ');
}

/** The effect of each level of each factor at each level of each other. */
function simpleEffects(model: EffectsModel): SimpleEffect[] {
  return model.factors.flatMap(({ name, levels }) =>
    model.factors
      .filter((other) => other.name !== name)
      .flatMap((other) =>
        levels.slice(1).flatMap((level) => {
          const at = other.levels.flatMap((place) => {
            const effect = model.difference({ [name]: level, [other.name]: place }, { [name]: levels[0], [other.name]: place });
            return effect ? [{ level: place, effect }] : [];
          });
          return at.length > 1 ? [{ factor: name, level, from: levels[0], by: other.name, at }] : [];
        }),
      ),
  );
}

function lenthOf(effects: readonly Effect[]): Lenth & { active: string[] } {
  const result = lenth(effects.map(({ value }) => value));
  return { ...result, active: effects.filter(({ value }) => Math.abs(value) > result.margin).map(({ label }) => label) };
}

// === Pairs ===

function pairsOf(variants: readonly Variant[], table: ScoreTable, pictures: readonly string[]): PairScore[] {
  const cells = variants.map((variant) => ({ variant, runs: runsOfVariant(variant, table) })).filter(({ runs }) => runs.length > 0);
  if (cells.length > MOST_CELLS || pictures.length === 0) return [];
  const pairs = cells.flatMap((a, i) => cells.slice(i + 1).map((b) => pairScore(a, b, pictures)));
  const adjusted = holm(pairs.map(({ p }) => p));
  return pairs.map((pair, i) => ({ ...pair, pHolm: adjusted[i] }));
}

type CellRuns = { variant: Variant; runs: ScoreTable['runs'] };

function pairScore(a: CellRuns, b: CellRuns, pictures: readonly string[]): PairScore {
  const runs = [b, a].flatMap(({ runs: own }, arm) => own.map(({ run, credits }): ModelRun => ({ levels: [arm], run: run.id, credits })));
  const model = fitEffects([{ name: 'arm', levels: ['b', 'a'] }], runs, pictures)!;
  const estimate = model.effect({ arm: 'a' })!;
  const meanBy = ({ runs: own }: CellRuns) => pictures.map((_, i) => mean(own.map(({ credits }) => credits[i])));
  const names = { a: a.variant.label, b: b.variant.label };
  return {
    ...names,
    ...estimate,
    pHolm: estimate.p,
    correlation: correlation(meanBy(a), meanBy(b)),
    ...discordance(matched(a.runs, b.runs)),
  };
}

/** Runs of two sides with the same seed. */
function matched(a: ScoreTable['runs'], b: ScoreTable['runs']): [ArrayLike<number>, ArrayLike<number>][] {
  return a.flatMap(({ run, credits }) => {
    const other = b.find((each) => each.run.seed === run.seed);
    return other ? [[credits, other.credits] as [ArrayLike<number>, ArrayLike<number>]] : [];
  });
}

/** Of matched runs; nothing where credit is not yes or no. */
export function discordance(
  pairs: readonly [ArrayLike<number>, ArrayLike<number>][],
): Partial<Pick<PairScore, 'onlyA' | 'onlyB' | 'oddsRatio' | 'midP'>> {
  const isBinary = pairs.every((pair) => pair.every((credits) => Array.from(credits).every((credit) => credit === 0 || credit === 1)));
  if (!isBinary || pairs.length === 0) return {};
  const counts = pairs.map(([a, b]) => discordantPairs(a, b));
  const total = { onlyA: counts.reduce((sum, { onlyA }) => sum + onlyA, 0), onlyB: counts.reduce((sum, { onlyB }) => sum + onlyB, 0) };
  // McNemar takes answers for independent: those of one pair of runs
  return { ...total, oddsRatio: oddsRatio(total).value, ...(pairs.length === 1 ? { midP: mcnemar(total).midP } : {}) };
}

/** Runs that differ in one factor and in nothing else, `a` at the one level and `b` at the other. */
export function matchedByFactor(
  study: Study,
  table: ScoreTable,
  factor: string,
  [levelA, levelB]: readonly [string, string],
  at: Readonly<Record<string, string>> = {},
): [ArrayLike<number>, ArrayLike<number>][] {
  const labelsOf = (variant: Variant) =>
    Object.fromEntries(study.factors.map(({ name, levels }, i) => [name, levels[variant.levels[i]].label]));
  return table.runs.flatMap(({ run, credits }) => {
    const labels = labelsOf(run.variant);
    if (labels[factor] !== levelA || Object.entries(at).some(([name, level]) => labels[name] !== level)) return [];
    const wanted = JSON.stringify({ ...labels, [factor]: levelB });
    const other = table.runs.find((each) => each.run.seed === run.seed && JSON.stringify(labelsOf(each.run.variant)) === wanted);
    return other ? [[credits, other.credits] as [ArrayLike<number>, ArrayLike<number>]] : [];
  });
}
