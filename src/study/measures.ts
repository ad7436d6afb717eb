// What is measured of the runs of a study. A measure may do something with a run that has just been trained,
// in its process, and later reads what is known of it: credit by question, and single numbers. Another one is
// a further entry of the list.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BenchmarkReport, EvaluationReport } from '../benchmarks/assess.ts';
import { benchmarkNamed } from '../benchmarks/benchmarks.ts';
import { readEvaluation } from '../benchmarks/compare.ts';
import { chooseBenchmarks, runEvaluation } from '../benchmarks/evaluation.ts';
import { evaluationFolder, readSettings } from '../benchmarks/evaluation-folder.ts';
import { emojiDataset } from '../data/emoji/build.ts';
import { diagnosisData } from '../diagnose/data.ts';
import { findingsOfTrained } from '../diagnose/diagnose.ts';
import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { createAsker } from '../evaluate/asking.ts';
import { answerQuestions } from '../evaluate/evaluate.ts';
import { withExchangedPictures } from '../evaluate/exchanged.ts';
import { readQuestions } from '../evaluate/questions.ts';
import { readSamples, writeSamples } from '../evaluate/samples.ts';
import { isSameContent, modelContent } from '../pretrained/content.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import { type RunFolder, readSummary, runFolder } from '../runs/folder.ts';
import { readMetrics } from '../runs/metrics.ts';
import type { LlavaRecipe } from '../train/recipe.ts';
import { alignmentNumbers, readAlignment, takeAlignment } from './alignment.ts';
import type { AnsweredScore } from './answered.ts';
import { writeJson } from './folder.ts';
import { mapNumbers, readMaps, takeMaps } from './maps.ts';
import { splitScore } from './split-score.ts';

export interface BenchmarkAsked {
  name: string;
  data: string;
  limit?: number;
}

/** What a study asks of its runs. */
export interface MeasuresAsked {
  exchanged: boolean;
  benchmarks: readonly BenchmarkAsked[];
  /** Pictures that alignment is measured on; nothing where it is not. */
  alignment?: number;
  /** Scenes that the model is looked at with, likewise. */
  diagnosis?: number;
  /** Questions whose maps are measured, likewise. */
  maps?: number;
}

/** A run that has been trained. */
export interface TrainedRun extends MeasuresAsked {
  recipe: LlavaRecipe;
  folder: RunFolder;
  /** Where measures keep what they find. */
  out: string;
  engine: Engine;
  signal: AbortSignal;
}

/** The model of the last stage. */
const modelOf = ({ folder, recipe }: Pick<TrainedRun, 'folder' | 'recipe'>) => folder.checkpoint(recipe.stages.at(-1)!.name);

/** Where the files of a finished run are. */
export interface RunFiles {
  run: string;
  measures: string;
  recipe: LlavaRecipe;
  /** Benchmarks that were asked. */
  benchmarks: readonly BenchmarkAsked[];
}

export interface Measure {
  name: string;
  /** What the report says when nothing of it was measured. */
  missing: string;
  /** Done once the run is trained; `load` gives its model, loaded once. */
  take?(run: TrainedRun, load: () => Promise<LoadedModel>): Promise<void>;
  /** By split or benchmark. */
  scores?(files: RunFiles): Record<string, AnsweredScore>;
  /** Single numbers, by name: the same for the same weights. */
  numbers?(files: RunFiles): Record<string, number>;
}

// === Held-out splits ===

const splitsMeasure: Measure = {
  name: 'held-out splits',
  missing: 'no held-out split was scored',
  scores({ run, measures, recipe }) {
    const folder = runFolder(run);
    const { scores } = readSummary(folder);
    return Object.fromEntries(
      (recipe.evaluate?.splits ?? []).map((split) => {
        const exchanged = exchangedFile(measures, split);
        const answered = existsSync(exchanged) ? readSamples(exchanged) : undefined;
        return [split, splitScore(readSamples(folder.samples(split)), scores[split], answered)];
      }),
    );
  },
};

/** Answers before the pictures of other questions. */
export const exchangedFile = (measures: string, split: string) => join(measures, 'exchanged', `${split}.jsonl`);

export const EXCHANGED = 'exchanged pictures';

const exchangedMeasure: Measure = {
  name: EXCHANGED,
  missing: 'the models were not asked before the pictures of other questions',
  async take({ recipe, out, exchanged, signal }, load) {
    if (!exchanged || !recipe.evaluate || !recipe.data) return;
    const { splits, batch_size: batchSize, max_new_tokens: maxNewTokens } = recipe.evaluate;
    const dataset = emojiDataset(recipe.data.folder);
    for (const split of splits) {
      const questions = withExchangedPictures(await readQuestions(dataset.evaluation[split], dataset.imageFolder, split));
      if (questions.length === 0) continue;
      writeSamples(
        exchangedFile(out, split),
        await answerQuestions(await load(), questions, { batchSize, maxNewTokens, blind: false, signal }),
      );
    }
  },
};

// === Held-out losses ===

const heldOutMeasure: Measure = {
  name: 'held-out loss',
  missing: 'no stage has a held-out loss (held_out of a stage)',
  numbers({ run, recipe }) {
    const events = readMetrics(runFolder(run).metrics);
    return Object.fromEntries(
      recipe.stages.flatMap(({ name }) => {
        const losses = events.flatMap((event) => (event.type === 'held-out' && event.stage === name ? [event] : []));
        const last = losses.at(-1);
        if (!last) return [];
        const gain = last.imageGain === undefined ? [] : [[`${name}: image gain`, last.imageGain]];
        return [[`${name}: held-out loss`, last.loss], [`${name}: held-out loss at its start`, losses[0].loss], ...gain] as [
          string,
          number,
        ][];
      }),
    );
  },
};

