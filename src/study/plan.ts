// What a study would take, and what it could see: runs, what they share, time from a rehearsal of every
// variant, disk, memory, and the smallest effect.

import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { emojiDataset } from '../data/emoji/build.ts';
import { freeBytes, makeFolder } from '../disk.ts';
import { openEngine } from '../engine/devices.ts';
import { UserError } from '../errors.ts';
import { readQuestions } from '../evaluate/questions.ts';
import { memoryBytes } from '../memory.ts';
import { readSummary, runFolder } from '../runs/folder.ts';
import { readMetrics } from '../runs/metrics.ts';
import { type StatusLine, silentStatus } from '../runs/status.ts';
import { smallestDifference, smallestRunEffect } from '../statistics/power.ts';
import type { RunPlan } from '../train/plan.ts';
import { planRecipe } from '../train/plan-recipe.ts';
import type { LlavaRecipe } from '../train/recipe.ts';
import { deviceOf } from '../train/run.ts';
import { type CellSearch, cellSearches, trialSteps } from './cell-search.ts';
import { drawOnce } from './execute.ts';
import { LEVEL, namedComparisons } from './family.ts';
import { doJob } from './job.ts';
import { EXCHANGED, type MeasuresAsked } from './measures.ts';
import type { ContentOf, Piece, StudyShard } from './pieces.ts';
import { piecesOf, runsOf, scenesKey, withScenes } from './pieces.ts';
import type { Study, Variant } from './variants.ts';

// === How the machine is shared out ===

export interface Sharing {
  /** Pieces at a time, and threads of each. */
  jobs: number;
  threads: number;
}

/** Share of the memory that pieces may take together. */
const MEMORY_SHARE = 0.8;

/**
 * As many pieces at a time as there are cores and memory for; small models gain more from runs side by side
 * than from threads within one. UserError where not even one fits.
 */
export function shareOut(
  peak: number,
  runs: number,
  asked: Partial<Sharing> = {},
  memory = memoryBytes(),
  cores = availableParallelism(),
): Sharing {
  const fitting = Math.floor((MEMORY_SHARE * memory) / peak);
  if (peak > memory)
    throw new UserError(
      `a run of the study needs ${(peak / 1e9).toFixed(1)} GB of memory, and the machine has ${(memory / 1e9).toFixed(1)} GB`,
    );
  const jobs = asked.jobs ?? Math.max(1, Math.min(fitting, runs, Math.floor(cores / (asked.threads ?? 1))));
  return { jobs, threads: asked.threads ?? Math.max(1, Math.floor(cores / jobs)) };
}

// === Plans of variants ===

interface VariantPlan {
  plan: RunPlan;
  /** Seconds in which its data were read and checked. */
  reading: number;
}

/**
 * Plans the run of a variant, whose scenes are drawn; `threads` asks for times, on an engine that has so
 * many.
 */
function planVariant(recipe: LlavaRecipe, threads: number | undefined, signal: AbortSignal): Promise<VariantPlan> {
  const timedOn = threads === undefined ? undefined : () => openEngine(deviceOf(recipe), { threads });
  return planRecipe(recipe, { out: '.', status: silentStatus, signal, scenesAreDrawn: true, timedOn });
}

/** The most memory that a run takes: of the variant with most weights, as far as files tell. */
export async function peakMemory(study: Study, signal: AbortSignal): Promise<number> {
  const models = new Map(study.variants.map((variant) => [JSON.stringify(variant.recipe.model), variant]));
  let peak = 0;
  for (const { recipe } of models.values()) {
    await drawOnce(recipe);
    peak = Math.max(peak, (await planVariant(withScenes(recipe), undefined, signal)).plan.memory.peak);
  }
  return peak;
}

// === Rehearsals ===

/** Of each stage of a rehearsal, at most; scenes to train on and of each held-out split. */
const STEPS = 8;
const TRAIN_SCENES = 64;
const EVALUATION_SCENES = 16;

interface Rehearsal {
  /** Seconds of the process, of which those of the processor, and of each stage within it. */
  wall: number;
  cpu: number;
  stages: { steps: number; seconds: number }[];
  /** Seconds of everything that is scored and measured once the run is trained. */
  scoring: number;
  /** Seconds that further questions take in the run: the rehearsal has few. */
  furtherQuestions: number;
}

