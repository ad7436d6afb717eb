// What is exported for llama.cpp, read back by Hugging Face's own reader of GGUF: every key, every name,
// and what is put into the weights because llama.cpp computes otherwise.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GGMLQuantizationType, gguf } from '@huggingface/gguf';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GgufTensorType } from '../src/export/gguf.ts';
import { tokenizerMetadata } from '../src/export/gguf-tokenizer.ts';
import { exportLlamaCpp } from '../src/export/llama-cpp.ts';
import { createTokenizer } from '../src/text/tokenizer.ts';
import { PAIRINGS, type TinyModel, tinyModel } from './export-source.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'llava-gemma-gguf-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function exported(name: string, { source }: TinyModel, dtype: GgufTensorType = 'F32', classToken?: 'first' | 'last') {
  const out = join(folder, name);
  await exportLlamaCpp(source, out, { dtypes: [dtype], classToken });
  const encoder = dtype === 'F32' ? 'F32' : 'F16';
  return { model: await opened(join(out, `model-${dtype}.gguf`)), mmproj: await opened(join(out, `mmproj-${encoder}.gguf`)) };
}

async function opened(path: string) {
  const { metadata, tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true });
  const bytes = readFileSync(path);
  const infos = new Map(tensorInfos.map((info) => [info.name, info]));
  return {
    metadata: metadata as Record<string, unknown>,
    names: [...infos.keys()],
    type: (name: string) => GGMLQuantizationType[infos.get(name)!.dtype],
    /** As PyTorch has them. */
    shape: (name: string) => infos.get(name)!.shape.map(Number).reverse(),
    /** Values of a float32 tensor. */
    values(name: string) {
      const { offset, shape } = infos.get(name)!;
      const start = Number(tensorDataOffset) + Number(offset);
      return Array.from({ length: shape.map(Number).reduce((a, b) => a * b, 1) }, (_, i) => bytes.readFloatLE(start + 4 * i));
    },
  };
}

const architectures: Record<string, string> = { gemma: 'gemma', gemma2: 'gemma2', gemma3_text: 'gemma3' };

describe.each(PAIRINGS)('%s with %s', (language, encoder) => {
  test('has every tensor of its graphs, once', async () => {
    const tiny = tinyModel(language, encoder);
    const { model, mmproj } = await exported(`${language}-${encoder}`, tiny);
    const { text_config: text, vision_config: vision } = tiny.config;
    const name = architectures[language];
    expect(model.metadata).toMatchObject({
      'general.architecture': name,
      [`${name}.block_count`]: text.num_hidden_layers,
      [`${name}.attention.head_count_kv`]: 2,
      [`${name}.attention.key_length`]: 8,
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.bos_token_id': 2,
    });
    const perBlock = { gemma: 9, gemma2: 11, gemma3_text: 13 }[language]!;
    expect(model.names).toHaveLength(2 + perBlock * text.num_hidden_layers);
    // those behind the last that is read are left out
    const blocks = encoder === 'dinov2' ? 3 : 2;
    expect(mmproj.metadata).toMatchObject({
      'clip.projector_type': 'mlp',
      'clip.vision.block_count': blocks,
      'clip.vision.feature_layer': [blocks],
      'clip.use_gelu': encoder !== 'clip_vision_model',
    });
    const around = { clip_vision_model: 5, siglip_vision_model: 3, dinov2: 4 }[vision.model_type];
    expect(mmproj.names).toHaveLength(around + 16 * blocks + 4);
    expect(mmproj.shape('v.patch_embd.weight')).toEqual([32, 3, 16, 16]);
    expect(mmproj.shape('v.blk.0.ffn_up.weight')).toEqual([64, 32]);
  });
});

