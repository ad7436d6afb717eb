// llava-gemma init: a checkpoint of a named shape with fresh weights, to try sizes and formats before there is anything trained. Weights are
// drawn and written piece by piece, so that memory does not grow with the model.
import type { Command } from 'commander';
import { UserError } from '../errors.ts';
import { type ModelConfig, shapeNamed, shapes } from '../models/shapes.ts';
import type { Parameter } from '../nn/parameters.ts';
import { checkRoom } from './disk.ts';
import { formatBytes, formatCount } from './format.ts';
import { withInterrupt } from './interrupt.ts';
import { maxShardSizeOption, parseSeed, storedDtypeOf } from './options.ts';

interface InitFlags {
  out: string;
  dtype: string;
  seed: number;
  maxShardSize: number;
}

/** Values drawn at a time. */
const PIECE = 2 ** 20;

/** The folder must be new, and the disk large enough: a model of full size takes minutes to draw. */
async function checkPlace(out: string, bytes: number): Promise<void> {
  const { existsSync, readdirSync, statSync } = await import('node:fs');
  if (existsSync(out) && !statSync(out).isDirectory()) throw new UserError(`${out} is a file; give another --out`);
  if (existsSync(out) && readdirSync(out).length > 0) throw new UserError(`${out} is not empty; give another --out`);
  await checkRoom(out, bytes, 'the weights take');
}

/** The folder's files beside config.json and the weights. */
async function furtherFiles(config: ModelConfig, tokenizer: string | undefined): Promise<Record<string, string>> {
  const [{ llavaConfigSchema }, { imageProcessorFor, processorFilesOf }, { resolvePath }, { readTokenizerFiles, tokenizerFilesOf }] =
    await Promise.all([
      import('../models/llava.ts'),
      import('../pretrained/processor.ts'),
      import('../paths.ts'),
      import('../checkpoint/tokenizer-files.ts'),
    ]);
  const files: Record<string, string> = {};
  const parsed = llavaConfigSchema.safeParse(config);
  if (config.model_type === 'llava' && parsed.success)
    Object.assign(files, processorFilesOf(parsed.data, imageProcessorFor(parsed.data.vision_config.image_size)));
  if (config.model_type === 'clip_vision_model')
    files['preprocessor_config.json'] = `${JSON.stringify(imageProcessorFor(config.image_size as number), null, 2)}\n`;
  if (tokenizer !== undefined) Object.assign(files, tokenizerFilesOf(await readTokenizerFiles(resolvePath(tokenizer, 'the tokenizer'))));
  return files;
}

async function init(name: string, { out, dtype, seed, maxShardSize }: InitFlags): Promise<void> {
  const { config, tokenizer } = shapeNamed(name);
  const stored = storedDtypeOf(dtype);
  const [{ modelParameters }, { initialise }, { createRandom }, { saveCheckpoint }, { elementCount }, { bytesPerElement }] =
    await Promise.all([
      import('../models/model-parameters.ts'),
      import('../nn/parameters.ts'),
      import('../random.ts'),
      import('../checkpoint/checkpoint.ts'),
      import('../weights/safetensors.ts'),
      import('../weights/dtype.ts'),
    ]);
  const parameters = modelParameters(config);
  const count = parameters.reduce((sum, { dims }) => sum + elementCount(dims), 0);
  await checkPlace(out, count * bytesPerElement[stored]);
  const files = await furtherFiles(config, tokenizer);
  console.error(`drawing ${formatCount(count)} parameters (${formatBytes(count * bytesPerElement[stored])})`);
  let drawn = 0;
  const progress = (values: number) => {
    const before = Math.floor((100 * drawn) / count);
    drawn += values;
    const now = Math.floor((100 * drawn) / count);
    if (process.stderr.isTTY && now > before) process.stderr.write(`\r${now} %${now === 100 ? '\n' : ''}`);
  };
  await withInterrupt(async (signal) => {
    function* pieces({ name, dims, initialiser }: Omit<Parameter, 'tensor'>) {
      // one stream of numbers a tensor, so that its values do not depend on the others
      const random = createRandom(seed, name);
      for (let left = elementCount(dims); left > 0; left -= PIECE) {
        signal.throwIfAborted();
        const values = Math.min(left, PIECE);
        yield initialise({ dims: [values], initialiser }, random);
        progress(values);
      }
    }
    await saveCheckpoint(out, {
      config: { ...config, dtype },
      tensors: new Map(parameters.map((parameter) => [parameter.name, { shape: [...parameter.dims], data: () => pieces(parameter) }])),
      dtype: stored,
      maxShardSize,
      files,
    });
  }, 'nothing was written');
  console.log(`wrote ${out}`);
}

export function register(program: Command): void {
  const names = Object.entries(shapes).map(([name, { summary }]) => `  ${name.padEnd(28)}${summary}`);
  program
    .command('init')
    .summary('write a checkpoint of a named shape with fresh weights')
    .description('Write a checkpoint of a named shape with fresh, untrained weights.')
    .argument('<shape>', 'one of the shapes below')
    .requiredOption('-o, --out <folder>', 'folder to write; it must not hold anything yet')
    .option('--dtype <type>', 'float32, float16 or bfloat16', 'bfloat16')
    .option('--seed <n>', 'the same seed writes the same bytes', parseSeed, 42)
    .addOption(maxShardSizeOption())
    .addHelpText('after', `\nShapes:\n${names.join('\n')}\n\nExample:\n  $ llava-gemma init llava-gemma-tiny --out toy --dtype float32`)
    .action(init);
}
