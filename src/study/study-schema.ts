// What a study file may say: a base recipe, factors with their levels, a design, seeds, what is scored, and
// the comparisons that are named before anything is run.

import { readFileSync } from 'node:fs';
import { parseDocument } from 'yaml';
import { z } from 'zod';
import { evaluationSplits } from '../data/emoji/build.ts';
import { reasonOf, UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { searchSchema } from '../search/search-schema.ts';
import { describeProblem } from '../train/recipe-problems.ts';
import { decodeUtf8 } from '../utf8.ts';

const scalar = z.union([z.string(), z.number(), z.boolean()]);
const count = () => z.int().positive();
const set = () => z.array(z.string());

const levelSchema = z.strictObject({
  label: scalar.describe('What the level is called in tables and plots'),
  value: z.unknown().optional().describe('Value of the field of the factor; the label when left out'),
  set: set().default([]).describe('Further changes of the recipe, as --set takes them'),
  drop: z.array(z.string()).default([]).describe('Stages of the recipe that are left out, by name'),
});

const factorSchema = z.strictObject({
  name: z.string().min(1).describe('What the factor is called'),
  field: z.string().optional().describe('Field of the recipe that the levels are values of, as --set names it (model.connector)'),
  levels: z
    .array(z.union([scalar, levelSchema]))
    .min(2)
    .describe('At least two, the first being the one that others are compared with; a plain value is label and value at once'),
});

const cellSchema = z.record(z.string(), scalar);

const designSchema = z.union(
  [
    z.literal('full'),
    z.strictObject({
      resolution: z
        .int()
        .min(3)
        .max(6)
        .describe('The smallest fraction of this resolution (3: main effects are told from each other; 4: also from pairs; 5: pairs too)'),
    }),
    z.strictObject({ generators: z.array(z.string()).min(1).describe('Factors that follow from others: `D = A * B * C`') }),
    z.strictObject({ cells: z.array(cellSchema).min(2).describe('The cells that are run, each a level of every factor') }),
  ],
  { error: 'must be full, {resolution: N}, {generators: [D = A * B * C]} or {cells: [...]}' },
);

const comparisonSchema = z.union(
  [
    z.string(),
    z.strictObject({ effect: z.string(), at: cellSchema }),
    z.strictObject({ interaction: z.array(z.string()).min(2) }),
    z.strictObject({ cells: z.array(cellSchema).length(2) }),
  ],
  { error: 'must be the name of a factor, {effect, at}, {interaction: [A, B]} or {cells: [{...}, {...}]}' },
);

const benchmarkSchema = z.strictObject({
  name: z.string().describe('As llava-gemma benchmarks lists them'),
  data: z.string().describe('Folder of the downloads'),
  limit: count().optional().describe('About so many questions; all when left out'),
});

const scoreSchema = z.strictObject({
  splits: z.array(z.enum(evaluationSplits)).optional().describe('Held-out splits of the generated data; those of the recipe when left out'),
  exchanged: z.boolean().default(true).describe('Ask again before the pictures of other questions'),
  alignment: z
    .int()
    .min(2)
    .optional()
    .describe('On so many scenes, alignment by layer and retrieval among ten (docs/alignment.md); not measured when left out'),
  diagnosis: z
    .int()
    .min(2)
    .optional()
    .describe('On so many scenes, the signs that ask for a pass of the model (docs/diagnose.md); not looked at when left out'),
  maps: count()
    .optional()
    .describe(
      'On so many questions about a drawing, whether relevancy maps point at it and what they are worth (docs/explain.md); not measured when left out',
    ),
  benchmarks: z.array(benchmarkSchema).default([]).describe('Published benchmarks'),
});

/** The search of each cell: its trials are judged by themselves, and its winner by the seeds of the study. */
const cellSearchSchema = searchSchema.pick({
  space: true,
  objective: true,
  budget: true,
  sampler: true,
  start: true,
  asha: true,
  seed: true,
});

const convergenceSchema = z.strictObject({
  stage: z.string().describe('The stage of which shares are trained; it gives steps, and held_out for the loss'),
  shares: z
    .array(z.number().min(0).max(1))
    .min(2)
    .refine((shares) => shares.includes(1), 'must have 1 among them: the whole stage, which the others are compared with')
    // a fit of the law needs six sizes over 1.5 decades
    .default([0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])
    .describe('Shares of its steps, each with a schedule that ends there, and each taken through the stages that follow'),
});

export const studySchema = z.strictObject({
  name: z.string().min(1).describe('What the study is called'),
  recipe: z.string().describe('The recipe that is varied'),
  set: set().default([]).describe('Changes of the recipe for all variants, as --set takes them'),
  factors: z.array(factorSchema).default([]).describe('What is varied'),
  design: designSchema.default('full').describe('Which cells are run: full, a fraction of two-level factors, or a list'),
  seeds: z
    .union([count(), z.array(z.int().nonnegative()).min(1)], {
      error: 'must be how many runs each cell has (4), or a list of their seeds ([1, 2, 3])',
    })
    .describe('How many runs each cell has, or their seeds'),
  score: scoreSchema.prefault({}).describe('What is asked of each trained model'),
  family: z
    .strictObject({
      comparisons: z
        .array(comparisonSchema)
        .min(1)
        .optional()
        .describe(
          'Each the name of a factor (every level against the first), an effect at levels of others, an interaction, or two cells; all effects and interactions of two when left out',
        ),
      scores: z.array(z.string()).min(1).optional().describe('Splits and benchmarks that the family is about; the first one when left out'),
    })
    .prefault({})
    .describe('The comparisons that are named beforehand: Holm over all of them'),
  search: cellSearchSchema
    .optional()
    .describe(
      'A search of every cell with the same budget; each cell is then run with the values of the recipe and with its own best ones',
    ),
  convergence: convergenceSchema.optional().describe('What a stage is worth that is trained for a share of its steps'),
});

export type StudyFile = z.output<typeof studySchema>;
export type Level = z.output<typeof levelSchema>;
export type Comparison = z.output<typeof comparisonSchema>;

/** A factor with its levels written out. */
export interface StudyFactor {
  name: string;
  field: string | undefined;
  levels: (Omit<Level, 'label'> & { label: string })[];
}

/** Levels as the file may shorten them, written out. UserError for two of one name. */
export function factorsOf({ factors }: Pick<StudyFile, 'factors'>, file: string): StudyFactor[] {
  const names = factors.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new UserError(`${file}: two factors are called ${twice}`);
  return factors.map(({ name, field, levels }) => {
    const whole = levels.map((level) => {
      const given = typeof level === 'object' ? level : { label: level, set: [], drop: [] };
      return { ...given, value: given.value === undefined ? given.label : given.value, label: String(given.label) };
    });
    const labels = whole.map(({ label }) => label);
    const same = labels.find((label, i) => labels.indexOf(label) !== i);
    if (same !== undefined) throw new UserError(`${file}: factor ${name} has two levels that are called ${same}`);
    const empty = field === undefined ? whole.filter((level) => level.set.length + level.drop.length === 0) : [];
    if (empty.length > 1)
      throw new UserError(
        `${file}: factor ${name}: levels ${empty.map(({ label }) => label).join(' and ')} change nothing: give the factor a field, or the levels set or drop`,
      );
    return { name, field, levels: whole };
  });
}

/** Checks a study. UserError with the first problem in one sentence, which begins with `file`. */
export function parseStudy(value: unknown, file: string): StudyFile {
  const { seeds: given } = (value ?? {}) as { seeds?: unknown };
  if (given === undefined || given === null || given === 0 || (Array.isArray(given) && given.length === 0))
    throw new UserError(`${file}: a study needs seeds: how many runs each cell has (4), or a list of them ([1, 2, 3])`);
  const parsed = studySchema.safeParse(value);
  if (!parsed.success) throw new UserError(`${file}: ${describeProblem(studySchema, parsed.error, value)}`);
  const { factors, convergence, seeds } = parsed.data;
  if (factors.length === 0 && !convergence) throw new UserError(`${file}: names no factors and no convergence: nothing would be compared`);
  if (parsed.data.search && convergence) throw new UserError(`${file}: takes a search or a convergence, not both`);
  if (Array.isArray(seeds) && new Set(seeds).size !== seeds.length) throw new UserError(`${file}: seeds has a seed twice`);
  return parsed.data;
}

/** Reads a study file, found as `resolvePath` does. */
export function loadStudy(path: string): StudyFile {
  let text: string;
  try {
    text = decodeUtf8(readFileSync(resolvePath(path, 'study')), path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`study: cannot read ${path}: ${reasonOf(error)}`);
  }
  const document = parseDocument(text, { version: '1.2' });
  if (document.errors.length > 0) throw new UserError(`${path}: not YAML: ${document.errors[0].message.split('\n')[0].replace(/:$/, '')}`);
  const value: unknown = document.toJS();
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new UserError(`${path}: a study must be a map of fields`);
  return parseStudy(value, path);
}