describe('what is put into the weights', () => {
  const close = (actual: number[], expected: Iterable<number>) => {
    const wanted = [...expected];
    expect(actual).toHaveLength(wanted.length);
    wanted.forEach((value, i) => {
      expect(actual[i]).toBeCloseTo(value, 5);
    });
  };

  test('norms multiply by 1 + w; scores are scaled by the queries', async () => {
    const tiny = tinyModel('gemma2', 'clip_vision_model');
    const { model } = await exported('folded', tiny);
    const layer = 'language_model.model.layers.1';
    close(
      model.values('blk.1.ffn_norm.weight'),
      tiny.values.get(`${layer}.pre_feedforward_layernorm.weight`)!.map((w) => 1 + w),
    );
    // llama.cpp scales by head_dim, 8, the model by 24
    close(
      model.values('blk.1.attn_q.weight'),
      tiny.values.get(`${layer}.self_attn.q_proj.weight`)!.map((w) => w * Math.sqrt(8 / 24)),
    );
    const gemma3 = tinyModel('gemma3_text', 'siglip_vision_model');
    const { model: third, mmproj } = await exported('folded3', gemma3);
    close(
      third.values('blk.0.attn_q_norm.weight'),
      gemma3.values.get('language_model.model.layers.0.self_attn.q_norm.weight')!.map((w) => (1 + w) * Math.sqrt(8 / 24)),
    );
    // it scales no image rows
    close(mmproj.values('mm.2.weight'), gemma3.values.get('multi_modal_projector.linear_2.weight')!);
  });

  test('image rows are divided by what Gemma 1 and 2 multiply them by, LayerScale is in its rows, positions have their order', async () => {
    const tiny = tinyModel('gemma', 'dinov2');
    const { mmproj } = await exported('vision', tiny);
    close(
      mmproj.values('mm.2.bias'),
      tiny.values.get('multi_modal_projector.linear_2.bias')!.map((w) => w / Math.sqrt(32)),
    );
    const block = 'vision_tower.encoder.layer.2';
    const scale = tiny.values.get(`${block}.layer_scale2.lambda1`)!;
    close(
      mmproj.values('v.blk.2.ffn_down.weight'),
      tiny.values.get(`${block}.mlp.fc2.weight`)!.map((w, i) => w * scale[Math.floor(i / 64)]),
    );
    close(
      mmproj.values('v.blk.2.ffn_down.bias'),
      tiny.values.get(`${block}.mlp.fc2.bias`)!.map((w, i) => w * scale[i]),
    );
    const table = tiny.values.get('vision_tower.embeddings.position_embeddings')!;
    close(mmproj.values('v.position_embd.weight'), [...table.slice(32), ...table.slice(0, 32)]);
    const { mmproj: first } = await exported('vision-first', tiny, 'F32', 'first');
    close(first.values('v.position_embd.weight'), table);
  });
});

test.each([
  ['F16', 'F16', 'F16'],
  ['BF16', 'BF16', 'BF16'],
  ['Q8_0', 'Q8_0', 'Q8_0'],
  ['Q4_0', 'Q4_0', 'Q8_0'],
] as const)('%s stores matrices in it, vectors in float32', async (dtype, matrix, table) => {
  const { model } = await exported(dtype, tinyModel('gemma', 'clip_vision_model'), dtype);
  expect(model.type('blk.0.ffn_up.weight')).toBe(matrix);
  expect(model.type('token_embd.weight')).toBe(table);
  expect(model.type('output_norm.weight')).toBe('F32');
});

