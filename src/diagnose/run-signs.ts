// Signs that the folder of a run shows: what was told while it trained, its losses, its recipe, its data.

import { existsSync, readFileSync } from 'node:fs';
import { emojiDataset } from '../data/emoji/build.ts';
import { forEachSample, type Sample } from '../data/llava-json.ts';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { RunFolder } from '../runs/folder.ts';
import { type HeldOutEvent, type MetricEvent, readMetrics, type Sign, type WarningEvent } from '../runs/metrics.ts';
import { meanOf } from '../statistics/proportion.ts';
import { encodeConversation, ignoreIndex } from '../text/labels.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { LEAST_IMAGE_GAIN, OVERFIT_FACTOR } from '../train/health.ts';
import { type LlavaRecipe, type LlavaStage, type Recipe, readRecipe } from '../train/recipe.ts';
import { type Finding, findingOf, type Level, percent, short, type Verdict } from './findings.ts';

/**
 * Passes over the data after which a further one is worth little, and half of what is new (Muennighoff et
 * al. 2023).
 */
const EPOCHS = { fresh: 4, worn: 15.4 };
/** Samples of a stage whose labels are looked at. */
const LABELED = 200;

export const recipeOf = (folder: RunFolder): Recipe =>
  readRecipe(
    onDisk(folder.recipe, () => readFileSync(folder.recipe, 'utf8')),
    folder.recipe,
  );

// === What was told ===

const told: Partial<Record<Sign, { level: Level; advice: string }>> = {
  'not-finite': { level: 'red', advice: 'lower the rate, lengthen the warmup, and look at the samples of that step' },
  'learning-rate': { level: 'red', advice: 'lower warmup_steps or warmup_ratio' },
  'dead-gradient': { level: 'red', advice: 'look whether the data have pictures and what the stage trains' },
  'loss-spike': { level: 'amber', advice: 'look whether the loss comes back; if not, lower the rate or raise beta 2' },
  'gradient-spike': { level: 'amber', advice: 'one is harmless where it is clipped; many ask for a lower rate' },
  'update-ratio': { level: 'amber', advice: 'change the rate of the module (lr_by_module)' },
  'unmoved-weights': { level: 'red', advice: 'raise the rate of the module (lr, lr_by_module)' },
  clipping: { level: 'amber', advice: 'raise max_grad_norm, or look at the data' },
};

function toldFindings(events: readonly MetricEvent[]): Finding[] {
  const warnings = events.filter((event): event is WarningEvent => event.type === 'warning');
  return Object.entries(told).map(([sign, { level, advice }]) => {
    const found = warnings.filter((warning) => warning.sign === sign);
    const about = { sign, healthy: 'never', source: 'docs/training.md#signs-of-failure', advice };
    if (found.length === 0) return findingOf(about, { level: 'green', found: 'not told while it trained' });
    const [{ stage, step, message }] = found;
    const times = found.length > 1 ? `${found.length} times, first: ` : '';
    return findingOf(about, { level, numbers: { times: found.length }, found: times + message, at: { stage, step } });
  });
}

// === Losses ===

const heldOutOf = (events: readonly MetricEvent[], stage: string) =>
  events.filter((event): event is HeldOutEvent => event.type === 'held-out' && event.stage === stage && event.step > 0);

function overfitVerdict(events: readonly MetricEvent[], stages: readonly string[]): Verdict {
  const verdicts = stages.flatMap((stage): Verdict[] => {
    const steps = events.filter((event) => event.type === 'step' && event.stage === stage).filter((event) => event.type === 'step');
    const last = steps.at(-1);
    if (!last) return [];
    const heldOut = heldOutOf(events, stage);
    const epochs = `${short(last.epoch)} passes over the data`;
    if (heldOut.length === 0) {
      const level = last.epoch > EPOCHS.worn ? 'red' : last.epoch > EPOCHS.fresh ? 'amber' : 'green';
      return [
        { level, numbers: { epochs: last.epoch }, found: `${stage}: ${epochs}, and nothing was held out to tell what they are worth` },
      ];
    }
    const training = meanOf(steps.slice(-5).map(({ loss }) => loss));
    const best = heldOut.reduce((least, event) => (event.loss < least.loss ? event : least));
    const { loss, step } = heldOut.at(-1)!;
    const found = `${stage}: held-out loss ${short(loss)} at the end, ${short(best.loss)} at its best (step ${best.step}), training loss ${short(training)}, ${epochs}`;
    const isOver = loss > OVERFIT_FACTOR * best.loss;
    return [
      {
        level: isOver ? 'red' : 'green',
        numbers: { heldOut: loss, best: best.loss, training, epochs: last.epoch },
        found,
        ...(isOver ? { at: { stage, step } } : {}),
      },
    ];
  });
  return worst(verdicts) ?? { level: 'unknown', found: 'no steps were logged' };
}

function imageVerdict(events: readonly MetricEvent[], stages: readonly string[]): Verdict {
  const verdicts = stages.flatMap((stage): Verdict[] => {
    const last = heldOutOf(events, stage).at(-1);
    if (last?.imageGain === undefined) return [];
    const found = `${stage}: the held-out loss is ${short(last.imageGain)} nats larger with the pictures of others`;
    return [
      {
        level: last.imageGain < LEAST_IMAGE_GAIN ? 'red' : 'green',
        numbers: { imageGain: last.imageGain },
        found,
        at: { stage, step: last.step },
      },
    ];
  });
  return worst(verdicts) ?? { level: 'unknown', found: 'nothing was held out' };
}