/** What is rehearsed of a run: a few steps of each stage, over scenes enough for its held-out samples. */
export function rehearsed(recipe: LlavaRecipe, plan: { stages: readonly { steps: number }[] }): LlavaRecipe {
  const heldOut = Math.max(0, ...recipe.stages.map(({ held_out }) => held_out?.samples ?? 0));
  const stages = recipe.stages.map(({ epochs: _, ...stage }, i) => ({ ...stage, steps: Math.min(STEPS, plan.stages[i].steps) }));
  if (!recipe.data) return { ...recipe, stages };
  const { train_scenes, evaluation_scenes } = recipe.data;
  const data = {
    ...recipe.data,
    train_scenes: Math.min(TRAIN_SCENES + heldOut, train_scenes),
    evaluation_scenes: Math.min(EVALUATION_SCENES, evaluation_scenes),
  };
  return withScenes({ ...recipe, data, stages });
}

async function rehearse(
  recipe: LlavaRecipe,
  whole: LlavaRecipe,
  { out, threads, asked, signal }: { out: string; threads: number; asked: MeasuresAsked; signal: AbortSignal },
): Promise<Rehearsal> {
  await drawOnce(recipe);
  const began = performance.now();
  const measures = { ...asked, out: `${out}-measures`, benchmarks: [] };
  const outcome = await doJob({ kind: 'run', recipe, title: 'rehearsal', out, threads, measures }, { signal });
  const wall = (performance.now() - began) / 1000;
  if (outcome.kind === 'failed') throw new UserError(outcome.message);
  if (outcome.kind !== 'finished')
    throw new UserError(
      `a rehearsal of the study ${outcome.kind === 'diverged' ? `became non-finite in stage ${outcome.stage}` : 'was stopped'}`,
    );
  const folder = runFolder(out);
  const { stages } = readSummary(folder);
  const evaluation = readMetrics(folder.metrics).reduce((sum, event) => sum + (event.type === 'evaluation' ? event.seconds : 0), 0);
  const measured = Object.values(outcome.measured).reduce((sum, seconds) => sum + seconds, 0);
  return {
    wall,
    cpu: outcome.cpuSeconds,
    stages: stages.map(({ steps, seconds }) => ({ steps, seconds })),
    scoring: evaluation + measured,
    furtherQuestions: await furtherQuestions(recipe, whole, evaluation, outcome.measured[EXCHANGED]),
  };
}

/**
 * How much longer the questions of the run take than those of its rehearsal. Those before exchanged pictures
 * say what one takes, without what is loaded and compiled once; before a blank picture, the same words are
 * asked once.
 */
async function furtherQuestions(
  recipe: LlavaRecipe,
  whole: LlavaRecipe,
  evaluation: number,
  exchanged: number | undefined,
): Promise<number> {
  const [few, all] = [await questionsOf(recipe), await questionsOf(withScenes(whole))];
  if (few.asked === 0) return 0;
  // not asked: loading and compiling are then taken for questions too
  if (!exchanged) return (all.asked / few.asked - 1) * evaluation;
  return (exchanged / few.asked) * (2 * (all.asked - few.asked) + all.blind - few.blind);
}

/** Questions of all splits, and those of different words. */
async function questionsOf({ evaluate, data }: LlavaRecipe): Promise<{ asked: number; blind: number }> {
  if (!evaluate || !data) return { asked: 0, blind: 0 };
  const dataset = emojiDataset(data.folder);
  const count = { asked: 0, blind: 0 };
  for (const split of evaluate.splits) {
    const questions = await readQuestions(dataset.evaluation[split], dataset.imageFolder, split);
    count.asked += questions.length;
    count.blind += new Set(questions.map(({ prompt }) => JSON.stringify(prompt))).size;
  }
  return count;
}

// === The plan ===

