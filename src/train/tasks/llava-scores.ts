// Scores of a LLaVA on the held-out splits of the generated data: of the finished model, or while a stage is
// trained.

import type { EmojiDataset } from '../../data/emoji/build.ts';
import { answerQuestions } from '../../evaluate/evaluate.ts';
import { readQuestions } from '../../evaluate/questions.ts';
import { type Sample, type Scores, scoreSamples, writeSamples } from '../../evaluate/samples.ts';
import { createGenerator } from '../../generate/generator.ts';
import type { ImageProcessorConfig } from '../../images/processor.ts';
import type { LlavaConfig } from '../../models/llava.ts';
import { findRunFolder } from '../../runs/folder.ts';
import type { Tokenizer } from '../../text/tokenizer.ts';
import { adapterGraph, type StageAdapters } from '../adapters.ts';
import type { LlavaRecipe } from '../recipe.ts';
import type { TaskContext } from '../task.ts';
import type { ModelWeights } from '../weights.ts';

export interface ScoredModel {
  config: LlavaConfig;
  tokenizer: Tokenizer;
  processor: ImageProcessorConfig;
  weights: ModelWeights;
}

/** So many of a list, spread evenly over it. */
const spread = <T>(list: readonly T[], count: number): T[] =>
  count >= list.length ? [...list] : Array.from({ length: count }, (_, i) => list[Math.floor((i * list.length) / count)]);

/**
 * Scores of the model on the held-out splits that the recipe names; the samples are written to the run
 * folder. While a stage is trained, it is with its adapters and on so many `questions` of each, of which
 * nothing is written, and without those before a blank picture.
 */
export async function scoreSplits(
  { splits, batch_size: batchSize, max_new_tokens: maxNewTokens }: NonNullable<LlavaRecipe['evaluate']>,
  dataset: EmojiDataset,
  { config, tokenizer, processor, weights }: ScoredModel,
  { engine, status, signal, out }: TaskContext,
  whileTraining?: { questions?: number; adapters?: StageAdapters },
): Promise<{ scores: Scores; samples: Sample[] }> {
  const trainingAnswers: Record<string, string[]> = {};
  for (const { task, expected } of await readQuestions(dataset.questions, dataset.imageFolder)) {
    trainingAnswers[task] ??= [];
    trainingAnswers[task].push(expected);
  }
  const adapters = whileTraining?.adapters && adapterGraph({ ...whileTraining.adapters, dropout: 0 });
  const generator = await createGenerator(engine, config, await weights.all(), adapters);
  const scores: Scores = {};
  const samples: Sample[] = [];
  try {
    for (const split of splits) {
      const all = await readQuestions(dataset.evaluation[split], dataset.imageFolder, split);
      const questions = spread(all, whileTraining?.questions ?? all.length);
      if (!whileTraining) status.note(`answering ${questions.length} questions of ${split}`);
      const options = { batchSize, maxNewTokens, blind: !whileTraining, signal };
      const answered = await answerQuestions({ generator, tokenizer, processor }, questions, options);
      if (!whileTraining) writeSamples(findRunFolder(out).samples(split), answered);
      const unasked = answered.filter(({ problem }) => problem !== undefined);
      if (unasked.length > 0)
        status.note(`${unasked.length} questions of ${split} could not be asked and count as wrong: ${unasked[0].problem}`);
      for (const sample of answered) samples.push(sample);
      Object.assign(scores, scoreSamples(answered, trainingAnswers));
    }
  } finally {
    await generator.dispose();
  }
  return { scores, samples };
}
