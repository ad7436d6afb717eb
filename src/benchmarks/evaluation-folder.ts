// The folder of an evaluation: what was asked of whom (evaluation.json), the answers as they came
// (<benchmark>/<condition>.jsonl), how each was judged (<benchmark>/judged.jsonl), the report.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { makeFolder, onDisk, writeWhole } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { BenchmarkQuestion } from './benchmark.ts';
import { type Condition, conditions } from './conditions.ts';
import { readJson } from './files.ts';

const settingsSchema = z.object({
  format: z.literal(1),
  /** Name of the model, as answers have it. */
  model: z.string(),
  /** What stands for its content. */
  content: z.string(),
  /** What was asked, in order. */
  benchmarks: z.array(z.object({ name: z.string(), harness: z.string(), questions: z.number(), content: z.string() })),
  conditions: z.array(z.enum(conditions)),
  limit: z.number().nullable(),
  shard: z.object({ index: z.number(), count: z.number() }).nullable(),
  maxNewTokens: z.number().nullable(),
  quantize: z.string().nullable(),
});

/** All that answers depend on. */
export type EvaluationSettings = z.infer<typeof settingsSchema>;

export interface EvaluationFolder {
  path: string;
  settings: string;
  answers(benchmark: string, condition: Condition): string;
  judged(benchmark: string): string;
  /** In place of a score where right answers are secret: what their server takes. */
  upload(benchmark: string): string;
  /** Scores with intervals and baselines: the same for the same answers. */
  report: string;
  markdown: string;
  page: string;
  /** Tokens, seconds, memory. */
  cost: string;
}

/** The paths in the folder of an evaluation, whether or not there is one. */
export const evaluationFolder = (path: string): EvaluationFolder => ({
  path,
  settings: join(path, 'evaluation.json'),
  answers: (benchmark, condition) => join(path, benchmark, condition === 'plain' ? 'answers.jsonl' : `${condition}.jsonl`),
  judged: (benchmark) => join(path, benchmark, 'judged.jsonl'),
  upload: (benchmark) => join(path, benchmark, 'upload.json'),
  report: join(path, 'report.json'),
  markdown: join(path, 'report.md'),
  page: join(path, 'report.html'),
  cost: join(path, 'cost.json'),
});

/** Stands for questions, with their words and the names of their pictures. */
export function contentOfQuestions(questions: readonly BenchmarkQuestion[]): string {
  const hash = createHash('sha256');
  for (const { id, prompt, pictures } of questions) hash.update(JSON.stringify([id, prompt, pictures.map(({ name }) => name)]));
  return hash.digest('hex');
}

/** What was asked of whom. UserError where the folder holds no evaluation. */
export function readSettings(path: string): EvaluationSettings {
  const { settings } = evaluationFolder(path);
  if (!existsSync(settings)) throw new UserError(`${path}: is no folder of an evaluation: it has no evaluation.json`);
  return readJson(settings, settingsSchema, 'what llava-gemma eval --benchmarks writes');
}

/** The first thing in which two evaluations differ, in words. */
export function settingsDifference(before: EvaluationSettings, now: EvaluationSettings): string | undefined {
  const said = (value: unknown) => (value === null ? 'none' : typeof value === 'string' ? value : JSON.stringify(value));
  if (before.model !== now.model) return `model (${before.model}, now ${now.model})`;
  if (before.content !== now.content) return `weights or config of ${now.model}`;
  for (const name of ['conditions', 'limit', 'shard', 'maxNewTokens', 'quantize'] as const)
    if (JSON.stringify(before[name]) !== JSON.stringify(now[name])) return `${name} (${said(before[name])}, now ${said(now[name])})`;
  const [was, is] = [before.benchmarks, now.benchmarks].map((list) => list.map(({ name, harness }) => `${name} as ${harness}`).join(', '));
  if (was !== is) return `benchmarks (${was}, now ${is})`;
  const changed = now.benchmarks.find(({ content }, i) => content !== before.benchmarks[i].content);
  return changed && `questions of ${changed.name}`;
}

/**
 * Makes the folder of an evaluation, or goes on with it. UserError where it holds something else, which
 * `overwrite` removes.
 */
export function prepareFolder(path: string, settings: EvaluationSettings, overwrite: boolean): void {
  const folder = evaluationFolder(path);
  makeFolder(path);
  const isEvaluation = existsSync(folder.settings);
  const others = onDisk(path, () => readdirSync(path)).filter((name) => !/^run\.lock\.\d+$/.test(name));
  if (!isEvaluation && others.length > 0) throw new UserError(`${path}: it holds other things than an evaluation; give a new folder`);
  if (isEvaluation && overwrite) for (const name of others) rmSync(join(path, name), { recursive: true, force: true });
  else if (isEvaluation) {
    const difference = settingsDifference(readSettings(path), settings);
    if (difference === undefined) return;
    throw new UserError(`${path}: it holds an evaluation with other ${difference}; give another --out, or --overwrite to begin anew`);
  }
  writeWhole(folder.settings, `${JSON.stringify(settings, null, 2)}\n`);
}
