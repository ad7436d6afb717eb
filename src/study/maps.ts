// Where the models of a study look for the right answers to questions about one drawing among several,
// whose place is known (explain/batch.ts).

import { join } from 'node:path';
import { pointingQuestions } from '../data/emoji/pointing.ts';
import type { Engine } from '../engine/engine.ts';
import { aboutDrawings, type BatchLine, type BatchSummary, explainQuestions, summarize } from '../explain/batch.ts';
import { loadExplainer } from '../explain/explainer.ts';
import { readJson, writeJson } from './folder.ts';

/** Of the scenes, which are the same for all runs, and of what is drawn at random. */
const SEED = 1;

/** A number of questions that is asked for, and the model. */
export interface MapsAsked {
  questions: number;
  model: string;
  engine: Engine;
  signal: AbortSignal;
}

const fileOf = (measures: string) => join(measures, 'maps.json');

/** Explains the right answers to questions by a model and keeps what was found in the folder `measures`. */
export async function takeMaps(measures: string, { questions, model, engine, signal }: MapsAsked): Promise<void> {
  const explainer = await loadExplainer(model, { engine });
  try {
    const drawn = aboutDrawings(await pointingQuestions(questions, SEED), explainer.layout.grid);
    // of the right answer, whatever a model says: the same target for all
    const asked = drawn.map((question) => ({ ...question, answer: question.expected }));
    writeJson(
      fileOf(measures),
      await explainQuestions(explainer, asked, { seed: SEED, perturbation: false, throughEncoder: false, signal }),
    );
  } finally {
    await explainer.dispose();
  }
}

/** What was found for a run; undefined where nothing was measured. */
export const readMaps = (measures: string) => readJson<BatchLine[]>(fileOf(measures));

/** Headline numbers of a run, by name. */
export function mapNumbers(lines: readonly BatchLine[]): Record<string, number> {
  const { faithfulness, pointing } = summarize(lines);
  return {
    ...(pointing ? { 'relevancy points at what is asked': pointing.maps.relevancy.value } : {}),
    ...(faithfulness ? { 'AUC of deletion, less that of random orders': faithfulness.relevancy.overRandom.deletion.value } : {}),
  };
}

/** The maps of one cell: the same questions asked of the model of each seed. */
export interface CellMaps {
  cell: string;
  seeds: number;
  summary: BatchSummary;
}

/** By cell, those that have any. A scene is one cluster, whichever model was asked about it. */
export function cellMaps(runs: readonly { cell: string; maps: BatchLine[] | undefined }[]): CellMaps[] {
  return [...new Set(runs.map(({ cell }) => cell))].flatMap((cell) => {
    const found = runs.flatMap((run) => (run.cell === cell && run.maps ? [run.maps] : []));
    return found.length > 0 ? [{ cell, seeds: found.length, summary: summarize(found.flat()) }] : [];
  });
}
