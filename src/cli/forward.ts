// llava-gemma forward: one pass over tensors of a file, its outputs as another. What any other implementation computes from the same file
// can be compared with it; neither tokenizer nor image processor comes in between.
import { type Command, Option } from 'commander';
import type { Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { ForwardInput, ForwardInputs, ForwardOutput, ParameterSource } from '../generate/forward.ts';
import type { RunWeights } from '../pretrained/run-weights.ts';
import type { Quantization } from '../weights/quantize.ts';
import type { SafetensorsFile, StoredTensor, TensorSource } from '../weights/safetensors.ts';
import { withInterrupt } from './interrupt.ts';
import { quantizeOption } from './options.ts';

interface ForwardFlags {
  model: string;
  inputs: string;
  output: string;
  hiddenStates?: boolean;
  imageFeatures?: boolean;
  scaleImageFeatures?: 'true' | 'false';
  visionTower?: string;
  quantize?: Quantization;
}

/** int32 values of stored ids or of a mask. */
async function integers(path: string, name: string, { dtype, shape, data }: StoredTensor): Promise<Value> {
  const { int32 } = await import('../engine/engine.ts');
  const { placeOf } = await import('../generate/forward.ts');
  const where = `${path}: tensor ${JSON.stringify(name)}`;
  const { buffer, byteOffset, byteLength } = data;
  if (dtype === 'I32') return int32(new Int32Array(buffer, byteOffset, byteLength / 4), shape);
  if (dtype !== 'I64') throw new UserError(`${where}: expected int64 or int32, found ${dtype}`);
  const wide = new BigInt64Array(buffer, byteOffset, byteLength / 8);
  const tooLarge = wide.findIndex((value) => BigInt.asIntN(32, value) !== value);
  if (tooLarge >= 0) throw new UserError(`${where}: ${wide[tooLarge]} at ${placeOf(tooLarge, shape)} is beyond the range of int32`);
  return int32(Int32Array.from(wide, Number), shape);
}

/** The tensors of the inputs file. */
async function readInputs(path: string): Promise<ForwardInputs> {
  const [{ openSafetensors }, { storedToFloat32 }, { float32 }, { FORWARD_INPUTS }] = await Promise.all([
    import('../weights/safetensors.ts'),
    import('../checkpoint/checkpoint.ts'),
    import('../engine/engine.ts'),
    import('../generate/forward.ts'),
  ]);
  const file: SafetensorsFile = await openSafetensors(path);
  try {
    const unknown = file.names.find((name) => !(FORWARD_INPUTS as readonly string[]).includes(name));
    if (unknown !== undefined)
      throw new UserError(`${path}: tensor ${JSON.stringify(unknown)} is not known here; the file may hold ${FORWARD_INPUTS.join(', ')}`);
    const inputs: ForwardInputs = {};
    for (const name of file.names as ForwardInput[]) {
      const stored = await file.read(name);
      inputs[name] =
        name === 'pixel_values'
          ? float32(storedToFloat32(stored, `${path}: tensor "${name}"`), stored.shape)
          : await integers(path, name, stored);
    }
    return inputs;
  } finally {
    await file.close();
  }
}

/** Fails before anything is computed where the output cannot be written, or where it would replace what it is made from. */
async function checkOutput(output: string, sources: readonly string[]): Promise<void> {
  const [{ existsSync, statSync }, { dirname }] = await Promise.all([import('node:fs'), import('node:path')]);
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

/** A tensor as it is written: computed when its turn comes, until `signal` says stop. */
const sourceOf = ({ dims, pieces }: ForwardOutput, signal: AbortSignal): TensorSource => ({
  dtype: 'F32',
  shape: [...dims],
  async *data() {
    for await (const { buffer, byteOffset, byteLength } of pieces()) {
      signal.throwIfAborted();
      yield new Uint8Array(buffer, byteOffset, byteLength);
    }
  },
});

async function runForward(flags: ForwardFlags): Promise<void> {
  const [
    { forwardModelOf, openModel },
    { packedFormatsOf, readRunWeights },
    { resolvePath },
    { forward },
    { createOrtEngine },
    { writeSafetensors },
    fs,
    { join },
  ] = await Promise.all([
    import('../pretrained/folder.ts'),
    import('../pretrained/run-weights.ts'),
    import('../paths.ts'),
    import('../generate/forward.ts'),
    import('../engine/ort.ts'),
    import('../weights/safetensors.ts'),
    import('node:fs'),
    import('node:path'),
  ]);
  const { inputs: from, output, hiddenStates, imageFeatures, scaleImageFeatures, quantize } = flags;
  const dir = resolvePath(flags.model, '--model');
  if (!fs.existsSync(from)) throw new UserError(`--inputs: there is nothing at ${from}`);
  await checkOutput(output, [from]);
  const inputs = await readInputs(from);
  const checkpoint = await openModel(dir, { visionTower: flags.visionTower });
  try {
    await checkOutput(
      output,
      checkpoint.files.map(({ path }) => path),
    );
    const model = forwardModelOf(checkpoint.config, join(dir, 'config.json'));
    if (model.kind !== 'llava' && scaleImageFeatures !== undefined)
      throw new UserError(`--scale-image-features: ${dir} is no LLaVA and makes no image rows`);
    if (model.kind !== 'llava' && imageFeatures) throw new UserError(`--image-features: ${dir} is no LLaVA and makes none`);
    if (imageFeatures && !inputs.pixel_values) throw new UserError(`--image-features: ${from} has no pixel_values`);
    if (model.kind === 'llava' && scaleImageFeatures !== undefined)
      model.config = { ...model.config, scale_image_features: scaleImageFeatures === 'true' };
    const opened: RunWeights[] = [];
    const source: ParameterSource = {
      packed: packedFormatsOf(checkpoint, quantize),
      read: async (parameters) => {
        opened.push(await readRunWeights(checkpoint, parameters, { quantize }));
        return opened.at(-1)!.values;
      },
    };
    // half a file of gigabytes is not left behind at Ctrl-C
    await withInterrupt(async (signal) => {
      try {
        const outputs = await forward(createOrtEngine(), model, source, inputs, { hiddenStates, imageFeatures, source: from });
        await writeSafetensors(output, new Map([...outputs].map(([name, tensor]) => [name, sourceOf(tensor, signal)])));
      } finally {
        for (const weights of opened) await weights.release();
      }
    }, 'nothing was written');
  } finally {
    await checkpoint.close();
  }
  console.log(`wrote ${output}`);
}

export function register(program: Command): void {
  program
    .command('forward')
    .summary('run a model once over stored tensors, to compare it with another implementation')
    .description(
      `Run a model once over the tensors of a safetensors file: input_ids, attention_mask, pixel_values. The logits are written to another
one, so that they can be compared with what other software computes from the same file. No tokenizer is needed.`,
    )
    .requiredOption('-m, --model <folder>', 'Hugging Face or original LLaVA folder; a language model or an encoder alone will do')
    .requiredOption('--inputs <file>', 'safetensors file with the inputs')
    .requiredOption('-o, --output <file>', 'safetensors file to write')
    .option('--hidden-states', 'also write hidden_states.0, .1, ... (an encoder alone always gives them)')
    .option('--image-features', 'also write image_features, what the connector gives')
    .addOption(new Option('--scale-image-features <bool>', 'in place of scale_image_features of config.json').choices(['true', 'false']))
    .addOption(quantizeOption())
    .option('--vision-tower <folder>', 'the vision tower, for an original LLaVA folder that only names it')
    .addHelpText(
      'after',
      `
Example:
  $ llava-gemma forward --model my-model --inputs in.safetensors --output out.safetensors --hidden-states`,
    )
    .action(runForward);
}
