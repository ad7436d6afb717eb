// Effects and interactions of a study's factors on one score: a linear model of credit by question, errors
// clustered by picture and by run, or by what runs begin with where that makes them larger.

import { groupBy } from '../arrays.ts';
import { type Estimate, estimateOf } from '../statistics/estimate.ts';
import { type Cell, cellDifference, type Design, designOf, type Factor } from '../statistics/factors.ts';
import { contrast, fitLinearModel, type LinearModel } from '../statistics/linear-model.ts';
import { orthogonalize } from '../statistics/matrix.ts';

/** A number of points, its interval, and what it is of. */
export type Effect = Estimate & { label: string };

/** What the rows of a model are of: runs, with their levels. */
export interface ModelRun {
  /** Index of the level of each factor. */
  levels: readonly number[];
  /** Names the run. */
  run: string;
  /** What runs begin with that have the same stages before them; the run itself without. */
  base?: string;
  /** Credit by question. */
  credits: ArrayLike<number>;
}

export interface ModelFactor {
  name: string;
  levels: readonly string[];
}

/** Terms of the full design that the cells tell apart, and those that they do not. */
interface Told {
  names: string[];
  terms: Design['terms'];
  notTold: { term: string; from: string }[];
}

const termName = (factors: readonly string[]) => factors.join(' x ');

/**
 * Main effects first: what follows from terms before it is left out, with the term that it is the same as,
 * if it is one.
 */
function toldTerms(design: Design): Told {
  const column = new Map(design.names.map((name, i) => [name, design.columns[i]]));
  const names = ['(mean)'];
  const told: Told = { names, terms: [], notTold: [] };
  for (const term of design.terms) {
    const tried = [...names, ...term.columns].map((name) => column.get(name)!);
    if (orthogonalize(tried, new Float64Array(tried[0].length)).dependent === undefined) {
      names.push(...term.columns);
      told.terms.push(term);
      continue;
    }
    const isSame = (a: Float64Array, b: Float64Array) => a.every((value, i) => value === b[i]) || a.every((value, i) => value === -b[i]);
    const same = told.terms.find(
      (other) =>
        term.columns.length === 1 && other.columns.length === 1 && isSame(column.get(term.columns[0])!, column.get(other.columns[0])!),
    );
    told.notTold.push({ term: termName(term.factors), from: same ? termName(same.factors) : 'the effects before it' });
  }
  return told;
}

/** A factor of which at least two levels have runs, with these levels. */
function present(factors: readonly ModelFactor[], runs: readonly ModelRun[]) {
  return factors.flatMap((factor, index) => {
    const used = [...new Set(runs.map(({ levels }) => levels[index]))].sort((a, b) => a - b);
    return used.length < 2 ? [] : [{ index, name: factor.name, levels: used.map((level) => factor.levels[level]), used }];
  });
}

export interface EffectsModel {
  factors: ModelFactor[];
  /** Whether there is noise between runs of a cell to judge by. Without it, errors are of these very runs. */
  runNoise: boolean;
  df: number;
  notTold: Told['notTold'];
  /** The terms that are told, each the names of its factors. */
  terms: string[][];
  /** The score at `cell` less that at `other`; undefined where the cells of the study do not tell it. */
  difference(cell: Cell, other: Cell): Estimate | undefined;
  /**
   * Effect of one factor, or interaction of several, at one level of each (0 < level): as in design of
   * experiments, of k factors the difference of differences over 2^(k - 1).
   */
  effect(levels: Readonly<Record<string, string>>): Estimate | undefined;
}

/**
 * Fits the model. `pictures` are the clusters of the questions, in the order of credits. Undefined without
 * two levels of anything.
 */
