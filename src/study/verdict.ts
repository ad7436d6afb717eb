// What a study says, in sentences that say no more than its intervals do.

import { groupBy } from '../arrays.ts';
import { shownP } from '../statistics/estimate.ts';
import type { ScoreAnalysis } from './analysis.ts';
import { type ConvergenceAnalysis, isTold } from './convergence.ts';
import { type FamilyMember, LEVEL, type Unmeasured } from './family.ts';
import type { Study } from './variants.ts';

/** In points, with a sign where there is one. */
export function points(share: number): string {
  const text = (100 * share).toFixed(1);
  return /[1-9]/.test(text) ? `${share > 0 ? '+' : ''}${text}` : '0.0';
}

interface Found {
  scores: readonly ScoreAnalysis[];
  family: readonly FamilyMember[];
  unmeasured: readonly Unmeasured[];
  convergence?: ConvergenceAnalysis;
  runs: readonly { outcome: string }[];
}

export function verdictOf(study: Study, { scores, family, unmeasured, convergence, runs }: Found): string[] {
  const diverged = runs.filter(({ outcome }) => outcome === 'diverged').length;
  const seen = family.filter(({ pHolm }) => pHolm < LEVEL);
  const unseen = family.filter(({ pHolm }) => !(pHolm < LEVEL));
  return [
    ...seen.map((member) => seenSentence(member, study, seen, scores)),
    ...(unseen.length > 0 ? [family.every(isNothing) ? NOTHING : unseenSentence(unseen)] : []),
    ...unmeasuredSentences(unmeasured),
    ...(family.length > 0 ? [footing(study, scores)] : ['No comparison could be made: too few runs have a score.']),
    ...(scores[0]?.lenth ? [lenthSentence(scores[0])] : []),
    ...(diverged > 0 ? [`${diverged} of ${runs.length} runs became non-finite and ${diverged === 1 ? 'has' : 'have'} no score.`] : []),
    ...(convergence ? convergenceSentences(convergence) : []),
  ];
}

const interval = ({ low, high }: { low: number; high: number }) => `95 % interval ${points(low)} to ${points(high)}`;

function seenSentence(member: FamilyMember, study: Study, seen: readonly FamilyMember[], scores: readonly ScoreAnalysis[]): string {
  const { score, label, value, pHolm, isInteraction, levels } = member;
  if (isInteraction) {
    const how = value < 0 ? 'less than the sum of its parts' : 'more than the sum of its parts';
    return `${score}: ${label} comes to ${how} (interaction ${points(value)} points, ${interval(member)}, p ${shownP(pHolm)} by Holm).`;
  }
  const others = levels ? study.factors.map(({ name }) => name).filter((name) => !(name in levels)) : [];
  const averaged = others.length > 0 ? ` on average over ${others.join(' and ')}` : '';
  const sentence = `${score}: ${label} changes the score by ${points(value)} points${averaged} (${interval(member)}, p ${shownP(pHolm)} by Holm).`;
  const analysis = scores.find((each) => each.score === score);
  return [sentence, ...(levels && analysis ? byLevelSentences(levels, analysis, seen) : [])].join(' ');
}

/** Where a main effect is not the same at the levels of another factor: what it is at each. */
function byLevelSentences(
  levels: Readonly<Record<string, string>>,
  { score, simple }: ScoreAnalysis,
  seen: readonly FamilyMember[],
): string[] {
  const [[factor, level]] = Object.entries(levels);
  const partners = seen.flatMap(({ score: of, isInteraction, levels: both = {} }) =>
    isInteraction && of === score && both[factor] === level ? Object.keys(both).filter((name) => name !== factor) : [],
  );
  return [...new Set(partners)].flatMap((partner) => {
    const found = simple.find((each) => each.factor === factor && each.level === level && each.by === partner);
    if (!found) return [];
    const each = found.at.map(
      ({ level: place, effect }) => `${points(effect.value)} with ${partner}: ${place} (${points(effect.low)} to ${points(effect.high)})`,
    );
    return [`It is not the same everywhere: ${each.join(', ')}.`];
  });
}

const NOTHING = 'No run answered otherwise than another: there is nothing to compare.';
const isNothing = ({ value, se }: FamilyMember) => value === 0 && se === 0;

