// llava-gemma convert: a checkpoint as a folder to keep or to share - another float type, in shards, under Hugging Face names whatever
// software wrote it, and no optimiser state.
import type { Command } from 'commander';
import { UserError } from '../errors.ts';
import { maxShardSizeOption, storedDtypeOf } from './options.ts';

/** Files that only the trainer needs, and the one in which `pull` keeps where a folder came from. */
const LEFT_ASIDE = ['trainer_state.json', 'optimizer.safetensors', 'hub.json'];

interface ConvertFlags {
  dtype: string;
  maxShardSize: number;
  visionTower?: string;
}

async function convert(from: string, to: string, { dtype, maxShardSize, visionTower }: ConvertFlags): Promise<void> {
  const storedDtype = storedDtypeOf(dtype);
  const [{ llavaConfigSchema }, { saveCheckpoint }, { checkConfig, openModel, processorFilesOf }, fs, { readdir, readFile }, { join }] =
    await Promise.all([
      import('../models/llava.ts'),
      import('../weights/checkpoint.ts'),
      import('../train/pretrained.ts'),
      import('node:fs'),
      import('node:fs/promises'),
      import('node:path'),
    ]);
  if (fs.existsSync(to) && !fs.statSync(to).isDirectory()) throw new UserError(`${to} is a file; give a folder`);
  const inTheWay = fs.existsSync(to) ? await readdir(to) : [];
  if (inTheWay.length > 0 && !inTheWay.includes('config.json'))
    throw new UserError(`${to} holds ${inTheWay[0]} and is no checkpoint; give another folder`);
  const model = await openModel(from, { visionTower });
  try {
    await model.checkHead();
    const { torch_dtype: _, ...config } = model.config as Record<string, unknown>;
    const kept = (await readdir(from)).filter(
      (name) =>
        name !== 'config.json' && /\.(json|jinja)$/.test(name) && !name.startsWith('model.safetensors') && !LEFT_ASIDE.includes(name),
    );
    const files = Object.fromEntries(await Promise.all(kept.map(async (name) => [name, await readFile(join(from, name))] as const)));
    // original LLaVA folders have none
    const processorFiles =
      model.layout === 'native'
        ? processorFilesOf(checkConfig(llavaConfigSchema, config, join(from, 'config.json')), await model.imageProcessor())
        : {};
    await saveCheckpoint(to, {
      config: { ...config, dtype },
      tensors: new Map(model.names.map((name) => [name, { shape: model.shape(name), data: () => model.float32Pieces(name) }])),
      dtype: storedDtype,
      maxShardSize,
      files: { ...processorFiles, ...files },
    });
  } finally {
    await model.close();
  }
  console.log(`wrote ${to}`);
}

export function register(program: Command): void {
  program
    .command('convert')
    .summary('write a checkpoint in another float type, without optimiser state')
    .description(
      `Write a checkpoint in another float type, without optimiser state. Checkpoints of original LLaVA and of other versions of
transformers get the names of Hugging Face hub files.`,
    )
    .argument('<from>', 'Hugging Face folder, such as the checkpoint of a stage, or an original LLaVA folder')
    .argument('<to>', 'folder to write; a checkpoint that is there is replaced')
    .option('--dtype <type>', 'float32, float16 or bfloat16', 'float16')
    .addOption(maxShardSizeOption())
    .option('--vision-tower <folder>', 'the vision tower, for an original LLaVA folder that only names it')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma convert runs/mine/checkpoints/finetune my-model --dtype bfloat16
  $ llava-gemma convert llava-gemma-7b my-model --dtype bfloat16 --vision-tower clip-vit-large-patch14-336`,
    )
    .action(convert);
}
