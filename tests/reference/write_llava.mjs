// Writes a tiny LLaVA with `llava-gemma init` and `convert` in every float type, whole and in shards, from
// weights with and without scaled image rows, with the logits that this project computes for it; check_written.py reads the folders with transformers and
// compares. Run by hand after `npm run build` (README.md).
import { join } from 'node:path';

const out = process.argv[2];
if (out === undefined) throw new Error('give the folder to write to');
const load = (file) => import(new URL(`../../dist/${file}`, import.meta.url).href);

const { run } = await load('cli/main.js');
const { createOrtEngine, float32, input, int32, llavaConfigSchema, llavaParameters, Parameters, writeSafetensors } = await load('index.js');
const { logits } = await load('models/language.js');
const { llava } = await load('models/llava.js');
const { causalBias } = await load('models/masks.js');
const { withCheckpoint } = await load('pretrained/folder.js');
const { readParameters } = await load('pretrained/values.js');
const { createRandom } = await load('random.js');
const { saveCheckpoint } = await load('checkpoint/checkpoint.js');

async function llavaGemma(...words) {
  if ((await run(['node', 'llava-gemma', ...words])) !== 0) throw new Error(`llava-gemma ${words.join(' ')} failed`);
}

/**
 * Every value is drawn again from a wide distribution, so that a tensor in another one's place shows in the
 * logits.
 */
async function redraw(dir, scaled) {
  await withCheckpoint(dir, llavaConfigSchema, async (config, checkpoint) => {
    const tensors = new Map();
    for (const name of checkpoint.names) {
      const random = createRandom(1, name);
      const values = await checkpoint.float32(name);
      tensors.set(name, { shape: checkpoint.shape(name), data: values.map((value) => value + 0.2 * random.normal()) });
    }
    await saveCheckpoint(`${dir}-wide-${scaled}`, { config: { ...config, scale_image_features: scaled }, tensors, dtype: 'F32' });
  });
  return `${dir}-wide-${scaled}`;
}

/** Logits [2, tokens, vocabulary] of two prompts with one image each. */
async function writeLogits(dir) {
  await withCheckpoint(dir, llavaConfigSchema, async (config, checkpoint) => {
    const { vision_config: vision, text_config: text, image_token_index: imageToken } = config;
    const imageTokens = (vision.image_size / vision.patch_size) ** 2;
    const random = createRandom(2, 'inputs');
    const words = (count) => Array.from({ length: count }, () => 5 + random.integer(imageToken - 5));
    const prompts = [0, 1].map(() => [2, ...words(3), ...Array(imageTokens).fill(imageToken), ...words(8)]);
    const shape = [2, prompts[0].length];
    const pixelShape = [2, 3, vision.image_size, vision.image_size];
    const pixels = Float32Array.from({ length: 2 * 3 * vision.image_size ** 2 }, () => random.normal());

    const p = new Parameters();
    const positionIds = input('position_ids', 'int32', ['batch', 'tokens']);
    const { lastHidden } = llava(p, config, {
      inputIds: input('input_ids', 'int32', ['batch', 'tokens']),
      positionIds,
      attentionBias: causalBias(positionIds, positionIds),
      images: { pixelValues: input('pixel_values', 'float32', pixelShape) },
    });
    const output = p.module('language_model', (language) => logits(language, text, lastHidden));
    const values = await readParameters(checkpoint, llavaParameters(config));
    const constants = new Map(p.list().map(({ name, dims }) => [name, float32(values.get(name), dims)]));
    const program = await createOrtEngine({ threads: 1 }).compile({ logits: output }, { constants });
    const ids = Int32Array.from(prompts.flat());
    const results = await program.run({
      input_ids: int32(ids, shape),
      position_ids: int32(
        ids.map((_, i) => i % shape[1]),
        shape,
      ),
      pixel_values: float32(pixels, pixelShape),
    });
    await program.dispose();
    const bytes = ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength);
    await writeSafetensors(
      join(dir, 'expected.safetensors'),
      new Map([
        ['input_ids', { dtype: 'I32', shape, data: bytes(ids) }],
        ['pixel_values', { dtype: 'F32', shape: pixelShape, data: bytes(pixels) }],
        ['logits', { dtype: 'F32', shape: [...shape, text.vocab_size], data: bytes(results.logits.data) }],
      ]),
    );
  });
}

const fresh = join(out, 'fresh');
await llavaGemma('init', 'llava-gemma-tiny', '--out', fresh, '--dtype', 'float32');
const wide = { false: await redraw(fresh, false), true: await redraw(fresh, true) };
for (const dtype of ['float32', 'float16', 'bfloat16']) {
  for (const [form, size] of [
    ['whole', '5GB'],
    ['shards', '100kB'],
  ]) {
    for (const scaled of [false, true]) {
      const dir = join(out, `${dtype}-${form}${scaled ? '-scaled' : ''}`);
      await llavaGemma('convert', wide[scaled], dir, '--dtype', dtype, '--max-shard-size', size);
      await writeLogits(dir);
    }
  }
}