/** What was looked for and not found is not "no effect": how large one may be is said with it. */
function unseenSentence(members: readonly FamilyMember[]): string {
  const each = members.map(
    (member) => `${member.label} (${Number.isFinite(member.low) ? `${points(member.low)} to ${points(member.high)}` : 'no interval'})`,
  );
  const visible = Math.max(...members.map(({ smallestVisible }) => smallestVisible ?? 0));
  const could = visible > 0 ? `; one of ${(100 * visible).toFixed(1)} points had an 80 % chance of being seen` : '';
  return `By Holm, no effect was told from 0 of: ${each.join('; ')}${could}.`;
}

/** By the levels that have no runs. */
function unmeasuredSentences(unmeasured: readonly Unmeasured[]): string[] {
  return groupBy(unmeasured, ({ score, levels }) => JSON.stringify([score, levels])).map((those) => {
    const [{ score, levels }] = those;
    return `${score}: no run of ${levels.join(' or ')} has a score, and so there is no estimate of ${those.map(({ label }) => label).join('; ')}.`;
  });
}

function footing(study: Study, scores: readonly ScoreAnalysis[]): string {
  const [first] = scores;
  const sd = first?.runSd;
  if (study.seeds.length === 1 || sd === null || sd === undefined)
    return 'Run noise was not measured: intervals are of the questions and of these very runs, and another seed may say otherwise.';
  return `Between seeds of one cell, ${first.score} varies by ${(100 * sd).toFixed(1)} points (standard deviation); the intervals hold for other questions and other seeds.`;
}

function lenthSentence({ score, lenth }: ScoreAnalysis): string {
  const { active, margin } = lenth!;
  const which = active.length === 0 ? 'none stands' : `${active.join('; ')} ${active.length === 1 ? 'stands' : 'stand'}`;
  return `Of the effects on ${score} beside each other, ${which} out from the rest (Lenth, margin ${(100 * margin).toFixed(1)} points).`;
}

function convergenceSentences({ stage, arms, transfer }: ConvergenceAnalysis): string[] {
  return [
    ...arms.flatMap((ofArm) => {
      const where = ofArm.arm === '' ? '' : ` (${ofArm.arm})`;
      const advice = Object.keys(ofArm.enough)
        .slice(0, 1)
        .map((score) => `${adviceOf(ofArm, stage, score)}${where}.`);
      return [`The held-out loss of ${stage}${where}: ${lawSentence(ofArm.fit)}.`, ...advice];
    }),
    ...transfer.slice(0, 1).map(({ score, rho, low, high, runs }) => {
      const says = low <= 0 && high >= 0 ? 'does not tell' : rho < 0 ? 'tells' : 'tells, in the unexpected direction,';
      return `The held-out loss of ${stage} ${says} how well a run scores on ${score} (Spearman ${rho.toFixed(2)}, 95 % interval ${low.toFixed(2)} to ${high.toFixed(2)}, ${runs} runs).`;
    }),
  ];
}

type Arm = ConvergenceAnalysis['arms'][number];

/** How much of a stage is enough, as far as the intervals say. */
function adviceOf({ missing, enough }: Arm, stage: string, score: string): string {
  const [rows, share] = [missing[score], enough[score]];
  if (rows.length === 0) return `No share of ${stage} could be compared with the whole of it on ${score}`;
  if (share !== null) {
    const most = Math.max(...rows.slice(rows.findIndex((row) => row.share === share)).map(({ effect }) => -effect.low));
    const lacking = most > 0 && Number.isFinite(most) ? `; it may still lack up to ${(100 * most).toFixed(1)} points` : '';
    return `From ${share} of ${stage} on, the score on ${score} was not told from that after the whole of it${lacking}`;
  }
  if (rows.every(isTold)) return `Every share of ${stage} that was tried scores otherwise on ${score} than the whole of it`;
  return `The largest share of ${stage} that was compared, ${rows.at(-1)!.share}, scores otherwise on ${score} than the whole of it; smaller ones are not all told from it`;
}

function lawSentence(fit: Arm['fit']): string {
  if (!fit) return 'too few sizes for a fit';
  if (fit.notIdentified) return `how it falls is not identified (${fit.notIdentified})`;
  const { c } = fit.intervals!;
  return `falls as ${fit.a.toFixed(3)} + ${fit.b.toFixed(2)} N^-${fit.c.toFixed(2)} (95 % interval of the exponent ${c.low.toFixed(2)} to ${c.high.toFixed(2)})`;
}
