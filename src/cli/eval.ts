// llava-gemma eval: scores of a model on the held-out scenes, or on questions of one's own in LLaVA JSON, beside its baselines.
import type { Command } from 'commander';
import type { EvaluationSplit } from '../data/emoji/build.ts';
import { UserError } from '../errors.ts';
import type { Question } from '../evaluate/evaluate.ts';
import type { Sample } from '../evaluate/samples.ts';
import type { Quantization } from '../weights/quantize.ts';
import { withInterrupt } from './interrupt.ts';
import { collect, parseCount, parseSeed, quantizeOption } from './options.ts';
import { shippedModel } from './shipped.ts';
import { formatScores } from './table.ts';

export interface EvaluateOptions {
  /** Hugging Face folder of a LLaVA model. */
  model: string;
  /** Held-out splits of the emoji scenes, or a LLaVA JSON file whose entries carry a `task`. */
  data:
    | { generate: 'emoji'; splits: string[]; scenes: number; seed: number; heldOutArtist?: string }
    | { dataPath: string; imageFolder: string };
  /** At most so many questions of each task in each split. */
  limit?: number;
  batchSize: number;
  maxNewTokens: number;
  /** Also answer each question before a blank picture. */
  blind: boolean;
  /** Packs the matrices while loading. */
  quantize?: Quantization;
  signal: AbortSignal;
}

interface EvaluateFlags {
  model: string;
  data?: string;
  imageFolder?: string;
  split: string[];
  scenes: number;
  seed: number;
  heldOutArtist?: string;
  limit?: number;
  batchSize: number;
  maxNewTokens: number;
  blind: boolean;
  quantize?: Quantization;
  out?: string;
  json?: boolean;
}

/** The options that a command line asks for. */
export async function evaluateOptionsOf(flags: EvaluateFlags): Promise<Omit<EvaluateOptions, 'signal'>> {
  const { evaluationSplits } = await import('../data/emoji/build.ts');
  const { resolvePath } = await import('../paths.ts');
  const { limit, batchSize, maxNewTokens, blind, quantize } = flags;
  const model = resolvePath(flags.model, '--model');
  const common = { model, limit, batchSize, maxNewTokens, blind, quantize };
  if (flags.data !== undefined) {
    if (flags.imageFolder === undefined) throw new UserError('--data needs --image-folder, which its image paths are relative to');
    if (flags.split.length > 0)
      throw new UserError('--split names splits of the emoji scenes; with --data all questions of the file are asked');
    return { ...common, data: { dataPath: flags.data, imageFolder: flags.imageFolder } };
  }
  const unknown = flags.split.find((split) => !(evaluationSplits as readonly string[]).includes(split));
  if (unknown !== undefined) throw new UserError(`--split ${unknown}: the splits are ${evaluationSplits.join(', ')}`);
  const splits = flags.split.length > 0 ? flags.split : [...evaluationSplits];
  const { scenes, seed, heldOutArtist } = flags;
  return { ...common, data: { generate: 'emoji', splits, scenes, seed, heldOutArtist } };
}

/** Answers the questions that the options name; samples in order. */
export async function evaluateModel(options: EvaluateOptions): Promise<Sample[]> {
  const [{ loadModel }, { answerQuestions, readQuestions }, { buildEmojiDataset }] = await Promise.all([
    import('../pretrained/load.ts'),
    import('../evaluate/evaluate.ts'),
    import('../data/emoji/build.ts'),
  ]);
  const { data, limit, batchSize, maxNewTokens, blind, quantize, signal } = options;
  const model = await loadModel(options.model, { quantize });
  let questions: Question[];
  if ('generate' in data) {
    const { scenes, seed, heldOutArtist } = data;
    const splits = data.splits as EvaluationSplit[];
    const out = '.cache/emoji-eval';
    const dataset = await buildEmojiDataset({ seed, out, trainScenes: 0, splits, evaluationScenes: scenes, heldOutArtist });
    questions = (await Promise.all(splits.map((split) => readQuestions(dataset.evaluation[split], dataset.imageFolder, split)))).flat();
  } else {
    questions = await readQuestions(data.dataPath, data.imageFolder);
  }
  const asked = new Map<string, number>();
  const chosen = questions.filter(({ split, task }) => {
    const key = `${split} ${task}`;
    asked.set(key, (asked.get(key) ?? 0) + 1);
    return limit === undefined || asked.get(key)! <= limit;
  });
  return answerQuestions(model, chosen, { batchSize, maxNewTokens, blind, signal });
}

export function register(program: Command): void {
  program
    .command('eval')
    .summary('score a model beside its baselines')
    .description(
      'Score a model on held-out scenes, or on questions in LLaVA JSON: accuracy with its 95 % interval, beside blind, majority and random.',
    )
    .option('-m, --model <folder>', 'Hugging Face folder of the model', shippedModel)
    .option('--split <name>', 'a held-out split of the emoji scenes; may be given several times (default: all)', collect, [])
    .option('--scenes <n>', 'scenes in each split', parseCount, 1000)
    .option('--seed <n>', 'seed of the scenes', parseSeed, 42)
    .option('--held-out-artist <name>', 'the artist of the unseen-artist split')
    .option('-d, --data <file>', 'questions in LLaVA JSON, each with a task, instead of emoji scenes')
    .option('--image-folder <folder>', 'what the image paths of --data are relative to')
    .option('-n, --limit <n>', 'at most so many questions of each task', parseCount)
    .option('-b, --batch-size <n>', 'questions answered at a time', parseCount, 64)
    .option('--max-new-tokens <n>', 'longest answer', parseCount, 24)
    .option('--no-blind', 'do not ask again before a blank picture (halves the time)')
    .addOption(quantizeOption())
    .option('-o, --out <file>', 'keep the samples as JSON Lines')
    .option('--json', 'print the scores as JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma eval --split unseen-artist --limit 100
  $ llava-gemma eval --model runs/demo/checkpoints/finetune --out samples.jsonl
  $ llava-gemma eval --data mine.json --image-folder pictures`,
    )
    .action(async (flags: EvaluateFlags) => {
      const options = await evaluateOptionsOf(flags);
      await withInterrupt(async (signal) => {
        const [samples, { scoreSamples, writeSamples }] = await Promise.all([
          evaluateModel({ ...options, signal }),
          import('../evaluate/samples.ts'),
        ]);
        if (flags.out !== undefined) writeSamples(flags.out, samples);
        const scores = scoreSamples(samples);
        console.log(flags.json ? JSON.stringify(scores, null, 2) : formatScores(scores, process.stdout.isTTY === true));
      }, 'nothing was written');
    });
}
