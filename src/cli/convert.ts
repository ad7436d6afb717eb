// llava-gemma convert: a checkpoint as a folder to keep or to share - another float type, in shards, under Hugging Face names whatever
// software wrote it, and no optimiser state.
import type { Command } from 'commander';
import { UserError } from '../errors.ts';
import type { Quantization } from '../weights/quantize.ts';
import type { TensorSource } from '../weights/safetensors.ts';
import { maxShardSizeOption, quantizeOption, storedDtypeOf } from './options.ts';

/** Files that only the trainer needs, and the one in which `pull` keeps where a folder came from. */
const LEFT_ASIDE = ['trainer_state.json', 'optimizer.safetensors', 'hub.json'];

interface ConvertFlags {
  dtype: string;
  maxShardSize: number;
  visionTower?: string;
  quantize?: Quantization;
}

type Opened = Awaited<ReturnType<typeof import('../pretrained/folder.ts').openModel>>;

/** What becomes of packed weights: those of the folder as they are, and those that are packed now, read once for each of their tensors. */
async function packedTensors(
  model: Opened,
  quantize: Quantization | undefined,
): Promise<{ packed: Map<string, TensorSource>; replaced: Set<string> }> {
  const [{ packedName, scaleName }, { plannedFormat, quantizeRows }] = await Promise.all([
    import('../nn/parameters.ts'),
    import('../weights/quantize.ts'),
  ]);
  const packed = new Map<string, TensorSource>();
  const replaced = new Set<string>();
  for (const name of model.names.filter((name) => name.endsWith(packedName('')))) {
    if (quantize) throw new UserError(`${model.dir}: its weights are quantized already: --quantize needs those that they were made from`);
    const weight = name.slice(0, -packedName('').length);
    for (const part of [packedName(weight), scaleName(weight)]) {
      replaced.add(part);
      packed.set(part, {
        ...model.info(part),
        async *data() {
          yield await model.bytes(part);
        },
      });
    }
  }
  if (!quantize) return { packed, replaced };
  for (const name of model.names) {
    const format = plannedFormat(name, model.shape(name), quantize);
    if (!format) continue;
    const [rows, columns] = model.shape(name);
    const pieces = async function* (part: 'packed' | 'scale') {
      for await (const values of model.float32Pieces(name)) {
        const { buffer, byteOffset, byteLength } = quantizeRows(values, format)[part];
        yield new Uint8Array(buffer, byteOffset, byteLength);
      }
    };
    replaced.add(name);
    packed.set(packedName(name), { dtype: 'U8', shape: [rows, (columns * format.bits) / 8], data: () => pieces('packed') });
    packed.set(scaleName(name), { dtype: 'F32', shape: [rows, columns / format.blockSize], data: () => pieces('scale') });
  }
  return { packed, replaced };
}

async function convert(from: string, to: string, { dtype, maxShardSize, visionTower, quantize }: ConvertFlags): Promise<void> {
  const storedDtype = storedDtypeOf(dtype);
  const [{ llavaConfigSchema }, { saveCheckpoint }, { checkConfig, openModel }, { processorFilesOf }, fs, { readdir, readFile }, { join }] =
    await Promise.all([
      import('../models/llava.ts'),
      import('../checkpoint/checkpoint.ts'),
      import('../pretrained/folder.ts'),
      import('../pretrained/processor.ts'),
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
    const { packed, replaced } = await packedTensors(model, quantize);
    const floats = model.names.filter((name) => !replaced.has(name));
    await saveCheckpoint(to, {
      config: { ...config, dtype, ...(quantize ? { quantization_config: { quant_method: 'llava-gemma', weights: quantize } } : {}) },
      tensors: new Map(floats.map((name) => [name, { shape: model.shape(name), data: () => model.float32Pieces(name) }])),
      dtype: storedDtype,
      packed,
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
    .addOption(quantizeOption('pack the matrices to 4 or 8 bits, to be run and not trained'))
    .option('--vision-tower <folder>', 'the vision tower, for an original LLaVA folder that only names it')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma convert runs/mine/checkpoints/finetune my-model --dtype bfloat16
  $ llava-gemma convert my-model my-model-int4 --quantize int4
  $ llava-gemma convert llava-gemma-7b my-model --dtype bfloat16 --vision-tower clip-vit-large-patch14-336`,
    )
    .action(convert);
}
