// The comparisons that a study names beforehand, each an effect on a score, with Holm over all of them.

import { UserError } from '../errors.ts';
import type { Estimate } from '../statistics/estimate.ts';
import { holm } from '../statistics/families.ts';
import { smallestShift } from '../statistics/power.ts';
import { discordance, effectLabel, matchedByFactor, modelFactors } from './analysis.ts';
import type { ScoreTable } from './answers.ts';
import { cellIndices } from './design.ts';
import { combinations, type EffectsModel } from './effects.ts';
import type { Comparison } from './study-schema.ts';
import type { Study } from './variants.ts';

/** Chance that Holm finds anything in a family of nothing. */
export const LEVEL = 0.05;

/** One comparison of the family: `levels` of one factor, or of several for an interaction; or two cells. */
export type Named =
  | { kind: 'effect'; label: string; levels: Record<string, string>; at: Record<string, string> }
  | { kind: 'cells'; label: string; cells: [Record<string, string>, Record<string, string>] };

export interface FamilyMember extends Estimate {
  score: string;
  label: string;
  isInteraction: boolean;
  /** Of an effect or interaction over all levels of the other factors: the level of each of its own. */
  levels?: Record<string, string>;
  pHolm: number;
  /**
   * The smallest effect that had an 80 % chance of being seen at 0.05 / members: at the level that Holm asks
   * of the smallest p, so that others may have had a better one.
   */
  smallestVisible: number | null;
  /**
   * Answers of runs that differ in nothing else, where one side of the comparison was right and the other
   * wrong.
   */
  onlyA?: number;
  onlyB?: number;
  oddsRatio?: number;
}

const textCell = (cell: Readonly<Record<string, unknown>>) =>
  Object.fromEntries(Object.entries(cell).map(([name, level]) => [name, String(level)]));
const cellText = (cell: Readonly<Record<string, string>>) =>
  Object.entries(cell)
    .map(([name, level]) => `${name}: ${level}`)
    .join(', ');

/** The comparisons of a study, written out. UserError for one that names no factor or level. */
export function namedComparisons(study: Study): Named[] {
  const { comparisons } = study.file.family;
  const factors = modelFactors(study.factors);
  if (comparisons) return comparisons.flatMap((comparison, i) => named(comparison, study, `${study.path}: family.comparisons.${i}`));
  const names = factors.map(({ name }) => name);
  const pairs = names.flatMap((a, i) => names.slice(i + 1).map((b) => [a, b]));
  return [...names.map((name) => [name]), ...pairs].flatMap((of) => effects(study, of, {}));
}

function effects(study: Study, names: readonly string[], at: Record<string, string>): Named[] {
  const factors = modelFactors(study.factors);
  const where = Object.keys(at).length > 0 ? ` at ${cellText(at)}` : '';
  return combinations(factors, names).map((levels) => ({
    kind: 'effect',
    label: `${effectLabel({ factors }, levels)}${where}`,
    levels,
    at,
  }));
}

function named(comparison: Comparison, study: Study, where: string): Named[] {
  const check = (name: string) =>
    void cellIndices(study.factors, { [name]: study.factors.find((factor) => factor.name === name)?.levels[0].label ?? '' }, where);
  if (typeof comparison === 'string') {
    check(comparison);
    return effects(study, [comparison], {});
  }
  if ('effect' in comparison) {
    check(comparison.effect);
    cellIndices(study.factors, comparison.at, where);
    if (comparison.at[comparison.effect] !== undefined) throw new UserError(`${where}: at names ${comparison.effect}, whose effect it is`);
    return effects(study, [comparison.effect], textCell(comparison.at));
  }
  if ('interaction' in comparison) {
    for (const name of comparison.interaction) check(name);
    return effects(study, comparison.interaction, {});
  }
  for (const cell of comparison.cells) cellIndices(study.factors, cell, where);
  const [a, b] = comparison.cells.map(textCell);
  return [{ kind: 'cells', label: `${cellText(a)} against ${cellText(b)}`, cells: [a, b] }];
}

/** A score that the family is about, with the model of its answers. */
export interface ModeledScore {
  table: ScoreTable;
  model: EffectsModel | undefined;
}

