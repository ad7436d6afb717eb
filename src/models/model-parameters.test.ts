import { describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { modelParameters } from './model-parameters.ts';
import { shapeNamed, shapes } from './shapes.ts';

const totalOf = (name: string) =>
  modelParameters(shapeNamed(name).config).reduce((sum, { dims }) => sum + dims.reduce((product, size) => product * size, 1), 0);

describe('named shapes', () => {
  test.each([
    // for the LLaVAs, what the released folders hold, without a second copy of the embedding; for the others,
    // what transformers counts
    ['llava-gemma-2b', 2_815_975_424],
    ['llava-gemma-7b', 8_853_777_408],
    ['gemma-2b', 2_506_172_416],
    ['gemma-7b', 8_537_680_896],
    ['gemma-2-2b', 2_614_341_888],
    ['gemma-2-9b', 9_241_705_984],
    ['clip-vit-base-patch16', 85_799_424],
    ['clip-vit-large-patch14', 303_179_776],
    ['clip-vit-large-patch14-336', 303_507_456],
    ['siglip-so400m-patch14-384', 428_225_600],
    ['dinov2-base', 86_580_480],
    ['dinov2-large', 304_368_640],
  ])('%s has %i parameters', (name, total) => {
    expect(totalOf(name)).toBe(total);
  });

  test('are all known models', () => {
    for (const name of Object.keys(shapes)) expect(totalOf(name), name).toBeGreaterThan(0);
    expect(() => shapeNamed('llava-gemma')).toThrow(/there is no shape "llava-gemma"; the shapes are llava-gemma-2b, /);
    expect(() => shapeNamed('constructor')).toThrow(UserError);
  });
});

describe('modelParameters', () => {
  const namesOf = (name: string) => modelParameters(shapeNamed(name).config).map((parameter) => parameter.name);

  test('names the parts of a LLaVA, and a single model as its own folder does', () => {
    const tiny = namesOf('llava-gemma-tiny');
    expect(new Set(tiny.map((name) => name.split('.')[0]))).toEqual(new Set(['vision_tower', 'multi_modal_projector', 'language_model']));
    expect(namesOf('gemma-2b')).toContain('model.layers.17.mlp.down_proj.weight');
    const tower = namesOf('clip-vit-large-patch14-336');
    expect(tower).toContain('vision_model.embeddings.class_embedding');
    // the last layer is there although a LLaVA with vision_feature_layer -2 does not run it
    expect(tower).toContain('vision_model.encoder.layers.23.mlp.fc2.bias');
    expect(tower).toContain('vision_model.post_layernorm.weight');
  });

  test('says what it does not know', () => {
    expect(() => modelParameters({ model_type: 'qwen2', hidden_size: 8 })).toThrow('models of model_type "qwen2" are not known here');
    expect(() => modelParameters(null)).toThrow(UserError);
    const { config } = shapeNamed('llava-gemma-tiny');
    expect(() => modelParameters({ ...config, text_config: { ...(config.text_config as object), head_dim: 0 } })).toThrow(
      /^text_config\.head_dim: /,
    );
  });
});