// === Alignment ===

const alignmentMeasure: Measure = {
  name: 'alignment',
  missing: 'alignment of image and text rows by layer (score.alignment, for recipes with generated scenes)',
  async take({ alignment: pictures, recipe, folder, out, engine, signal }) {
    if (pictures === undefined || !recipe.data) return;
    await takeAlignment(out, { pictures, model: modelOf({ folder, recipe }), recipe, engine, signal });
  },
  numbers({ measures: folder }) {
    const found = readAlignment(folder);
    return found ? alignmentNumbers(found) : {};
  },
};

// === Signs of the model ===

export const signsFile = (measures: string) => join(measures, 'signs.json');

const signsMeasure: Measure = {
  name: 'signs of the model',
  missing: 'signs that ask for a pass of the model (score.diagnosis, or llava-gemma diagnose RUN)',
  async take({ diagnosis: scenes, recipe, folder, out, engine, signal }) {
    if (scenes === undefined) return;
    const data = await diagnosisData(undefined, scenes);
    const work = { engine, signal, onProgress: () => {} };
    writeJson(signsFile(out), await findingsOfTrained(recipe, modelOf({ folder, recipe }), data, work));
  },
};

// === Maps ===

const mapsMeasure: Measure = {
  name: 'maps',
  missing: 'where the models look (score.maps)',
  async take({ maps: questions, recipe, folder, out, engine, signal }) {
    if (questions === undefined) return;
    await takeMaps(out, { questions, model: modelOf({ folder, recipe }), engine, signal });
  },
  numbers({ measures: folder }) {
    const found = readMaps(folder);
    return found ? mapNumbers(found) : {};
  },
};

// === Benchmarks ===

const benchmarkFolder = (measures: string, name: string) => join(measures, 'benchmarks', name);

/** The content of a run's model as an evaluation that an earlier version began has it: it is gone on with. */
function contentAsKept(path: string, now: string): string {
  const before = existsSync(evaluationFolder(path).settings) ? readSettings(path).content : undefined;
  return before !== undefined && isSameContent(before, now) ? before : now;
}

const benchmarksMeasure: Measure = {
  name: 'benchmarks',
  missing: 'no published benchmark was asked (score.benchmarks)',
  async take({ folder, out, exchanged, benchmarks, recipe, signal }, load) {
    for (const { name, data, limit } of benchmarks)
      refuseUnasked(
        name,
        await runEvaluation(
          {
            out: benchmarkFolder(out, name),
            model: 'model',
            content: contentAsKept(benchmarkFolder(out, name), await modelContent(modelOf({ folder, recipe }))),
            chosen: await chooseBenchmarks([benchmarkNamed(name)], data, {}, limit),
            conditions: ['plain', 'blind', ...(exchanged ? (['exchanged'] as const) : [])],
            limit,
          },
          async () => createAsker(await load()),
          { batchSize: recipe.evaluate?.batch_size ?? 64, signal },
        ),
      );
  },
  scores: ({ measures, benchmarks }) =>
    Object.fromEntries(benchmarks.map(({ name }) => [name, benchmarkScore(benchmarkFolder(measures, name), name)])),
};

/**
 * UserError where questions could not be asked: they would count as wrong in one run and not in another. What
 * was answered is kept, and they are tried again when the study goes on.
 */
export function refuseUnasked(name: string, { benchmarks: [{ unasked }] }: EvaluationReport): void {
  if (unasked.count > 0) throw new UserError(`${name}: ${unasked.count} questions could not be asked: ${unasked.reason}`);
}

function benchmarkScore(path: string, name: string): AnsweredScore {
  const folder = evaluationFolder(path);
  const report = JSON.parse(readFileSync(folder.report, 'utf8')) as {
    // earlier versions kept headlines alone, which credit does not compare with
    benchmarks: { credits?: BenchmarkReport['credits'] }[];
  };
  const { blind, exchanged, majority, random: chance } = report.benchmarks[0].credits ?? {};
  const baselines = Object.fromEntries(Object.entries({ blind, exchanged, chance, majority }).filter(([, credit]) => credit !== undefined));
  const questions = readEvaluation(path).judged(name);
  return {
    questions: questions.map(({ id, cluster, prompt, references, answer, credit }) => ({
      key: id,
      cluster,
      prompt,
      expected: references[0] ?? '',
      answer,
      credit,
    })),
    // they are known of all of them together
    baselines: (chosen) => (chosen.length === questions.length ? baselines : {}),
  };
}

export const measures: readonly Measure[] = [
  splitsMeasure,
  exchangedMeasure,
  heldOutMeasure,
  alignmentMeasure,
  signsMeasure,
  mapsMeasure,
  benchmarksMeasure,
];

/** Seconds of each measure that was taken, by name, and of loading the model (`load`). */
export type MeasureTimes = Record<string, number>;

/** Takes every measure of a run, in its own process. */
export async function measureRun(run: TrainedRun): Promise<MeasureTimes> {
  let model: LoadedModel | undefined;
  const times: MeasureTimes = { load: 0 };
  const timed = async (name: string, work: () => Promise<void>) => {
    const [began, loading] = [performance.now(), times.load];
    await work();
    // what a measure waited for the model is not its own
    times[name] = (performance.now() - began) / 1000 - (name === 'load' ? 0 : times.load - loading);
  };
  const load = async () => {
    if (!model)
      await timed('load', async () => {
        model = await loadModel(modelOf(run), { engine: run.engine });
      });
    return model!;
  };
  try {
    for (const { name, take } of measures) {
      run.signal.throwIfAborted();
      if (take) await timed(name, () => take(run, load));
    }
    return times;
  } finally {
    await model?.generator.dispose();
  }
}