export interface StudyPlan {
  name: string;
  factors: { name: string; levels: string[] }[];
  cells: number;
  seeds: number;
  runs: number;
  /** What several runs begin with, and encoders whose features are computed once. */
  shared: { stages: number; features: number; runsThatBeginShared: number };
  jobs: number;
  threads: number;
  /** Whole schedules of the searches of all cells, and their time. */
  searched: { trials: number; seconds: number };
  /** The whole study, and its runs one after the other with nothing shared. */
  seconds: { total: number; alone: number };
  /** The same in seconds of the processor, over all threads: what other programs do has little part in it. */
  cpuSeconds: { total: number; alone: number };
  /** Of a run of each cell, from beginning to end. */
  variants: { label: string; steps: number; seconds: number; peak: number; trained: number }[];
  disk: { needed: number; free: number };
  memory: { peak: number; available: number };
  /**
   * Smallest effects that are found with 80 % power at 5 % over all comparisons of the family (the first of
   * Holm's levels), in shares of all questions.
   */
  power: { score: string; questions: number; comparisons: number; fromQuestions: number; byRunSd: { runSd: number; effect: number }[] }[];
  notes: string[];
}

export interface PlanOptions {
  shard?: StudyShard;
  asked: Partial<Sharing>;
  contentOf: ContentOf;
  status: StatusLine;
  signal: AbortSignal;
}

/** UserError for what is wrong with a variant's models or data. */
export async function planStudy(study: Study, { shard, asked, contentOf, status, signal }: PlanOptions): Promise<StudyPlan> {
  const runs = runsOf(study, shard, contentOf);
  const peak = await peakMemory(study, signal);
  const { jobs, threads } = shareOut(peak, runs.length, asked);
  const plans: VariantPlan[] = [];
  const drawn = new Set<string>();
  let drawing = 0;
  for (const { recipe, label } of study.variants) {
    status.draw(`timing steps of ${label}`);
    const began = performance.now();
    const key = scenesKey(recipe);
    if (key !== undefined && !drawn.has(key)) {
      await drawOnce(recipe);
      drawn.add(key);
      drawing += (performance.now() - began) / 1000;
    }
    plans.push(await planVariant(withScenes(recipe), threads, signal));
  }
  const rehearsals = await rehearseAll(study, plans, { jobs, threads }, status, signal);
  const pieces = piecesOf(runs, '.', contentOf);
  const costOf = (piece: Piece) => pieceCost(piece, study, plans, rehearsals);
  const whole = study.variants.map((_, i) => runCost(plans[i], rehearsals[i], 0));
  const searches = cellSearches(study).map((search) => {
    const { index } = study.variants.find(({ searched }) => searched?.cell === search.cell)!;
    return { trials: search.search.budget.trials, ...searchCost(search, plans[index], rehearsals[index]) };
  });
  const searching = sumOf(searches);
  return {
    name: study.file.name,
    factors: study.factors.map(({ name, levels }) => ({ name, levels: levels.map(({ label }) => label) })),
    cells: study.variants.length,
    seeds: study.seeds.length,
    runs: runs.length,
    shared: {
      stages: pieces.filter(({ kind }) => kind === 'stages').length,
      features: pieces.filter(({ kind }) => kind === 'features').length,
      runsThatBeginShared: pieces.filter(({ kind, base }) => kind === 'run' && base).length,
    },
    jobs,
    threads,
    searched: {
      trials: searches.reduce((sum, { trials }) => sum + trials, 0),
      seconds: searching.seconds / Math.min(jobs, searches.length || 1),
    },
    seconds: {
      total: drawing + searching.seconds / Math.min(jobs, searches.length || 1) + makespan(pieces, (piece) => costOf(piece).seconds, jobs),
      alone: drawing + searching.seconds + runs.reduce((sum, { variant }) => sum + whole[variant.index].seconds, 0),
    },
    cpuSeconds: {
      total: drawing + searching.cpu + sumOf(pieces.map(costOf)).cpu,
      alone: drawing + searching.cpu + runs.reduce((sum, { variant: { index } }) => sum + whole[index].cpu, 0),
    },
    variants: study.variants.map(({ label }, i) => ({
      label,
      steps: plans[i].plan.stages.reduce((sum, { steps }) => sum + steps, 0),
      seconds: whole[i].seconds,
      peak: plans[i].plan.memory.peak,
      trained: Math.max(...plans[i].plan.stages.map(({ trained }) => Object.values(trained).reduce((sum, n) => sum + n, 0))),
    })),
    disk: { needed: diskOf(pieces, study, plans), free: await freeBytes('.') },
    memory: { peak: peak * jobs, available: memoryBytes() },
    power: await powerOf(study),
    notes: [
      ...(study.seeds.length === 1 ? ['one seed a cell: run noise is not measured'] : []),
      ...(study.file.score.benchmarks.length > 0 ? ['the time of the benchmarks is not in the plan'] : []),
    ],
  };
}

