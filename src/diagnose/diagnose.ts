// A diagnosis of a run or of a model: every sign with its number, the worst first.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import type { Engine } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { UserError } from '../errors.ts';
import { answerQuestions } from '../evaluate/evaluate.ts';
import { readSamples } from '../evaluate/samples.ts';
import { imageTokenCount, llavaConfigSchema } from '../models/llava.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { loadModel } from '../pretrained/load.ts';
import { type RunFolder, runFolder } from '../runs/folder.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { answerFindings } from './answer-signs.ts';
import { type DiagnosisData, diagnosisData, withExchangedPictures } from './data.ts';
import { type Finding, rankFindings } from './findings.ts';
import { modelFindings } from './model-signs.ts';
import { probeModel } from './probe.ts';
import { labelFindings, recipeOf, runFindings } from './run-signs.ts';

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
 * there.
 */
function withSkippedStage(findings: readonly Finding[]): Finding[] {
  const isBlind = findings.some(({ sign, level }) => level === 'red' && USES_PICTURES.includes(sign));
  return findings.map((finding) =>
    isBlind && finding.sign === 'stage-1-skipped' && finding.level === 'amber' ? { ...finding, level: 'red' } : finding,
  );
}

/** Signs of whether pictures make a difference. */
const USES_PICTURES = ['image-ignored', 'image-ignored (answers)', 'multi-modal gain', 'collapsed-connector'];

type Work = Required<Pick<DiagnoseOptions, 'engine' | 'signal' | 'onProgress'>>;

async function findingsOfModel(dir: string, data: DiagnosisData, { engine, ...options }: Work): Promise<Finding[]> {
  return modelFindings(await probeModel(engine, dir, data, options));
}

/** Questions before their pictures, blank ones, and those of others. */
async function findingsOfAnswers(dir: string, { asked }: DiagnosisData, { engine, signal, onProgress }: Work): Promise<Finding[]> {
  if (asked.length === 0) return [];
  const model = await loadModel(dir, { engine });
  try {
    const options = { batchSize: 32, maxNewTokens: 24, signal };
    const told = (what: string) => (done: number, total: number) => onProgress(`asking ${what}: ${done} of ${total}`);
    const samples = await answerQuestions(model, asked, { ...options, blind: true, onProgress: told('before pictures and blank ones') });
    const exchanged = await answerQuestions(model, withExchangedPictures(asked), {
      ...options,
      blind: false,
      onProgress: told('before other pictures'),
    });
    return answerFindings(samples, exchanged);
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
  const samples = splits.flatMap(readSamples);
  const answers = samples.length > 0 ? answerFindings(samples) : await findingsOfAnswers(dir, data, work);
  const labels = await withCheckpoint(dir, llavaConfigSchema, async (config) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    return labelFindings(recipe, createTokenizer(tokenizerJson, tokenizerConfig), imageTokenCount(config));
  });
  return [...labels, ...(await findingsOfModel(dir, data, work)), ...answers];
}
