// Many questions explained: how faithful each kind of map is, and how often it points at what was asked
// about.

import type { PointingQuestion } from '../data/emoji/pointing.ts';
import { UserError } from '../errors.ts';
import { createRandom, hashString } from '../random.ts';
import { type Bootstrapped, bootstrapMean } from '../statistics/bootstrap.ts';
import { differencesOf, discordantPairs, mcnemar } from '../statistics/paired.ts';
import { type Mean, meanCredit, meanOf } from '../statistics/proportion.ts';
import type { Explainer } from './explainer.ts';
import type { AnsweredQuestion, ExplainRequest, Explanation, MapKind } from './explanation.ts';
import { type Faithfulness, type FaithfulnessScores, measureFaithfulness } from './faithfulness.ts';
import { type Grid, meanMap } from './maps.ts';
import { type Box, boxMap, chanceOf, type Pointed, point } from './pointing.ts';

/** A question of a batch. */
export interface BatchQuestion extends ExplainRequest {
  id: string;
  /** What questions share: a picture. */
  cluster: string;
  task?: string;
  expected?: string;
  /** Where the thing lies that is asked about, in pixels of the picture that the encoder sees. */
  box?: Box;
  /** Things in the picture, of which that is one. */
  drawings?: number;
}

/** Questions about drawn scenes as a batch asks them, with boxes in pixels of the picture on `grid`. */
export const aboutDrawings = (drawn: readonly PointingQuestion[], { size }: Grid, maxNewTokens?: number): BatchQuestion[] =>
  drawn.map(({ id, scene, picture, task, question, answer, box, drawings }) => {
    const [left, top, right, bottom] = [box.left, box.top, box.right, box.bottom].map((share) => share * size);
    const at = { left, top, right, bottom };
    return { id, cluster: String(scene), task, picture, prompt: question, expected: answer, box: at, drawings, maxNewTokens };
  });

/** What is kept of a question. */
export interface BatchLine {
  id: string;
  cluster: string;
  task?: string;
  prompt?: string;
  expected?: string;
  answer?: string;
  /** Why it could not be explained. */
  problem?: string;
  /** A map of the whole answer for each kind. */
  maps?: Record<string, number[]>;
  faithfulness?: Pick<Faithfulness, 'full' | 'blank' | 'scores'>;
  pointed?: Record<string, Pointed>;
  chance?: number;
  drawings?: number;
}

export interface BatchOptions {
  seed: number;
  steps?: number;
  /** Deletion, insertion and perturbation. Default: true. */
  faithfulness?: boolean;
  /** Perturbation beside deletion and insertion. Default: true. */
  perturbation?: boolean;
  /** Follows relevancy to pixels. Default: true. */
  throughEncoder?: boolean;
  signal?: AbortSignal;
  /** Called with each line as it comes; `question` is there where it could be asked. */
  onLine?(line: BatchLine, done: number, question?: AnsweredQuestion): void | Promise<void>;
}

/** A map of the whole answer for each kind: the mean over its tokens. */
export const answerMaps = ({ maps }: Explanation): Record<string, Float32Array> =>
  Object.fromEntries(Object.entries(maps).map(([kind, each]) => [kind, meanMap(each)]));

/** Explains questions one after the other. What cannot be asked has a `problem`. */
export async function explainQuestions(
  explainer: Explainer,
  questions: readonly BatchQuestion[],
  options: BatchOptions,
): Promise<BatchLine[]> {
  const lines: BatchLine[] = [];
  for (const question of questions) {
    options.signal?.throwIfAborted();
    const { id, cluster, task, expected } = question;
    let line: BatchLine = { id, cluster, task, expected };
    let answered: AnsweredQuestion | undefined;
    try {
      answered = await explainer.answer({ ...question, signal: options.signal });
      line = { ...line, ...(await explainOne(explainer, question, answered, options)) };
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      line.problem = error.message;
    }
    await options.onLine?.(line, lines.length + 1, answered);
    // the summary needs no maps
    lines.push({ ...line, maps: undefined });
  }
  return lines;
}

async function explainOne(
  explainer: Explainer,
  question: BatchQuestion,
  answered: AnsweredQuestion,
  options: BatchOptions,
): Promise<Partial<BatchLine>> {
  const { seed: base, steps, faithfulness: isMeasured = true, perturbation = true, throughEncoder, signal } = options;
  const { grid } = explainer.layout;
  const { box } = question;
  const seed = hashString(`${base} ${question.id}`);
  const maps = answerMaps(await explainer.maps(answered, { throughEncoder, signal }));
  const oracle: Record<string, Float32Array> = box ? { oracle: boxMap(box, grid) } : {};
  const tokens = answered.answerIds.map((_, token) => token);
  const [measured] = isMeasured
    ? await measureFaithfulness(explainer, answered, [{ tokens, maps: { ...maps, ...oracle } }], {
        seed,
        steps,
        perturbation,
        signal,
      })
    : [];
  return {
    prompt: answered.prompt,
    answer: answered.answer,
    maps: Object.fromEntries(Object.entries(maps).map(([kind, map]) => [kind, Array.from(map, (value) => Number(value.toPrecision(5)))])),
    ...(measured ? { faithfulness: { full: measured.full, blank: measured.blank, scores: measured.scores } } : {}),
    ...(box
      ? {
          pointed: Object.fromEntries(Object.entries(maps).map(([kind, map]) => [kind, point(map, box, grid, createRandom(seed, kind))])),
          chance: chanceOf(box, grid),
          drawings: question.drawings,
        }
      : {}),
  };
}