describe('the tokenizer', () => {
  const { source, config } = tinyModel('gemma', 'clip_vision_model');
  // biome-ignore lint/suspicious/noExplicitAny: it is whatever the file holds
  const json = source.tokenizerFiles.tokenizerJson as any;

  test('keeps the order of merges, and says what kind each token is', () => {
    const metadata = tokenizerMetadata(json, source.tokenizer, config.text_config.vocab_size);
    const tokens = metadata['tokenizer.ggml.tokens'].value as string[];
    const scores = metadata['tokenizer.ggml.scores'].value as number[];
    const kinds = metadata['tokenizer.ggml.token_type'].value as number[];
    expect(tokens).toHaveLength(4160);
    const at = (token: string) => tokens.indexOf(token);
    expect(scores[at('▁t')]).toBeCloseTo(0);
    expect(scores[at('▁t')]).toBeGreaterThan(scores[at('▁the')]);
    expect([at('<bos>'), at('<unk>'), at('<0x0A>'), at('▁the'), at('[PAD4159]')].map((id) => kinds[id])).toEqual([3, 2, 6, 1, 5]);
    expect(kinds[4096]).toBe(3);
  });

  test('keeps runs of one character, whose merges are apart and which Gemma 2 and 3 list as added', () => {
    const runs = ['▁▁', '▁▁▁', '▁▁▁▁'];
    // by the length of the left part, as Hugging Face's converter sorts them
    const merges = ['▁▁▁ ▁', '▁▁ ▁▁', '▁▁ ▁', '▁ ▁▁▁', '▁ ▁▁', '▁ ▁', ...json.model.merges];
    const ids = Object.fromEntries(runs.map((run, i) => [run, 4100 + i]));
    const added = runs.map((content) => ({ ...json.added_tokens[0], id: ids[content], content, special: false }));
    const withRuns = {
      ...json,
      model: { ...json.model, vocab: { ...json.model.vocab, ...ids }, merges },
      added_tokens: [...json.added_tokens, ...added],
    };
    const tokenizer = createTokenizer(withRuns, source.tokenizerFiles.tokenizerConfig);
    const metadata = tokenizerMetadata(withRuns, tokenizer, 4160);
    const tokens = metadata['tokenizer.ggml.tokens'].value as string[];
    const scores = metadata['tokenizer.ggml.scores'].value as number[];
    const kinds = metadata['tokenizer.ggml.token_type'].value as number[];
    // llama.cpp writes `▁` of a normal token as a space, of a user's as it is
    expect(runs.map((run) => kinds[ids[run]])).toEqual([1, 1, 1]);
    // as llama.cpp cuts a text: the best union of two neighbors, the leftmost of equal ones, as long as
    // there is one
    const idOf = new Map(tokens.map((token, id) => [token, id]));
    const cut = (text: string) => {
      const pieces = [...text.replaceAll(' ', '▁')];
      for (;;) {
        const unions = pieces.slice(1).map((piece, i) => scores[idOf.get(pieces[i] + piece) ?? -1] ?? Number.NEGATIVE_INFINITY);
        const best = Math.max(...unions);
        if (unions.length === 0 || best === Number.NEGATIVE_INFINITY) return pieces.map((piece) => idOf.get(piece));
        const at = unions.indexOf(best);
        pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
      }
    };
    for (let count = 1; count < 12; count++) {
      const text = `the${' '.repeat(count)}circle`;
      expect(cut(text), text).toEqual(tokenizer.encode(text));
    }
  });

  test('has turn markers and <image> as control tokens, also where the file declares none', async () => {
    const added = json.added_tokens.filter(({ content }: { content: string }) => !/turn|image/.test(content));
    const tokenizerFiles = { ...source.tokenizerFiles, tokenizerJson: { ...json, added_tokens: added } };
    const tiny = tinyModel('gemma', 'clip_vision_model');
    const { model } = await exported('undeclared', { ...tiny, source: { ...tiny.source, tokenizerFiles } });
    const tokens = model.metadata['tokenizer.ggml.tokens'] as string[];
    const kinds = model.metadata['tokenizer.ggml.token_type'] as number[];
    for (const token of ['<start_of_turn>', '<end_of_turn>', '<image>']) expect(kinds[tokens.indexOf(token)], token).toBe(3);
  });

  test('is refused where llama.cpp would cut a text otherwise', () => {
    const merges = [...json.model.merges];
    const apart = { ...json, model: { ...json.model, merges: [...merges.slice(0, 4), ...merges.slice(5), merges[4]] } };
    expect(() => tokenizerMetadata(apart, source.tokenizer, 4160)).toThrow(/the merges that give .* do not stand together/);
    const fewer = { ...json, model: { ...json.model, merges: merges.toSpliced(4, 1) } };
    expect(() => tokenizerMetadata(fewer, source.tokenizer, 4160)).toThrow(/has parts that no merge joins/);
  });
});

describe('what llama.cpp does not compute is refused', () => {
  test.each([
    ['gemma', 'clip_vision_model', { vision_feature_select_strategy: 'full' }, 'vision_feature_select_strategy full keeps the class token'],
    ['gemma', 'siglip_vision_model', { vision_feature_select_strategy: 'default' }, 'drops a patch'],
    ['gemma', 'clip_vision_model', { mm_projector_type: 'mlp3x_gelu' }, 'the connector is mlp3x_gelu'],
    ['gemma', 'clip_vision_model', { vision_feature_layer: [2, 1] }, 'vision_feature_layer is not ascending'],
  ])('%s with %s: %o', async (language, encoder, fields, message) => {
    await expect(exported('refused', tinyModel(language, encoder, fields))).rejects.toThrow(message);
  });

  test('other kinds of layers', async () => {
    const tiny = tinyModel('gemma2', 'clip_vision_model');
    Object.assign(tiny.config.text_config, { layer_types: ['full_attention', 'full_attention', 'full_attention'] });
    await expect(exported('refused', tiny)).rejects.toThrow('layer_types are not one full layer in 2, which llama.cpp does not compute');
  });
});
