// What a search file may say: a base recipe, the fields that are searched and their values, what is to be
// small or large, and how much may be spent.

import { readFileSync } from 'node:fs';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { evaluationSplits } from '../data/emoji/build.ts';
import { reasonOf, UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { describeProblem } from '../train/recipe-problems.ts';
import { decodeUtf8 } from '../utf8.ts';

const count = () => z.int().positive();
const range = () => z.tuple([z.number(), z.number()]);
const set = () => z.array(z.string()).default([]);

const dimensionSchema = z.union(
  [
    z.strictObject({ log_uniform: range() }),
    z.strictObject({ uniform: range() }),
    z.strictObject({ integer: range() }),
    z.strictObject({ choice: z.array(z.unknown()).min(2) }),
  ],
  { error: 'must be {log_uniform: [low, high]}, {uniform: [low, high]}, {integer: [low, high]} or {choice: [a, b, ...]}' },
);

const objectiveSchema = z.union(
  [
    z.strictObject({ held_out: z.string().describe('Stage whose held-out loss is to be small; no later stage is trained') }),
    z.strictObject({
      accuracy: z.enum(evaluationSplits).describe('Held-out split on which the share of right answers is to be large'),
      task: z.string().optional().describe('Of one task; of all questions when left out'),
    }),
  ],
  { error: `must be {held_out: STAGE} or {accuracy: SPLIT}, with SPLIT one of ${evaluationSplits.join(', ')}` },
);

const budgetSchema = z
  .strictObject({
    trials: count().describe('How many whole schedules may be spent on each variant; the shares of ASHA count as what they are'),
    steps: count().optional().describe('Steps of the stage that is judged, for every trial; the length that the recipe says when left out'),
    samples: count().optional().describe('The same in samples: a trial with larger batches takes fewer steps'),
  })
  .refine(({ steps, samples }) => steps === undefined || samples === undefined, {
    message: 'gives steps and samples; give one of the two',
  });

const starts = ['random', 'halton', 'sobol'] as const;
export const samplers = [...starts, 'tpe'] as const;

export const searchSchema = z.strictObject({
  name: z.string().min(1).describe('What the search is called'),
  recipe: z.string().describe('The recipe of all trials'),
  set: set().describe('Changes of the recipe for all trials, as --set takes them'),
  variants: z
    .array(z.strictObject({ name: z.string().regex(/^[\w-]+$/, 'must consist of letters, digits, dashes and underscores'), set: set() }))
    .min(1)
    .default([{ name: 'base', set: [] }])
    .describe('Models that are each searched with the same budget, by their changes of the recipe'),
  space: z.record(z.string(), dimensionSchema).describe('What is searched: fields of the recipe, by path, with their values'),
  objective: objectiveSchema.describe('What a trial is judged by, at the end of its schedule'),
  budget: budgetSchema.describe('What each variant may spend: the same for all'),
  sampler: z
    .enum(samplers)
    .default('tpe')
    .describe('random; halton or sobol: scrambled points that fill the space evenly; tpe: learns from the trials before'),
  start: z
    .enum(starts)
    .optional()
    .describe('Of tpe: where its first ten trials lie; random when left out, halton or sobol to fill the space evenly'),
  asha: z
    .strictObject({
      reduction: z.int().min(2).max(10).default(3).describe('Of so many trials one goes on to a schedule this many times as long'),
      rungs: z.int().min(2).max(6).default(3).describe('How many lengths of schedule there are, the whole one among them'),
    })
    .optional()
    .describe('Short schedules first: each rung is a run of its own with its schedule to its end'),
  seed: z.int().nonnegative().default(0).describe('Seed of the proposals; all trials have the seed of the recipe'),
  at_once: count().default(1).describe('Trials that run at a time, each in a process of its own; proposals wait for those further back'),
  confirm: z
    .strictObject({
      seeds: z.int().nonnegative().default(3).describe('Fresh seeds with which the winner is run again'),
      base: z.boolean().default(true).describe('Run the recipe as it was with the same seeds, to say what the search was worth'),
    })
    .prefault({})
    .describe('The winner is lucky as well as good: what it is worth is told by seeds that had no part in choosing it'),
  keep: z
    .enum(['winner', 'all'])
    .default('winner')
    .describe('Whose weights stay on disk: those of the runs with fresh seeds, or those of every trial'),
});

export type SearchFile = z.output<typeof searchSchema>;
export type DimensionFile = z.output<typeof dimensionSchema>;
export type Objective = z.output<typeof objectiveSchema>;
export type SamplerName = (typeof samplers)[number];
export type StartName = (typeof starts)[number];

/** Checks a search. UserError with the first problem in one sentence, which begins with `file`. */
export function parseSearch(value: unknown, file: string): SearchFile {
  const parsed = searchSchema.safeParse(value);
  if (!parsed.success) throw new UserError(`${file}: ${describeProblem(searchSchema, parsed.error, value)}`);
  const { space, variants } = parsed.data;
  if (Object.keys(space).length === 0) throw new UserError(`${file}: space names no field: nothing would be searched`);
  const names = variants.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UserError(`${file}: two variants are called ${twice}`);
  return parsed.data;
}

/** Reads a search file, found as `resolvePath` does. UserError as of `parseSearch`. */
export function loadSearch(path: string): SearchFile {
  let text: string;
  try {
    text = decodeUtf8(readFileSync(resolvePath(path, 'search')), path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`search: cannot read ${path}: ${reasonOf(error)}`);
  }
  const document = parseDocument(text, { version: '1.2' });
  if (document.errors.length > 0) throw new UserError(`${path}: not YAML: ${document.errors[0].message.split('\n')[0].replace(/:$/, '')}`);
  const value: unknown = document.toJS();
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new UserError(`${path}: a search must be a map of fields`);
  return parseSearch(value, path);
}
