// README.md of a model that is given away: front matter that the hub reads, and what the run that made it has
// left behind: its recipe, its scores with their intervals, the licences of its parts.

import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parse, stringify } from 'yaml';
import type { Scores } from '../evaluate/samples.ts';
import { PULL_RECORD } from '../hub/download.ts';
import { languageFamily } from '../models/language.ts';
import { imageSize, imageTokenCount, type LlavaConfig } from '../models/llava.ts';
import { visionFamily } from '../models/vision.ts';
import { resolvePath } from '../paths.ts';
import { readSummary, runFolder } from '../runs/folder.ts';

/** Licences of released weights, by how their names on the hub begin. */
const LICENCES: readonly [RegExp, string][] = [
  [/^google\/gemma|^Intel\/llava-gemma/i, 'Gemma Terms of Use (https://ai.google.dev/gemma/terms)'],
  [/^google\/siglip/i, 'Apache-2.0'],
  [/^facebook\/dinov2/i, 'Apache-2.0'],
  [/^openai\/clip/i, 'MIT'],
  [/^laion\//i, 'MIT'],
];

/** Part of a model by its name in recipes. */
const PARTS = { vision_tower: 'vision encoder', language_model: 'language model', llava: 'whole model' } as const;

interface Card {
  config: LlavaConfig;
  parameters: number;
  dtype: string;
  /** The folder that the model was exported from. */
  dir: string;
}

type Recipe = Record<string, unknown> & {
  model?: Record<string, unknown>;
  data?: Record<string, unknown>;
  stages?: Record<string, unknown>[];
};

/** The run that wrote the checkpoint in `dir`, where it did: runs/NAME/checkpoints/STAGE. */
function runOf(dir: string) {
  const folder = runFolder(dirname(dirname(dir)));
  return basename(dirname(dir)) === 'checkpoints' && existsSync(folder.recipe) ? folder : undefined;
}

/** The text of the card. */
export function modelCard({ config, parameters, dtype, dir }: Card): string {
  const run = runOf(dir);
  const recipeText = run && readFileSync(run.recipe, 'utf8');
  const recipe = recipeText === undefined ? undefined : (parse(recipeText) as Recipe);
  const parts = partsOf(dir);
  // a run scores what its last stage ends with
  const isScored = run !== undefined && existsSync(run.summary) && basename(dir) === recipe?.stages?.at(-1)?.name;
  const [vision, language] = [visionFamily(config.vision_config).name, languageFamily(config.text_config.model_type)!.name];
  const front = {
    license: 'other',
    library_name: 'transformers',
    pipeline_tag: 'image-text-to-text',
    tags: ['llava', 'llava-gemma', 'vision-language'],
    ...(parts.some(({ hub }) => hub) ? { base_model: parts.flatMap(({ hub }) => hub ?? []) } : {}),
  };
  const sections = [
    `---\n${stringify(front)}---\n`,
    `# ${basename(run?.path ?? dir)}\n`,
    `A LLaVA that joins ${vision} to ${language} by ${config.mm_projector_type}, trained with llava-gemma: ${(parameters / 1e6).toFixed(1)} million weights in ${dtype}. ` +
      `Pictures of ${imageSize(config)} x ${imageSize(config)} pixels become ${imageTokenCount(config)} tokens.\n`,
    USAGE,
    '## Licences\n',
    licences(parts),
    '## Scores\n',
    scores(isScored ? readSummary(run).scores : {}),
    '## Data\n',
    dataText(recipe),
    '## Training\n',
    recipeText === undefined
      ? 'Which recipe made it is not recorded: it is not in the folder of a run.\n'
      : `\`\`\`yaml\n${recipeText.trimEnd()}\n\`\`\`\n`,
  ];
  return sections.join('\n');
}

const USAGE = `\`\`\`python
from transformers import AutoProcessor, LlavaForConditionalGeneration
model = LlavaForConditionalGeneration.from_pretrained("this folder")
processor = AutoProcessor.from_pretrained("this folder")
content = [{"type": "image", "path": "picture.png"}, {"type": "text", "text": "What is in the picture?"}]
inputs = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=32)
print(processor.decode(ids[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))
\`\`\`
`;

interface Part {
  what: string;
  from: string;
  /** Its name on the hub, where it was pulled from there. */
  hub?: string;
}

/** Runs that a model may have gone through, each going on with what the one before has made. */
const MOST_RUNS = 16;

/** What the model in `dir` began as: that of the hub which it is, or the parts of the runs that led to it. */
function partsOf(dir: string, runs = 0): Part[] {
  const hub = pulledFrom(dir);
  if (hub !== undefined) return [{ what: PARTS.llava, from: basename(dir), hub }];
  const run = runOf(dir);
  if (!run) return [];
  const { model = {} } = parse(readFileSync(run.recipe, 'utf8')) as Recipe;
  return Object.entries(PARTS).flatMap(([field, what]): Part[] => {
    const from = model[field];
    if (typeof from !== 'string') return [];
    const folder = whereIs(from);
    const earlier = field === 'llava' && runs < MOST_RUNS ? partsOf(folder, runs + 1) : [];
    const own = pulledFrom(folder);
    return earlier.length > 0 ? earlier : [{ what, from: basename(from), ...(own === undefined ? {} : { hub: own }) }];
  });
}

/** The name on the hub of what was pulled into a folder. */
function pulledFrom(folder: string): string | undefined {
  const record = join(folder, PULL_RECORD);
  return existsSync(record) ? String(JSON.parse(readFileSync(record, 'utf8')).repo) : undefined;
}

/** A folder as recipes name it; as it is named where it is not there any more. */
function whereIs(path: string): string {
  try {
    return resolvePath(path, 'model');
  } catch {
    return path;
  }
}

/** What the stages of a recipe were trained on. */
function dataText(recipe: Recipe | undefined): string {
  if (!recipe?.stages) return 'It is not recorded.\n';
  const { data } = recipe;
  const filesOf = (given: unknown): string =>
    [given]
      .flat()
      .map((file) => `${basename(String((file as { data_path?: unknown }).data_path))}`)
      .join(', ');
  const rows = recipe.stages.map(({ name, data: given }) => {
    const drawn = `${given} of drawn scenes${data?.train_scenes === undefined ? '' : ` (${data.train_scenes})`}`;
    return `| ${name} | ${given === undefined || typeof given === 'string' ? drawn : filesOf(given)} |`;
  });
  return `| stage | data |\n|---|---|\n${rows.join('\n')}\n`;
}

function licences(parts: readonly Part[]): string {
  if (parts.length === 0)
    return 'The weights began as those of other models, whose licences hold for them; which these were is not recorded.\n';
  const rows = parts.map(({ what, from, hub }) => {
    const known = LICENCES.find(([pattern]) => hub !== undefined && pattern.test(hub))?.[1];
    return `| ${what} | ${hub ?? from} | ${known ?? 'that of its own folder'} |`;
  });
  return `What it was made from, whose licences hold for it:\n\n| part | began as | licence |\n|---|---|---|\n${rows.join('\n')}\n`;
}

function scores(splits: Scores): string {
  const rows = Object.entries(splits).flatMap(([split, tasks]) =>
    Object.entries(tasks).map(([task, { accuracy, ciLow, ciHigh, blind, majority, n }]) => {
      const interval = `${accuracy.toFixed(3)} (${ciLow.toFixed(3)} to ${ciHigh.toFixed(3)})`;
      return `| ${split} | ${task} | ${interval} | ${blind === undefined ? '' : blind.toFixed(3)} | ${majority.toFixed(3)} | ${n} |`;
    }),
  );
  if (rows.length === 0) return 'None are recorded.\n';
  const head =
    '| split | task | accuracy (95 % interval) | without the picture | most frequent answer | questions |\n|---|---|---|---|---|---|';
  return `${head}\n${rows.join('\n')}\n`;
}
