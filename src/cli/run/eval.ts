// What `llava-gemma eval` does.
import { type EvaluationSplit, evaluationSplits } from '../../data/emoji/build.ts';
import { UserError } from '../../errors.ts';
import { evaluateModel, type ModelEvaluation } from '../../evaluate/evaluate-model.ts';
import { scoreSamples, writeSamples } from '../../evaluate/samples.ts';
import { resolvePath } from '../../paths.ts';
import { createStatusLine } from '../../runs/status.ts';
import type { Quantization } from '../../weights/quantize.ts';
import { formatCount } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';
import { formatScores } from '../table.ts';

export interface EvaluateFlags {
  model: string;
  data?: string;
  imageFolder?: string;
  split: string[];
  scenes: number;
  seed: number;
  heldOutArtist?: string;
  limit?: number;
  batchSize: number;
  maxNewTokens?: number;
  blind: boolean;
  quantize?: Quantization;
  out?: string;
  json?: boolean;
}

/** The options that a command line asks for. */
export async function evaluateOptionsOf(flags: EvaluateFlags): Promise<Omit<ModelEvaluation, 'signal' | 'onProgress'>> {
  const { limit, batchSize, maxNewTokens, blind, quantize } = flags;
  const model = resolvePath(flags.model, '--model');
  const common = { model, limit, batchSize, maxNewTokens, blind, quantize };
  if (flags.data !== undefined) {
    if (flags.imageFolder === undefined) throw new UserError('--data needs --image-folder, which its image paths are relative to');
    if (flags.split.length > 0)
      throw new UserError('--split names splits of the emoji scenes; with --data all questions of the file are asked');
    return { ...common, data: { dataPath: flags.data, imageFolder: flags.imageFolder } };
  }
  const isSplit = (split: string): split is EvaluationSplit => (evaluationSplits as readonly string[]).includes(split);
  const unknown = flags.split.find((split) => !isSplit(split));
  if (unknown !== undefined) throw new UserError(`--split ${unknown}: the splits are ${evaluationSplits.join(', ')}`);
  const splits = flags.split.length > 0 ? flags.split.filter(isSplit) : evaluationSplits;
  const { scenes, seed, heldOutArtist } = flags;
  return { ...common, data: { generate: 'emoji', splits, scenes, seed, heldOutArtist } };
}

/** Runs the command. */
export async function evaluate(flags: EvaluateFlags): Promise<void> {
  const options = await evaluateOptionsOf(flags);
  const status = createStatusLine();
  const onProgress = (done: number, total: number) => status.draw(`answered ${formatCount(done)} of ${formatCount(total)} questions`);
  await withInterrupt(async (signal) => {
    const samples = await evaluateModel({ ...options, signal, onProgress }).finally(status.clear);
    if (flags.out !== undefined) writeSamples(flags.out, samples);
    const scores = scoreSamples(samples);
    console.log(flags.json ? JSON.stringify(scores, null, 2) : formatScores(scores, process.stdout.isTTY === true));
  }, 'nothing was written');
}