/** Estimates of the family on the scores that it is about. What the cells do not tell is left out of it. */
export function familyOf(study: Study, scores: readonly ModeledScore[]): FamilyMember[] {
  const comparisons = namedComparisons(study);
  const members = scores.flatMap(({ table, model }) =>
    comparisons.flatMap((comparison): FamilyMember[] => {
      const estimate = model && estimateOf(comparison, model, study);
      if (!estimate) return [];
      return [
        {
          score: table.name,
          label: comparison.label,
          isInteraction: comparison.kind === 'effect' && Object.keys(comparison.levels).length > 1,
          ...(comparison.kind === 'effect' && Object.keys(comparison.at).length === 0 ? { levels: comparison.levels } : {}),
          ...estimate,
          pHolm: estimate.p,
          smallestVisible: null,
          ...discordanceOf(comparison, study, table),
        },
      ];
    }),
  );
  const adjusted = holm(members.map(({ p }) => p));
  const alpha = LEVEL / members.length;
  return members.map((member, i) => {
    const { se, df } = member;
    return { ...member, pHolm: adjusted[i], smallestVisible: se > 0 && df > 0 ? se * smallestShift(df, { alpha }) : null };
  });
}

/** The level that the others of a factor are compared with. */
const firstLevel = ({ factors }: Study, name: string): string => factors.find((factor) => factor.name === name)!.levels[0].label;

function estimateOf(comparison: Named, model: EffectsModel, study: Study): Estimate | undefined {
  if (comparison.kind === 'cells') return model.difference(...comparison.cells);
  const { levels, at } = comparison;
  // the model compares with the first level that has runs, which need not be the one that was named
  const isFirst = (name: string) => model.factors.find((factor) => factor.name === name)?.levels[0] === firstLevel(study, name);
  if (!Object.keys(levels).every(isFirst)) return undefined;
  if (Object.keys(at).length === 0) return model.effect(levels);
  const [[name, level]] = Object.entries(levels);
  return model.difference({ ...at, [name]: level }, { ...at, [name]: firstLevel(study, name) });
}

/** A comparison that was named and has no estimate, as no run of some levels has the score. */
export interface Unmeasured {
  score: string;
  label: string;
  /** `lr: 1e-2`. */
  levels: string[];
}

/** What the family lacks because runs are missing or became non-finite. */
export function unmeasuredOf(study: Study, scores: readonly ModeledScore[]): Unmeasured[] {
  const comparisons = namedComparisons(study);
  return scores.flatMap(({ table }) =>
    comparisons.flatMap((comparison) => {
      const missing = comparedLevels(comparison, study).filter(([name, level]) => !hasRuns(study, table, name, level));
      const levels = [...new Set(missing.map(([name, level]) => `${name}: ${level}`))];
      return levels.length > 0 ? [{ score: table.name, label: comparison.label, levels }] : [];
    }),
  );
}

function comparedLevels(comparison: Named, study: Study): [string, string][] {
  if (comparison.kind === 'cells') return comparison.cells.flatMap((cell) => Object.entries(cell));
  const { levels, at } = comparison;
  const firsts = Object.keys(levels).map((name): [string, string] => [name, firstLevel(study, name)]);
  return [...firsts, ...Object.entries(levels), ...Object.entries(at)];
}

function hasRuns({ factors }: Study, { runs }: ScoreTable, name: string, level: string): boolean {
  const index = factors.findIndex((factor) => factor.name === name);
  return runs.some(({ run }) => factors[index].levels[run.variant.levels[index]].label === level);
}

function discordanceOf(comparison: Named, study: Study, table: ScoreTable) {
  if (comparison.kind === 'cells') {
    // cells that differ in one factor alone have runs that differ in nothing else
    const [a, b] = comparison.cells;
    const different = Object.keys(a).filter((name) => a[name] !== b[name]);
    if (different.length !== 1 || Object.keys(a).length !== Object.keys(b).length) return {};
    const [name] = different;
    const { [name]: _, ...at } = a;
    return discordance(matchedByFactor(study, table, name, [a[name], b[name]], at));
  }
  const entries = Object.entries(comparison.levels);
  if (entries.length > 1) return {};
  const [[name, level]] = entries;
  return discordance(matchedByFactor(study, table, name, [level, firstLevel(study, name)], comparison.at));
}