// === Summary ===

/** Of one kind of map over the questions of a batch; intervals of 95 % with pictures as clusters. */
export interface FaithfulnessSummary {
  n: number;
  /** Mean of a score over questions. */
  mean: Record<keyof FaithfulnessScores, Bootstrapped>;
  /** Mean difference to random orders and to raw attention, question by question. */
  overRandom: Record<keyof FaithfulnessScores, Bootstrapped>;
  overAttention: Record<keyof FaithfulnessScores, Bootstrapped>;
}

export interface PointingSummary extends Mean {
  /** Mean share of the map inside the box. */
  mass: number;
  /** Difference in hits to raw attention, with the mid-p of McNemar's test. */
  overAttention?: Bootstrapped & { midP: number };
}

export interface BatchSummary {
  questions: number;
  /** Questions that could not be explained, and those whose answer the picture hardly changes. */
  problems: number;
  withoutGain: number;
  faithfulness?: Record<string, FaithfulnessSummary>;
  pointing?: {
    maps: Record<string, PointingSummary>;
    /** Hits of a patch at random, and of a drawing at random. */
    chance: number;
    drawing?: number;
    byTask: Record<string, Record<string, Mean>>;
  };
}

export const SCORES = ['deletion', 'insertion', 'positive', 'negative'] as const satisfies (keyof FaithfulnessScores)[];

/** Seed of the intervals' draws, and how many. */
const DRAWS = { seed: 1, draws: 2000 };

export function summarize(lines: readonly BatchLine[]): BatchSummary {
  const asked = lines.filter(({ problem }) => problem === undefined);
  const scored = asked.filter(({ faithfulness }) => faithfulness?.scores);
  const pointed = asked.filter((line) => line.pointed !== undefined);
  return {
    questions: lines.length,
    problems: lines.length - asked.length,
    withoutGain: asked.filter(({ faithfulness }) => faithfulness && !faithfulness.scores).length,
    ...(scored.length > 0 ? { faithfulness: faithfulnessOf(scored) } : {}),
    ...(pointed.length > 0 ? { pointing: pointingOf(pointed) } : {}),
  };
}

function faithfulnessOf(lines: readonly BatchLine[]): Record<string, FaithfulnessSummary> {
  // the oracle is there only where a box is
  const names = [...new Set(lines.flatMap(({ faithfulness }) => Object.keys(faithfulness!.scores!)))];
  const summaryOf = (name: string): FaithfulnessSummary => {
    const own = lines.filter(({ faithfulness }) => faithfulness!.scores![name]);
    const means = (against: string | undefined) =>
      Object.fromEntries(
        SCORES.flatMap((score) => {
          const rows = own.filter(({ faithfulness: { scores } = {} }) => scores![name][score] !== undefined);
          if (rows.length === 0) return [];
          const values = (map: string) => rows.map(({ faithfulness }) => faithfulness!.scores![map][score]!);
          const differences = against === undefined ? values(name) : differencesOf(values(name), values(against));
          return [[score, bootstrapMean(differences, { clusters: rows.map(({ cluster }) => cluster), ...DRAWS })]];
        }),
      ) as Record<keyof FaithfulnessScores, Bootstrapped>;
    return { n: own.length, mean: means(undefined), overRandom: means('random'), overAttention: means('attention') };
  };
  return Object.fromEntries(names.map((name) => [name, summaryOf(name)]));
}

function pointingOf(lines: readonly BatchLine[]): NonNullable<BatchSummary['pointing']> {
  const names = Object.keys(lines[0].pointed!) as MapKind[];
  const clusters = lines.map(({ cluster }) => cluster);
  const hits = (name: string, of = lines) => of.map(({ pointed }) => Number(pointed![name].hit));
  const summaryOf = (name: string): PointingSummary => ({
    ...meanCredit(hits(name), { clusters }),
    mass: meanOf(lines.map(({ pointed }) => pointed![name].mass).filter((mass) => !Number.isNaN(mass))),
    ...(name === 'attention'
      ? {}
      : {
          overAttention: {
            ...bootstrapMean(differencesOf(hits(name), hits('attention')), { clusters, ...DRAWS }),
            midP: mcnemar(discordantPairs(hits(name), hits('attention'))).midP,
          },
        }),
  });
  const tasks = [...new Set(lines.map(({ task }) => task ?? 'question'))];
  const ofTask = (task: string) => lines.filter((line) => (line.task ?? 'question') === task);
  const drawn = lines.flatMap(({ drawings }) => (drawings === undefined ? [] : [1 / drawings]));
  return {
    maps: Object.fromEntries(names.map((name) => [name, summaryOf(name)])),
    chance: meanOf(lines.map(({ chance }) => chance!)),
    ...(drawn.length > 0 ? { drawing: meanOf(drawn) } : {}),
    byTask: Object.fromEntries(
      tasks.map((task) => {
        const own = ofTask(task);
        const keys = own.map(({ cluster }) => cluster);
        return [task, Object.fromEntries(names.map((name) => [name, meanCredit(hits(name, own), { clusters: keys })]))];
      }),
    ),
  };
}