/** All variants rehearsed, as many at a time as in the study. */
async function rehearseAll(
  study: Study,
  plans: readonly VariantPlan[],
  { jobs, threads }: Sharing,
  status: StatusLine,
  signal: AbortSignal,
) {
  makeFolder('.cache');
  const folder = mkdtempSync(join('.cache', 'rehearsal-'));
  const rehearsals: Rehearsal[] = [];
  const queue = [...study.variants];
  const worker = async () => {
    for (let variant = queue.shift(); variant; variant = queue.shift()) {
      signal.throwIfAborted();
      status.draw(`rehearsing ${variant.label}`);
      const recipe = rehearsed(variant.recipe, plans[variant.index].plan);
      const out = join(folder, String(variant.index));
      rehearsals[variant.index] = await rehearse(recipe, variant.recipe, { out, threads, asked: study.file.score, signal });
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(jobs, queue.length) }, worker));
    return rehearsals;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What something takes: on the clock, and of the processor over all threads. */
interface Cost {
  seconds: number;
  cpu: number;
}

const sumOf = (costs: readonly Cost[]): Cost => ({
  seconds: costs.reduce((sum, { seconds }) => sum + seconds, 0),
  cpu: costs.reduce((sum, { cpu }) => sum + cpu, 0),
});

/** Something of the rehearsal, of which the clock alone is known, with its share of the processor's time. */
const shareOf = ({ wall, cpu }: Rehearsal, seconds: number): Cost => ({ seconds, cpu: (seconds * cpu) / wall });

function stageCost({ plan }: VariantPlan, rehearsal: Rehearsal, index: number): Cost {
  const { steps, seconds } = plan.stages[index];
  const further = steps - rehearsal.stages[index].steps;
  const steady = { seconds: further * seconds!.step, cpu: further * seconds!.stepCpu };
  return sumOf([shareOf(rehearsal, rehearsal.stages[index].seconds), steady]);
}

/**
 * Of a process without its stages and what is scored; its data are read anew, of which the rehearsal had few.
 */
function processCost({ reading, plan }: VariantPlan, rehearsal: Rehearsal): Cost {
  const rest = Math.max(0, rehearsal.wall - rehearsal.scoring - rehearsal.stages.reduce((sum, { seconds }) => sum + seconds, 0));
  const isLarger = (plan.stages[0].samples ?? 0) > 10 * TRAIN_SCENES;
  return shareOf(rehearsal, rest + (isLarger ? reading : 0));
}

/** Of the process of a run that begins at a stage. */
function runCost(plan: VariantPlan, rehearsal: Rehearsal, from: number): Cost {
  const stages = rehearsal.stages.slice(from).map((_, i) => stageCost(plan, rehearsal, from + i));
  return sumOf([processCost(plan, rehearsal), ...stages, shareOf(rehearsal, rehearsal.scoring + rehearsal.furtherQuestions)]);
}

function pieceCost(piece: Piece, study: Study, plans: readonly VariantPlan[], rehearsals: readonly Rehearsal[]): Cost {
  const { kind, recipe, base } = piece;
  const { index } = variantOf(piece, study);
  const [plan, rehearsal] = [plans[index], rehearsals[index]];
  if (kind === 'run') return runCost(plan, rehearsal, base?.stages ?? 0);
  if (kind === 'features') {
    const pictures = plan.plan.stages.map(({ pictures = 0, seconds }) => pictures * seconds!.picture);
    return sumOf([processCost(plan, rehearsal), shareOf(rehearsal, Math.max(0, ...pictures))]);
  }
  const from = base?.stages ?? 0;
  return sumOf([processCost(plan, rehearsal), ...recipe.stages.slice(from).map((_, i) => stageCost(plan, rehearsal, from + i))]);
}

/**
 * Of the search of a cell: as many schedules of the cell as its budget has, each cut to the length of a
 * trial, to the stage that is judged, and to the scoring that it needs.
 */
