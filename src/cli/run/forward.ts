// What `llava-gemma forward` does.
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createOrtEngine } from '../../engine/ort.ts';
import { UserError } from '../../errors.ts';
import { type ForwardInputs, type ForwardModel, forward } from '../../generate/forward.ts';
import { resolvePath } from '../../paths.ts';
import { forwardModelOf, openModel } from '../../pretrained/folder.ts';
import { readForwardInputs, writeForwardOutputs } from '../../pretrained/forward-files.ts';
import { type RunWeights, readRunWeights, runStorageOf } from '../../pretrained/run-weights.ts';
import type { Quantization } from '../../weights/quantize.ts';
import { withInterrupt } from '../interrupt.ts';

export interface ForwardFlags {
  model: string;
  inputs: string;
  output: string;
  hiddenStates?: boolean;
  imageFeatures?: boolean;
  scaleImageFeatures?: 'true' | 'false';
  visionTower?: string;
  quantize?: Quantization;
}

/**
 * Fails before anything is computed where the output cannot be written, or where it would replace what it is
 * made from.
 */
function checkOutput(output: string, sources: readonly string[]): void {
  const folder = dirname(output);
  if (!existsSync(folder)) throw new UserError(`${output}: cannot write it: no folder ${folder}`);
  if (!statSync(folder).isDirectory()) throw new UserError(`${output}: cannot write it: ${folder} is no folder`);
  if (!existsSync(output)) return;
  const there = statSync(output, { bigint: true });
  if (there.isDirectory()) throw new UserError(`${output} is a folder; give a file`);
  for (const source of sources) {
    const { dev, ino } = statSync(source, { bigint: true });
    if (dev === there.dev && ino === there.ino)
      throw new UserError(`${output}: it would replace ${source}, from which it is made; give another --output`);
  }
}

/**
 * The model with what the flags change of it. UserError for flags that it, or the inputs, have no use for.
 */
function withFlags(model: ForwardModel, dir: string, inputs: ForwardInputs, flags: ForwardFlags): ForwardModel {
  const { scaleImageFeatures, imageFeatures } = flags;
  if (model.kind !== 'llava' && scaleImageFeatures !== undefined)
    throw new UserError(`--scale-image-features: ${dir} is no LLaVA and makes no image rows`);
  if (model.kind !== 'llava' && imageFeatures) throw new UserError(`--image-features: ${dir} is no LLaVA and makes none`);
  if (imageFeatures && !inputs.pixel_values) throw new UserError(`--image-features: ${flags.inputs} has no pixel_values`);
  if (model.kind !== 'llava' || scaleImageFeatures === undefined) return model;
  return { ...model, config: { ...model.config, scale_image_features: scaleImageFeatures === 'true' } };
}

/** Runs the command. */
export async function runForward(flags: ForwardFlags): Promise<void> {
  const { inputs: from, output, hiddenStates, imageFeatures, quantize } = flags;
  const dir = resolvePath(flags.model, '--model');
  if (!existsSync(from)) throw new UserError(`--inputs: there is nothing at ${from}`);
  checkOutput(output, [from]);
  const inputs = await readForwardInputs(from);
  const checkpoint = await openModel(dir, { visionTower: flags.visionTower });
  try {
    checkOutput(
      output,
      checkpoint.files.map(({ path }) => path),
    );
    const model = withFlags(forwardModelOf(checkpoint.config, join(dir, 'config.json')), dir, inputs, flags);
    const opened: RunWeights[] = [];
    const source = {
      storage: runStorageOf(checkpoint, quantize),
      read: async (parameters: Parameters<typeof readRunWeights>[1]) => {
        opened.push(await readRunWeights(checkpoint, parameters, { quantize }));
        return opened.at(-1)!.values;
      },
    };
    // half a file of gigabytes is not left behind at Ctrl-C
    await withInterrupt(async (signal) => {
      try {
        const outputs = await forward(createOrtEngine(), model, source, inputs, { hiddenStates, imageFeatures, source: from });
        await writeForwardOutputs(output, outputs, signal);
      } finally {
        for (const weights of opened) await weights.release();
      }
    }, 'nothing was written');
  } finally {
    await checkpoint.close();
  }
  console.log(`wrote ${output}`);
}
