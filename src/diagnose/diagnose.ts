// A diagnosis of a run or of a model: every sign with its number, the worst first.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import type { Engine } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { UserError } from '../errors.ts';
import { answerQuestions } from '../evaluate/evaluate.ts';
import { withExchangedPictures } from '../evaluate/exchanged.ts';
import type { Question } from '../evaluate/questions.ts';
import { readSamples, type Sample } from '../evaluate/samples.ts';
import { imageTokenCount, llavaConfigSchema } from '../models/llava.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { loadModel } from '../pretrained/load.ts';
import { type RunFolder, runFolder } from '../runs/folder.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import type { LlavaRecipe } from '../train/recipe.ts';
import { answerFindings } from './answer-signs.ts';
import { type DiagnosisData, diagnosisData } from './data.ts';
import { type Finding, rankFindings } from './findings.ts';
import { modelFindings } from './model-signs.ts';
import { probeModel } from './probe.ts';
import { labelFindings, recipeOf, runFindings } from './run-signs.ts';
import { movementFinding } from './weight-signs.ts';

export interface Diagnosis {
  /** What was diagnosed. */
  of: string;
  kind: 'run' | 'model';
  findings: Finding[];
}

export interface DiagnoseOptions {
  /** The folder of a run, or of a model. */
  path: string;
  /** What the model is shown; scenes that no committed model has seen when left out. */
  data?: { dataPath: string; imageFolder: string };
  /** Scenes about which questions are asked. */
  scenes?: number;
  engine?: Engine;
  signal: AbortSignal;
  onProgress?: (text: string) => void;
}

/** UserError where the folder is neither. */
export async function diagnose({ path, data: file, scenes, onProgress = () => {}, ...options }: DiagnoseOptions): Promise<Diagnosis> {
  if (!existsSync(join(path, 'recipe.yaml')) && !existsSync(join(path, 'config.json')))
    throw new UserError(`${path} is neither the folder of a run (recipe.yaml) nor of a model (config.json)`);
  const work = { engine: options.engine ?? createOrtEngine(), signal: options.signal, onProgress };
  if (!existsSync(join(path, 'recipe.yaml'))) {
    const data = await diagnosisData(file, scenes);
    const findings = [...(await findingsOfModel(path, data, work)), ...(await findingsOfAnswers(path, data, work))];
    return { of: path, kind: 'model', findings: rankFindings(findings) };
  }
  const folder = runFolder(path);
  const findings = runFindings(folder);
  const model = lastModel(folder);
  if (model !== undefined) findings.push(...(await findingsOfRunModel(folder, model, await diagnosisData(file, scenes), work)));
  return { of: path, kind: 'run', findings: rankFindings(withSkippedStage(findings)) };
}

/**
 * A model that came to use its pictures without stage 1 is an ablation; one that did not has its reason
 * there, be it that pictures make no difference, or next to none.
 */
export function withSkippedStage(findings: readonly Finding[]): Finding[] {
  const isBlind = findings.some(({ sign, level }) => (level === 'red' || level === 'amber') && USES_PICTURES.includes(sign));
  return findings.map((finding) =>
    isBlind && finding.sign === 'stage-1-skipped' && finding.level === 'amber' ? { ...finding, level: 'red' } : finding,
  );
}

/** Signs of whether pictures make a difference. */
const USES_PICTURES = ['image-ignored', 'image-ignored (answers)', 'multi-modal gain', 'logit-effect', 'same-rows', 'collapsed-connector'];

type Work = Required<Pick<DiagnoseOptions, 'engine' | 'signal' | 'onProgress'>>;

async function findingsOfModel(
  dir: string,
  data: Pick<DiagnosisData, 'captions' | 'questions'>,
  { engine, ...options }: Work,
): Promise<Finding[]> {
  return modelFindings(await probeModel(engine, dir, data, options));
}

/** Captions that a model writes itself, and their most tokens. */
const DESCRIBED = 16;
const DESCRIPTION_TOKENS = 96;

/**
 * What the model answers: to questions before their pictures, blank ones and those of others, unless a run
 * has `kept` its answers; and how it describes pictures.
 */
async function findingsOfAnswers(dir: string, data: DiagnosisData, { engine, signal, onProgress }: Work, kept: readonly Sample[] = []) {
  const model = await loadModel(dir, { engine });
  try {
    const options = { batchSize: 32, signal };
    const told = (what: string) => (done: number, total: number) => onProgress(`asking ${what}: ${done} of ${total}`);
    const ask = (questions: readonly Question[], maxNewTokens: number, blind: boolean, what: string) =>
      answerQuestions(model, questions, { ...options, maxNewTokens, blind, onProgress: told(what) });
    const descriptions = await ask(data.described.slice(0, DESCRIBED), DESCRIPTION_TOKENS, false, 'for descriptions');
    if (kept.length > 0) return answerFindings({ samples: kept, descriptions });
    if (data.asked.length === 0) return [];
    const samples = await ask(data.asked, 24, true, 'before pictures and blank ones');
    const exchanged = await ask(withExchangedPictures(data.asked), 24, false, 'before other pictures');
    return answerFindings({ samples, exchanged, descriptions });
  } finally {
    await model.generator.dispose();
  }
}

/** The model of the last stage that has one; undefined for a task that makes no LLaVA. */
function lastModel(folder: RunFolder): string | undefined {
  const recipe = recipeOf(folder);
  if (recipe.task !== 'llava') return undefined;
  return recipe.stages
    .map(({ name }) => folder.checkpoint(name))
    .filter((dir) => existsSync(join(dir, 'config.json')))
    .at(-1);
}

/**
 * The model that a run has made, with the answers that the run has kept or, without any, those that are
 * asked for now.
 */
async function findingsOfRunModel(folder: RunFolder, dir: string, data: DiagnosisData, work: Work): Promise<Finding[]> {
  const recipe = recipeOf(folder);
  if (recipe.task !== 'llava') return [];
  const splits = recipe.evaluate?.splits.map((split) => folder.samples(split)).filter((path) => existsSync(path)) ?? [];
  const answers = await findingsOfAnswers(dir, data, work, splits.flatMap(readSamples));
  return [...(await findingsOfTrained(recipe, dir, data, work)), ...answers];
}

/** What a recipe and the model that it made show without an answer. `data` as of `diagnosisData`. */
export async function findingsOfTrained(
  recipe: LlavaRecipe,
  dir: string,
  data: Pick<DiagnosisData, 'captions' | 'questions'>,
  work: Work,
): Promise<Finding[]> {
  const labels = await withCheckpoint(dir, llavaConfigSchema, async (config) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    return labelFindings(recipe, createTokenizer(tokenizerJson, tokenizerConfig), imageTokenCount(config));
  });
  return [...labels, await movementFinding(recipe, dir), ...(await findingsOfModel(dir, data, work))];
}