function searchCost(search: CellSearch, plan: VariantPlan, rehearsal: Rehearsal): Cost {
  const { objective, budget } = search.search;
  const stages = trialSteps(search).map(({ steps }, i) => {
    const whole = stageCost(plan, rehearsal, i);
    const share = steps === undefined ? 1 : steps / plan.plan.stages[i].steps;
    return { seconds: share * whole.seconds, cpu: share * whole.cpu };
  });
  const scoring = 'accuracy' in objective ? [shareOf(rehearsal, rehearsal.scoring + rehearsal.furtherQuestions)] : [];
  const trial = sumOf([processCost(plan, rehearsal), ...stages, ...scoring]);
  return { seconds: budget.trials * trial.seconds, cpu: budget.trials * trial.cpu };
}

/** The variant of a run, or one that begins with these stages. */
const variantOf = ({ run, recipe: { stages, model } }: Piece, { variants }: Study): Variant =>
  run?.variant ??
  variants.find(
    ({ recipe }) =>
      JSON.stringify(recipe.model) === JSON.stringify(model) &&
      JSON.stringify(recipe.stages.slice(0, stages.length)) === JSON.stringify(stages),
  )!;

/** Seconds until all pieces have ended, started in their order when what they wait for has. */
export function makespan(pieces: readonly Piece[], secondsOf: (piece: Piece) => number, jobs: number): number {
  const ends = new Map<string, number>();
  const free = new Array<number>(jobs).fill(0);
  const waiting = new Set(pieces);
  for (let now = 0; waiting.size > 0; ) {
    const slot = free.findIndex((at) => at <= now);
    const next = slot < 0 ? undefined : [...waiting].find(({ after }) => after.every((id) => (ends.get(id) ?? Infinity) <= now));
    if (next) {
      waiting.delete(next);
      free[slot] = now + secondsOf(next);
      ends.set(next.id, free[slot]);
    } else now = Math.min(...[...free, ...ends.values()].filter((at) => at > now));
  }
  return Math.max(0, ...ends.values());
}

/** Checkpoints of all pieces, each stage once, and features once an encoder. */
function diskOf(pieces: readonly Piece[], study: Study, plans: readonly VariantPlan[]): number {
  return pieces.reduce((sum, piece) => {
    const { kind, recipe, base } = piece;
    const { plan } = plans[variantOf(piece, study).index];
    if (kind === 'features') return sum + Math.max(...plan.stages.map(({ disk }) => disk.features));
    return (
      sum + plan.stages.slice(base?.stages ?? 0, recipe.stages.length).reduce((bytes, { disk }) => bytes + disk.checkpoint + disk.kept, 0)
    );
  }, 0);
}

/** Share of the questions that exactly one of two models gets right, and standard deviations between runs. */
const DISCORDANT = 0.2;
const RUN_SDS = [0.01, 0.02, 0.04];

/**
 * Of the whole study, whichever share of it is planned: of the factor with the most levels, at the level of
 * the family.
 */
async function powerOf(study: Study): Promise<StudyPlan['power']> {
  const { recipe } = study.variants[0];
  const [runs, cells] = [study.runs.length, study.variants.length];
  const levels = Math.max(2, ...study.factors.map((factor) => factor.levels.length));
  const scores = study.file.family.scores?.length ?? 1;
  const comparisons = Math.max(1, namedComparisons(study).length * scores);
  const alpha = LEVEL / comparisons;
  if (!recipe.evaluate || !recipe.data) return [];
  const dataset = emojiDataset(withScenes(recipe).data!.folder);
  const power: StudyPlan['power'] = [];
  for (const split of recipe.evaluate.splits) {
    const questions = (await readQuestions(dataset.evaluation[split], dataset.imageFolder, split)).length;
    const fromQuestions = smallestDifference(questions, DISCORDANT, { alpha });
    const byRunSd = RUN_SDS.map((runSd) => ({
      runSd,
      effect: Math.hypot(fromQuestions, smallestRunEffect(runSd, { runs, cells, levels }, { alpha })),
    }));
    power.push({ score: split, questions, comparisons, fromQuestions, byRunSd });
  }
  return power;
}