export function fitEffects(
  factors: readonly ModelFactor[],
  runs: readonly ModelRun[],
  pictures: readonly string[],
): EffectsModel | undefined {
  const used = present(factors, runs);
  if (used.length === 0 || pictures.length === 0) return undefined;
  const levelOf = (run: ModelRun, { index, used: levels }: (typeof used)[number]) => levels.indexOf(run.levels[index]);
  const runFactors: Factor[] = used.map((factor) => ({
    name: factor.name,
    levels: factor.levels,
    values: runs.map((run) => levelOf(run, factor)),
  }));
  const runDesign = designOf(runFactors);
  const told = toldTerms(runDesign);
  const n = pictures.length;
  const columns = told.names.map((name) => {
    const ofRuns = runDesign.columns[runDesign.names.indexOf(name)];
    return Float64Array.from({ length: n * runs.length }, (_, row) => ofRuns[Math.floor(row / n)]);
  });
  const y = Float64Array.from({ length: n * runs.length }, (_, row) => runs[Math.floor(row / n)].credits[row % n]);
  const byPicture = Array.from({ length: y.length }, (_, row) => pictures[row % n]);
  const byRun = Array.from({ length: y.length }, (_, row) => runs[Math.floor(row / n)].run);
  const fitted = (clusters: (readonly string[])[]): LinearModel => fitLinearModel(y, { names: told.names, columns }, { clusters });
  const runNoise = runs.length > new Set(runs.map(({ levels }) => levels.join())).size;
  const model = fitted(runNoise ? [byPicture, byRun] : [byPicture]);
  // runs that begin with the same checkpoint share what it has by chance: for what tells such checkpoints
  // from others they are no runs of their own
  const bases = runs.map(({ base, run }) => base ?? run);
  const ofCheckpoints = new Set(
    told.names.slice(1).filter((name) => isConstantWithin(bases, runDesign.columns[runDesign.names.indexOf(name)])),
  );
  const isShared = runNoise && new Set(bases).size < runs.length && ofCheckpoints.size > 0;
  const byBase = isShared ? fitted([byPicture, Array.from({ length: y.length }, (_, row) => bases[Math.floor(row / n)])]) : undefined;
  const known = new Set(told.names);
  const estimate = (weights: Record<string, number>): Estimate | undefined => {
    const needed = Object.entries(weights).filter(([, weight]) => Math.abs(weight) > 1e-12);
    if (needed.some(([name]) => !known.has(name))) return undefined;
    const weighed = Object.fromEntries(needed);
    const ofRuns = contrast(model, weighed);
    if (!byBase || !needed.some(([name]) => ofCheckpoints.has(name))) return ofRuns;
    const ofBases = contrast(byBase, weighed);
    if (!(ofBases.se > ofRuns.se)) return ofRuns;
    return estimateOf(ofBases.value, ofBases.se, Math.min(ofBases.df, ofRuns.df, baseDegrees(runs)));
  };
  const isThere = (cell: Cell) =>
    Object.entries(cell).every(([name, level]) => runFactors.some((factor) => factor.name === name && factor.levels.includes(level)));
  return {
    factors: used.map(({ name, levels }) => ({ name, levels })),
    runNoise,
    df: model.df,
    notTold: told.notTold,
    terms: told.terms.map(({ factors: names }) => names),
    difference: (cell, other) => (isThere(cell) && isThere(other) ? estimate(cellDifference(runFactors, cell, other)) : undefined),
    effect: (levels) => (isThere(levels) ? estimate(effectWeights(runFactors, levels)) : undefined),
  };
}

function isConstantWithin(groups: readonly string[], values: ArrayLike<number>): boolean {
  const first = new Map<string, number>();
  return groups.every((group, i) => {
    if (!first.has(group)) first.set(group, values[i]);
    return first.get(group) === values[i];
  });
}

/**
 * Degrees of freedom between checkpoints that several runs begin with: their number, less one for each kind
 * of them, which is the levels that all runs of a checkpoint have.
 */
function baseDegrees(runs: readonly ModelRun[]): number {
  const bases = runs.map(({ base, run }) => base ?? run);
  const own = runs[0].levels.flatMap((_, factor) => {
    const levels = runs.map((run) => run.levels[factor]);
    return isConstantWithin(bases, levels) ? [factor] : [];
  });
  const shared = groupBy(
    runs.filter(({ base }) => base !== undefined),
    ({ base }) => base!,
  ).filter(({ length }) => length > 1);
  const kinds = new Set(shared.map(([run]) => own.map((factor) => run.levels[factor]).join()));
  return shared.length - kinds.size;
}

/** Differences along the first factor at all corners of the others, with their signs. */
function effectWeights(factors: readonly Factor[], levels: Readonly<Record<string, string>>): Record<string, number> {
  const [first, ...rest] = Object.keys(levels);
  const firstLevel = (name: string) => factors.find((factor) => factor.name === name)!.levels[0];
  const weights: Record<string, number> = {};
  for (let corner = 0; corner < 1 << rest.length; corner++) {
    const at = Object.fromEntries(rest.map((name, i) => [name, corner & (1 << i) ? levels[name] : firstLevel(name)]));
    const sign = rest.reduce((product, _, i) => (corner & (1 << i) ? product : -product), 1);
    const along = cellDifference(factors, { ...at, [first]: levels[first] }, { ...at, [first]: firstLevel(first) });
    for (const [name, weight] of Object.entries(along)) weights[name] = (weights[name] ?? 0) + (sign * weight) / 2 ** rest.length;
  }
  return weights;
}

/** For each combination of levels but the first of these factors. */
export function combinations(factors: readonly ModelFactor[], names: readonly string[]): Record<string, string>[] {
  return names.reduce<Record<string, string>[]>(
    (all, name) =>
      all.flatMap((each) =>
        factors
          .find((factor) => factor.name === name)!
          .levels.slice(1)
          .map((level) => ({ ...each, [name]: level })),
      ),
    [{}],
  );
}
