import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { mapNames } from './layouts.ts';

const own = [
  'vision_tower.vision_model.embeddings.class_embedding',
  'vision_tower.vision_model.embeddings.patch_embedding.weight',
  'vision_tower.vision_model.pre_layrnorm.weight',
  'vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias',
  'vision_tower.vision_model.post_layernorm.bias',
  'multi_modal_projector.linear_1.weight',
  'multi_modal_projector.linear_2.bias',
  'language_model.model.embed_tokens.weight',
  'language_model.model.layers.17.self_attn.q_proj.weight',
  'language_model.model.norm.weight',
];
const short = (name: string) => name.replace('vision_model.', '');

describe('mapNames', () => {
  test.each([
    ['huggingface', own],
    ['huggingface', own.map(short)],
    ['transformers-5', own.map((name) => `model.${short(name).replace('language_model.model.', 'language_model.')}`)],
    [
      'native',
      [
        'model.vision_tower.vision_tower.vision_model.embeddings.class_embedding',
        'model.vision_tower.vision_tower.vision_model.embeddings.patch_embedding.weight',
        'model.vision_tower.vision_tower.vision_model.pre_layrnorm.weight',
        'model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias',
        'model.vision_tower.vision_tower.vision_model.post_layernorm.bias',
        'model.mm_projector.0.weight',
        'model.mm_projector.2.bias',
        'model.embed_tokens.weight',
        'model.layers.17.self_attn.q_proj.weight',
        'model.norm.weight',
      ],
    ],
  ])('gives the names of a %s folder as ours', (layout, names) => {
    const map = mapNames(names);
    expect(map.layout).toBe(layout);
    expect([...map.stored]).toEqual(own.map((name, i) => [name, names[i]]));
    expect(map.head).toBeUndefined();
  });

  test.each([
    [['embeddings.patch_embedding.weight', 'post_layernorm.bias', 'head.probe'], (name: string) => `vision_model.${name}`],
    [['vision_model.embeddings.patch_embedding.weight', 'text_model.final_layer_norm.bias', 'logit_scale'], (name: string) => name],
    // DINOv2 has no such module
    [['embeddings.patch_embeddings.projection.weight', 'encoder.layer.0.norm1.bias', 'layernorm.bias'], (name: string) => name],
    [['model.embed_tokens.weight', 'model.layers.0.mlp.up_proj.weight'], (name: string) => name],
    [['embed_tokens.weight', 'layers.0.mlp.up_proj.weight', 'norm.weight'], (name: string) => `model.${name}`],
    [[], (name: string) => name],
  ])('knows a single model: %j', (names, ownName) => {
    const { layout, stored } = mapNames(names);
    expect(layout).toBe('single');
    expect([...stored]).toEqual(names.map((name) => [ownName(name), name]));
  });

  test('leaves a DINOv2 tower as it is', () => {
    const names = ['vision_tower.embeddings.cls_token', 'vision_tower.encoder.layer.0.norm1.bias', 'vision_tower.layernorm.weight'];
    expect([...mapNames(names).stored.keys()]).toEqual(names);
    expect([...mapNames(names.map((name) => `model.vision_tower.${name}`)).stored.keys()]).toEqual(names);
  });

  test('numbers the layers of deeper and shallower connectors', () => {
    const projector = (...names: string[]) => [...mapNames(names.map((name) => `model.mm_projector.${name}`)).stored.keys()];
    expect(projector('weight', 'bias')).toEqual(['multi_modal_projector.linear_1.weight', 'multi_modal_projector.linear_1.bias']);
    expect(projector('0.weight', '2.weight', '4.weight', '10.bias').map((name) => name.split('.')[1])).toEqual([
      'linear_1',
      'linear_2',
      'linear_3',
      'linear_6',
    ]);
  });

  test.each([
    [['model.mm_projector.0.weight', 'model.embed_tokens.weight', 'lm_head.weight'], 'language_model.model.embed_tokens.weight'],
    [['model.language_model.embed_tokens.weight', 'lm_head.weight'], 'language_model.model.embed_tokens.weight'],
    [['language_model.model.embed_tokens.weight', 'language_model.lm_head.weight'], 'language_model.model.embed_tokens.weight'],
    [['model.embed_tokens.weight', 'lm_head.weight'], 'model.embed_tokens.weight'],
  ])('sets an output head apart: %j', (names, embedding) => {
    const { head, stored } = mapNames(names);
    expect(head).toEqual({ stored: names.at(-1), embedding });
    expect(stored.size).toBe(names.length - 1);
  });

  test('an output head without an embedding is a tensor like any other', () => {
    expect([...mapNames(['lm_head.weight']).stored.keys()]).toEqual(['lm_head.weight']);
  });

  test('leaves out what older software saved although it is computed', () => {
    const buffers = ['vision_tower.vision_model.embeddings.position_ids', 'language_model.model.layers.0.self_attn.rotary_emb.inv_freq'];
    expect(mapNames([...own, ...buffers])).toMatchObject({ buffers });
    expect([...mapNames([...own, ...buffers]).stored.keys()]).toEqual(own);
  });

  test('refuses names of two layouts, and two names of one tensor', () => {
    expect(() => mapNames(['language_model.model.norm.weight', 'model.mm_projector.0.weight'])).toThrow(
      'named in two ways, "model.mm_projector.0.weight" (native) and "language_model.model.norm.weight" (huggingface)',
    );
    expect(() => mapNames([own[1], ...own.map(short)])).toThrow(
      '"vision_tower.vision_model.embeddings.patch_embedding.weight" and "vision_tower.embeddings.patch_embedding.weight" are names of one tensor',
    );
  });

  test('takes any names: each has a name of ours, is set apart, or the whole is refused', () => {
    const part = fc.constantFrom(
      'model',
      'lm_head',
      'vision_tower',
      'mm_projector',
      'language_model',
      'embeddings',
      'embed_tokens',
      '0',
      '2',
    );
    const name = fc
      .array(fc.oneof(part, fc.constantFrom('weight', 'position_ids', '', 'constructor')), { maxLength: 5 })
      .map((parts) => parts.join('.'));
    fc.assert(
      fc.property(fc.uniqueArray(name, { maxLength: 8 }), (names) => {
        try {
          const { stored, head, buffers } = mapNames(names);
          expect([...stored.values(), ...buffers, ...(head ? [head.stored] : [])].sort()).toEqual([...names].sort());
        } catch (error) {
          expect(error).toBeInstanceOf(UserError);
        }
      }),
      { numRuns: 500 },
    );
  });
});