const order: readonly Level[] = ['red', 'amber', 'unknown', 'green'];
const worst = (verdicts: readonly Verdict[]): Verdict | undefined =>
  verdicts.toSorted((a, b) => order.indexOf(a.level) - order.indexOf(b.level))[0];

// === The recipe ===

/** Whether the connector met the language model's training untrained. */
function stageOneVerdict(recipe: LlavaRecipe): Verdict {
  const isFresh = 'vision_tower' in recipe.model || recipe.model.new_connector !== undefined;
  const first = recipe.stages.findIndex(({ train, lora }) => train.includes('language_model') || lora);
  if (!isFresh) return { level: 'green', found: 'the connector comes from a trained model' };
  if (first < 0) return { level: 'green', found: 'the language model is frozen in every stage' };
  if (recipe.stages.slice(0, first).some(({ train }) => train.includes('multi_modal_projector')))
    return { level: 'green', found: 'the connector was trained before the language model was' };
  return { level: 'amber', found: `stage ${recipe.stages[first].name} trains the language model with a fresh connector` };
}

/** Trained tokens of the samples of each stage. */
export async function labelFindings(recipe: LlavaRecipe, tokenizer: Tokenizer, imageTokens: number): Promise<Finding[]> {
  const about = {
    sign: 'label-mask',
    healthy: 'no sample without trained tokens',
    source: 'ours',
    advice: 'look at the template and at max_length: an answer that is cut off or not found is not trained',
  };
  const verdicts = await Promise.all(recipe.stages.map((stage) => labelVerdict(recipe, stage, tokenizer, imageTokens)));
  return verdicts.map((verdict) => findingOf(about, verdict));
}

async function labelVerdict(recipe: LlavaRecipe, stage: LlavaStage, tokenizer: Tokenizer, imageTokens: number): Promise<Verdict> {
  const samples: Sample[] = [];
  for (const { path, imageFolder } of filesOf(recipe, stage)) {
    if (!existsSync(path)) return { level: 'unknown', found: `${stage.name}: ${path} is not there any more` };
    samples.push(...(await firstSamples(path, imageFolder, LABELED - samples.length)));
  }
  const counts = samples.map(({ conversations, images }) => {
    try {
      const options = { imageTokens: images.length > 0 ? imageTokens : 0, maxLength: stage.max_length, template: stage.template };
      return encodeConversation(tokenizer, conversations, options).labels.filter((label) => label !== ignoreIndex).length;
    } catch (error) {
      if (error instanceof UserError) return 0;
      throw error;
    }
  });
  const none = counts.filter((count) => count === 0).length / counts.length;
  const mean = meanOf(counts);
  const found = `${stage.name}: ${short(mean)} trained tokens a sample, ${Math.min(...counts)} at the least, none in ${percent(none)} of ${counts.length}`;
  return { level: none > 0 ? 'red' : 'green', numbers: { mean, none }, found };
}

function filesOf({ data }: LlavaRecipe, stage: LlavaStage): { path: string; imageFolder: string }[] {
  if (typeof stage.data === 'string') {
    const built = emojiDataset(data!.folder);
    return [{ path: built[stage.data], imageFolder: built.imageFolder }];
  }
  return [stage.data].flat().map(({ data_path, image_folder }) => ({ path: data_path, imageFolder: image_folder }));
}

async function firstSamples(path: string, imageFolder: string, most: number): Promise<Sample[]> {
  const enough = new Error('enough');
  const samples: Sample[] = [];
  const take = (sample: Sample) => {
    if (samples.length >= most) throw enough;
    samples.push(sample);
  };
  await forEachSample(path, imageFolder, take, () => {}).catch((error: unknown) => {
    if (error !== enough) throw error;
  });
  return samples;
}

/** What the folder of a run shows without a model. */
export function runFindings(folder: RunFolder): Finding[] {
  const recipe = recipeOf(folder);
  const events = readMetrics(folder.metrics);
  const stages = recipe.stages.map(({ name }) => name);
  const overfitting = {
    sign: 'overfitting',
    healthy: `a held-out loss at most ${OVERFIT_FACTOR} times its best; up to ${EPOCHS.fresh} passes over the data`,
    source: 'ours; epochs: Muennighoff et al. 2023 (arXiv 2305.16264)',
    advice: 'stop earlier (keep_best), take more data or fewer epochs',
  };
  const common = [...toldFindings(events), findingOf(overfitting, overfitVerdict(events, stages))];
  if (recipe.task !== 'llava') return common;
  const skipped = {
    sign: 'stage-1-skipped',
    healthy: 'a stage that trains the connector alone comes first',
    source: 'LLaVA-Gemma (arXiv 2404.01331): 7 points of POPE, 5 of GQA; Cambrian-1',
    advice: 'put a stage with train: [multi_modal_projector] on captions before it',
  };
  const ignored = {
    sign: 'image-ignored',
    healthy: `${LEAST_IMAGE_GAIN} nats a token or more`,
    source: 'ours',
    advice:
      'the text alone explains the answers: look whether pictures and texts belong together, train stage 1 longer, raise the rate of the connector',
  };
  return [...common, findingOf(skipped, stageOneVerdict(recipe)), findingOf(ignored, imageVerdict(events, stages))];
}
