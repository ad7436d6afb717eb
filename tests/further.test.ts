// What a run leaves is a folder for other software too, and a LLaVA can be trained further: by this run when
// it is resumed, and by another that names the folder.
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { readMetrics } from '../src/runs/metrics.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli, enterToyFolder, recipes, tensorsOf, train } from './toy.ts';

const first = join('first', 'checkpoints', 'finetune');
const json = (dir: string, name: string) => JSON.parse(readFileSync(join(dir, name), 'utf8'));

const connector = [1, 2].flatMap((layer) => ['weight', 'bias'].map((kind) => `multi_modal_projector.linear_${layer}.${kind}`));
const TABLE = 'language_model.model.embed_tokens.weight';

beforeAll(async () => {
  const leave = await enterToyFolder();
  const { evaluate: _, model: __, ...rest } = recipes.llava;
  const generation = join('gemma', 'checkpoints', 'gemma', 'generation_config.json');
  writeFileSync(generation, JSON.stringify({ eos_token_id: [1, 9], do_sample: true, top_k: 7 }));
  await train('llava.yaml', '--out', 'first');
  const stage = { ...rest.stages[1], name: 'more', train: ['language_model'], warmup_ratio: 0 };
  writeFileSync('further.yaml', stringify({ ...rest, model: { llava: first }, stages: [stage] }));
  return leave;
}, 180_000);

describe('a checkpoint of a run', () => {
  it('is a folder that transformers runs', () => {
    const config = json(first, 'config.json');
    expect(config.image_token_index).toBeLessThan(config.text_config.vocab_size);
    expect(config.text_config.vocab_size % 64).toBe(0);
    expect(config).toMatchObject({ scale_image_features: false, architectures: ['LlavaForConditionalGeneration'] });
    const { image_processor, ...rest } = json(first, 'processor_config.json');
    expect(rest).toMatchObject({ processor_class: 'LlavaProcessor', image_token: '<image>' });
    expect(image_processor.image_processor_type).toBe('LlavaImageProcessor');
    // the language model's own, and the end of a turn
    expect(json(first, 'generation_config.json')).toMatchObject({ eos_token_id: [1, 9, 6], do_sample: true, top_k: 7 });
    expect(readFileSync(join(first, 'chat_template.jinja'), 'utf8')).toBe(json(first, 'tokenizer_config.json').chat_template);
    const { added_tokens } = json(first, 'tokenizer.json');
    expect(added_tokens).toContainEqual(expect.objectContaining({ id: config.image_token_index, content: '<image>' }));
  });

  it('keeps beside it what training goes on from', async () => {
    const tensors = await tensorsOf(first);
    const own = await openSafetensors(join(first, 'trained.safetensors'));
    expect(own.names.sort()).toEqual(['multi_modal_projector.linear_2.bias', 'multi_modal_projector.linear_2.weight']);
    for (const name of own.names) {
      const { data } = await own.read(name);
      const values = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
      // hidden_size is 16
      expect(tensors.get(name)).toEqual(values.map((value) => value * 4));
    }
    await own.close();
  });

  it('is left behind by convert in the same form, without what only the trainer needs', async () => {
    const { code, stderr } = await cli('convert', first, 'converted', '--dtype', 'float32');
    expect(code, stderr).toBe(0);
    expect(existsSync(join('converted', 'trained.safetensors'))).toBe(false);
    expect(await tensorsOf('converted')).toEqual(await tensorsOf(first));
  });
});

describe('a recipe that names a LLaVA', () => {
  it('goes on from its weights, connector included', async () => {
    await train('further.yaml', '--out', 'further');
    const more = join('further', 'checkpoints', 'more');
    const [before, after] = [await tensorsOf(first), await tensorsOf(more)];
    for (const name of connector) expect(after.get(name), name).toEqual(before.get(name));
    expect(after.get(TABLE)).not.toEqual(before.get(TABLE));
    expect(json(more, 'config.json')).toEqual(json(first, 'config.json'));
    for (const name of ['tokenizer.json', 'chat_template.jinja', 'processor_config.json'])
      expect(readFileSync(join(more, name)).equals(readFileSync(join(first, name))), name).toBe(true);
    // it has learned these questions before
    const losses = (out: string) =>
      readMetrics(join(out, 'metrics.jsonl')).flatMap((event) => (event.type === 'step' && event.stage !== 'pretrain' ? [event.loss] : []));
    expect(losses('further')[0]).toBeLessThan(losses('first')[0]);
  });

  it('makes the connector anew if asked', async () => {
    const set = [
      '--set',
      'model.new_connector=mlp3x_gelu',
      '--set',
      'stages.0.train=[multi_modal_projector]',
      '--set',
      'stages.0.template=gemma',
    ];
    await train('further.yaml', '--out', 'anew', ...set);
    const [before, after] = [await tensorsOf(first), await tensorsOf(join('anew', 'checkpoints', 'more'))];
    expect(after.get(connector[0])).not.toEqual(before.get(connector[0]));
    expect(after.has('multi_modal_projector.linear_3.weight')).toBe(true);
    expect(after.get(TABLE)).toEqual(before.get(TABLE));
    expect(json(join('anew', 'checkpoints', 'more'), 'config.json').mm_projector_type).toBe('mlp3x_gelu');
  });

  it('is resumed as any other', async () => {
    await train('further.yaml', '--out', 'twice');
    rmSync(join('twice', 'summary.json'));
    await train('--resume', '--out', 'twice');
    expect(await tensorsOf(join('twice', 'checkpoints', 'more'))).toEqual(await tensorsOf(join('further', 'checkpoints', 'more')));
  });

  it('is never removed by the run that reads it', async () => {
    cpSync('first', 'own', { recursive: true });
    const words = ['further.yaml', '--out', 'own', '--overwrite', '--set'];
    const { code, stderr } = await cli('train', ...words, `model.llava=${join('own', 'checkpoints', 'finetune')}`);
    expect(code).toBe(1);
    expect(stderr).toContain(`--overwrite would remove ${join('own', 'checkpoints', 'finetune')}, which the run reads`);
    expect(await tensorsOf(join('own', 'checkpoints', 'finetune'))).toEqual(await tensorsOf(first));
    cpSync(join('scenes', 'train_questions.json'), join('own', 'samples', 'mine.json'));
    const data = `stages.0.data={data_path: ${join('own', 'samples', 'mine.json')}, image_folder: ${join('scenes', 'images')}}`;
    expect((await cli('train', ...words, data)).stderr).toContain(`--overwrite would remove ${join('own', 'samples', 'mine.json')}`);
    // beside it, everything may be replaced
    await train('further.yaml', '--out', 'own', '--overwrite');
  });

  it('is told what is wrong with the folder', async () => {
    const run = await cli('train', 'further.yaml', '--out', 'never', '--set', 'model.llava=first');
    expect(run.stderr).toContain(`first is no model, but ${first}`);
    const { code, stderr } = await cli('train', 'further.yaml', '--out', 'never', '--set', 'model.llava=gemma/checkpoints/gemma');
    expect(code).toBe(1);
    expect(stderr).toContain(`${join('gemma', 'checkpoints', 'gemma', 'config.json')}: model_type: `);
    expect(existsSync('never')).toBe(false);
  });
});
