import { describe, expect, test } from 'vitest';
import { ShapeError } from '../graph/dims.ts';
import { createRandom } from '../random.ts';
import { linear } from './layers.ts';
import { type Initializer, initialize, normal, ones, Parameters, zeros } from './parameters.ts';

describe('Parameters', () => {
  test('lists what was asked for, under full names, in order', () => {
    const p = new Parameters();
    p.get('scale', []);
    p.module('model', (p) => {
      p.module('layers.0', (p) => p.get('weight', [2, 3]));
      p.get('bias', [3]);
    });
    expect(p.list().map(({ name, dims }) => [name, dims])).toEqual([
      ['scale', []],
      ['model.layers.0.weight', [2, 3]],
      ['model.bias', [3]],
    ]);
  });

  test('gives a tied weight as one tensor, and refuses it in another shape', () => {
    const p = new Parameters();
    const first = p.module('model', (p) => p.get('embed', [5, 2]));
    expect(p.get('model.embed', [5, 2])).toBe(first);
    expect(p.list().length).toBe(1);
    expect(() => p.module('model', (p) => p.get('embed', [2, 5]))).toThrow('parameter model.embed is used as [5, 2] and as [2, 5]');
  });

  test('puts the module path into shape errors', () => {
    const p = new Parameters();
    const x = p.get('x', [4, 3]);
    p.get('layers.1.up.weight', [7, 2]);
    expect(() => p.module('layers.1', (p) => linear(p, 'up', x, 7))).toThrow(
      'parameter layers.1.up.weight is used as [7, 2] and as [7, 3]',
    );
    const fail = () =>
      p.module('model', (p) =>
        p.module('mlp', () => {
          throw new ShapeError('matmul', 'no', []);
        }),
      );
    expect(fail).toThrow('matmul in model.mlp: no');
  });
});

describe('initialize', () => {
  const parameter = (initializer: Initializer) => ({ name: 'w', dims: [50, 40], tensor: new Parameters().get('w', [50, 40]), initializer });

  test('draws what the initializer says, the same for the same seed', () => {
    const values = initialize(parameter(normal(0.5)), createRandom(1));
    const mean = values.reduce((a, b) => a + b, 0) / 2000;
    const deviation = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / 2000);
    expect(values.length).toBe(2000);
    expect(Math.abs(mean)).toBeLessThan(0.05);
    expect(deviation).toBeGreaterThan(0.45);
    expect(deviation).toBeLessThan(0.55);
    expect(initialize(parameter(normal(0.5)), createRandom(1))).toEqual(values);
    expect(initialize(parameter(normal(0.5)), createRandom(2))).not.toEqual(values);
    expect(new Set(initialize(parameter(zeros), createRandom(1)))).toEqual(new Set([0]));
    expect(new Set(initialize(parameter(ones), createRandom(1)))).toEqual(new Set([1]));
    expect(new Set(initialize(parameter({ kind: 'constant', value: 2.5 }), createRandom(1)))).toEqual(new Set([2.5]));
  });

  test('fills a scalar', () => {
    expect([...initialize({ ...parameter({ kind: 'constant', value: 2 }), dims: [] }, createRandom(1))]).toEqual([2]);
  });
});
