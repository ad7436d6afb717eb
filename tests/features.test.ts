// Where the features of a frozen encoder come from (kept in float32, in float16, or computed at each step)
// changes what is computed by no more than its rounding.
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { float32 } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { llavaConfigSchema } from '../src/models/llava.ts';
import { compileGraph, encoderGraph } from '../src/models/programs.ts';
import { initialize } from '../src/nn/parameters.ts';
import { createRandom } from '../src/random.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { cli, enterToyFolder } from './toy.ts';

beforeAll(enterToyFolder, 180_000);

async function train(out: string, ...settings: string[]) {
  rmSync('.cache/features', { recursive: true, force: true });
  const words = settings.flatMap((setting) => ['--set', `stages.1.${setting}`, '--set', `stages.0.${setting}`]);
  const { code, stderr } = await cli('train', 'llava.yaml', '--out', out, '--set', 'evaluate=', ...words);
  expect(code, stderr).toBe(0);
  const losses = readMetrics(join(out, 'metrics.jsonl')).flatMap((event) => (event.type === 'step' ? [event.loss] : []));
  const kept = existsSync('.cache/features') ? readdirSync('.cache/features').map((name) => name.slice(name.indexOf('.'))) : [];
  return { losses, stderr, kept };
}

describe('features of a frozen encoder', () => {
  it('are the same, kept or computed at each step', async () => {
    const kept = await train('kept');
    expect(kept.kept).toEqual(['.features']);
    const half = await train('half', 'feature_cache=float16');
    expect(half.kept).toEqual(['.float16.features']);
    const none = await train('none', 'feature_cache=none');
    expect(none.kept).toEqual([]);
    expect(none.stderr).not.toContain('encoding pictures');
    kept.losses.forEach((loss, i) => {
      expect(Math.abs(none.losses[i] - loss)).toBeLessThan(1e-5);
      expect(Math.abs(half.losses[i] - loss)).toBeLessThan(1e-3);
    });
    expect(half.losses).not.toEqual(kept.losses);
    const threads = await train('threads', 'feature_cache=none', 'picture_threads=3');
    expect(threads.losses).toEqual(none.losses);
  });

  it('are the same bits, whichever pictures are encoded with a picture', async () => {
    const config = llavaConfigSchema.parse({
      vision_config: {
        hidden_size: 128,
        intermediate_size: 512,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        image_size: 96,
        patch_size: 16,
      },
      text_config: {
        vocab_size: 31,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        max_position_embeddings: 64,
      },
      image_token_index: 31,
    });
    const graph = encoderGraph(config);
    const constants = new Map(graph.parameters.map((p) => [p.name, float32(initialize(p, createRandom(1, p.name)), p.dims)]));
    const program = await compileGraph(createOrtEngine(), graph, constants);
    const [pictures, size] = [32, 3 * 96 * 96];
    const random = createRandom(2);
    const pixels = Float32Array.from({ length: pictures * size }, () => random.normal());
    const encode = async (from: number, to: number) => {
      const given = float32(pixels.slice(from * size, to * size), [to - from, 3, 96, 96]);
      return Float32Array.from((await program.run({ pixel_values: given })).features.data as Float32Array);
    };
    const together = await encode(0, pictures);
    const each = together.length / pictures;
    for (const [from, to] of [
      [0, 1],
      [1, 3],
      [5, 32],
      [31, 32],
    ])
      expect(await encode(from, to)).toEqual(together.slice(from * each, to * each));
    await program.dispose();
  });

  it('are of no picture in a step of text alone, kept or not: the same steps', async () => {
    const samples = JSON.parse(readFileSync('scenes/train_captions.json', 'utf8'));
    const text = samples.map(({ id }: { id: string }) => ({
      id: `text ${id}`,
      conversations: [
        { from: 'human', value: 'Say what is red.' },
        { from: 'gpt', value: 'a red apple' },
      ],
    }));
    writeFileSync('mixed.json', JSON.stringify([...samples, ...text]));
    const settings = ['data={data_path: mixed.json, image_folder: scenes/images}', 'template=gemma', 'group_by_modality=true'];
    const kept = await train('modality', ...settings, 'steps=6', 'log_every=1');
    const none = await train('modality-none', ...settings, 'steps=6', 'log_every=1', 'feature_cache=none');
    kept.losses.forEach((loss, i) => {
      expect(Math.abs(none.losses[i] - loss)).toBeLessThan(1e-5);
    });
    const mixed = await train('mixed-modality', ...settings, 'steps=6', 'log_every=1', 'group_by_modality=false');
    expect(mixed.losses).not.toEqual(kept.losses);
  });

  it('are kept as the budget allows, which a line says', async () => {
    // 12 pictures of 4 rows of 16 numbers: 3.5 kB in float32
    const half = await train('auto-half', 'feature_cache_gb=2e-6');
    expect(half.kept).toEqual(['.float16.features']);
    expect(half.stderr).toContain('feature_cache_gb is 0.000002: they are kept in float16');
    const none = await train('auto-none', 'feature_cache_gb=1e-6');
    expect(none.kept).toEqual([]);
    expect(none.stderr).toContain('the encoder runs at each step');
  });

  it('must be kept to be mixed', async () => {
    const words = ['train', 'llava.yaml', '--out', 'mixed', '--set', 'evaluate=', '--set', 'stages.0.feature_mixup=0.3'];
    const asked = await cli(...words, '--set', 'stages.0.feature_cache=none');
    expect(asked.code).toBe(1);
    expect(asked.stderr).toContain('stages.0.feature_mixup: needs features that are kept, but feature_cache is none');
    const chosen = await cli(...words, '--set', 'stages.0.feature_cache_gb=1e-6');
    expect(chosen.code).toBe(1);
    expect(chosen.stderr).toContain('feature_mixup needs them kept; raise feature_cache_gb');
  });
});
