import { describe, expect, test } from 'vitest';
import { readOnnxModel } from '../../../tests/onnx-reader.ts';
import { attention, geluTanh, rmsNorm } from '../../graph/composites.ts';
import { grad } from '../../graph/grad.ts';
import type { Outputs } from '../../graph/passes.ts';
import {
  add,
  cast,
  dequantize,
  gather,
  hold,
  lessOrEqual,
  matmul,
  mul,
  pad,
  putAlong,
  reduceSum,
  reshape,
  scatterAdd,
  slice,
  transpose,
} from '../../graph/primitives.ts';
import { constant, input, type Tensor } from '../../graph/tensor.ts';
import { type LowerOptions, lower } from './lower.ts';
import { EXTERNAL_DATA_PATH } from './packed.ts';
import { OPSET } from './writer.ts';

function parse(outputs: Outputs, options?: LowerOptions) {
  const graph = readOnnxModel(lower(outputs, options));
  return { graph, ops: graph.node.map((node) => node.opType) };
}

const x = input('x', 'float32', ['batch', 4]);

describe('model', () => {
  test('carries opsets, and inputs and outputs with their names, types and dims', () => {
    const ids = input('ids', 'int32', ['batch']);
    const { graph } = parse({ y: mul(x, 2), same: ids });
    expect(graph.opsets).toEqual([
      ['', OPSET],
      ['com.microsoft', 1],
    ]);
    const describeInfo = ({ name, dataType, dims }: (typeof graph.input)[number]) => [name, dataType, dims];
    expect(graph.input.map(describeInfo)).toEqual([
      ['x', 1, ['batch', 4]],
      ['ids', 6, ['batch']],
    ]);
    expect(graph.output.map(describeInfo)).toEqual([
      ['y', 1, ['batch', 4]],
      ['same', 6, ['batch']],
    ]);
  });

  test('every operand is an input, an initializer or an earlier result, and every result has one name', () => {
    const weight = input('weight', 'float32', [4]);
    const y = rmsNorm(x, weight, 1e-6);
    const loss = reduceSum(mul(y, y), [0, 1]);
    const { graph } = parse({ loss, dx: grad(loss, [x])[0] });
    const known = new Set([...graph.input, ...graph.initializer].map(({ name }) => name));
    for (const node of graph.node) {
      for (const name of node.input) expect(name === '' || known.has(name), `${node.name} reads ${name}`).toBe(true);
      for (const name of node.output) {
        expect(known.has(name)).toBe(false);
        known.add(name);
      }
    }
    expect(graph.output.every(({ name }) => known.has(name))).toBe(true);
  });

  test('is the same bytes for the same graph', () => {
    const build = () => ({ y: add(mul(input('x', 'float32', ['batch', 4]), 2), 3) });
    expect(lower(build())).toEqual(lower(build()));
  });
});

describe('constants', () => {
  test('equal ones are stored once', () => {
    const y = pad(slice(mul(add(mul(x, 2), 3), 2), 1, 1, 3), 1, 1, 3);
    const { graph } = parse({ y });
    const stored = graph.initializer.map((t) => `${t.dataType}[${t.dims}]${[...t.rawData]}`);
    expect(new Set(stored).size).toBe(stored.length);
    expect(graph.initializer.filter((t) => t.dataType === 1)).toHaveLength(2);
  });

  test('a large one that is used twice is stored once', () => {
    const table = new Float32Array(100).fill(1.5);
    const { graph } = parse({ a: matmul(x, constant(table, [4, 25])), b: matmul(x, constant(table, [4, 25]), { alpha: 2 }) });
    expect(graph.initializer).toHaveLength(1);
    expect(graph.initializer[0].rawData).toHaveLength(400);
  });

  test('fixed inputs point into the external data and are no graph inputs', () => {
    const weight = input('weight', 'float32', [4, 4]);
    const externalInputs = new Map([['weight', { offset: 128, length: 64 }]]);
    const { graph } = parse({ y: matmul(x, weight) }, { externalInputs });
    expect(graph.input.map(({ name }) => name)).toEqual(['x']);
    const [stored] = graph.initializer;
    expect(stored.name).toBe('weight');
    expect(stored.external).toBe(true);
    expect(stored.externalData).toEqual({
      location: EXTERNAL_DATA_PATH,
      offset: '128',
      length: '64',
    });
  });
});

describe('outputs', () => {
  test('are the nodes themselves, which others may read on; inputs and outputs of two names are copied', () => {
    const doubled = mul(x, 2);
    const { graph, ops } = parse({ y: doubled, again: doubled, z: add(doubled, 1), same: x });
    expect(ops.filter((op) => op === 'Identity')).toHaveLength(2);
    expect(graph.output.map(({ name }) => name)).toEqual(['y', 'again', 'z', 'same']);
    const madeBy = new Map(graph.node.flatMap((node) => node.output.map((name) => [name, node] as const)));
    expect(madeBy.get('y')!.opType).toBe('Mul');
    expect(madeBy.get('z')!.input).toContain('y');
    expect(madeBy.get('again')!.input).toEqual(['y']);
  });
});

describe('packed weights', () => {
  const format = { bits: 4, blockSize: 16 } as const;
  const packed = input('w_packed', 'uint8', [6, 16]);
  const scale = input('w_scale', 'float32', [6, 2]);
  const matrix = dequantize(packed, scale, format);
  const wide = input('wide', 'float32', ['batch', 32]);
  const ids = input('ids', 'int32', ['batch']);

  test('are multiplied and looked up as they lie, and the two views of a fixed one share its bytes', () => {
    const externalInputs = new Map([
      ['w_packed', { location: 'model.safetensors', offset: 4096, length: 96 }],
      ['w_scale', { offset: 0, length: 48 }],
    ]);
    const { graph, ops } = parse({ y: matmul(wide, matrix, { transB: true }), rows: gather(matrix, ids) }, { externalInputs });
    expect(ops.sort()).toEqual(['GatherBlockQuantized', 'MatMulNBits']);
    const views = graph.initializer.filter(({ name }) => name.startsWith('w_packed'));
    expect(views.map(({ dims }) => dims)).toEqual([
      [6, 16],
      [6, 2, 8],
    ]);
    for (const { externalData } of views)
      expect(externalData).toEqual({
        location: 'model.safetensors',
        offset: '4096',
        length: '96',
      });
  });

  test('that multiply one x and lie one behind the other are multiplied as one', () => {
    const weight = (name: string, rows = 6) =>
      dequantize(input(`${name}_packed`, 'uint8', [rows, 16]), input(`${name}_scale`, 'float32', [rows, 2]), format);
    const product = (name: string, rows?: number, left = wide) => matmul(left, weight(name, rows), { transB: true });
    const places = (gap = 0, rows = 6) =>
      new Map([
        ['q_packed', { location: 'a', offset: 0, length: 96 }],
        ['v_packed', { location: 'a', offset: 96 + gap, length: 16 * rows }],
        ['q_scale', { location: 'a', offset: 5000, length: 48 }],
        ['v_scale', { location: 'a', offset: 5048, length: 8 * rows }],
      ]);
    const { graph, ops } = parse({ q: product('q'), v: product('v') }, { externalInputs: places() });
    expect(ops.sort()).toEqual(['MatMulNBits', 'Slice', 'Slice']);
    const blocks = graph.initializer.find(({ name }) => name.includes('%blocks'))!;
    expect(blocks.dims).toEqual([12, 2, 8]);
    expect(blocks.externalData).toEqual({
      location: 'a',
      offset: '0',
      length: '192',
    });

    const apart = (outputs: Outputs, externalInputs: ReturnType<typeof places>) =>
      parse(outputs, { externalInputs }).ops.filter((op) => op === 'MatMulNBits').length;
    const other = input('other', 'float32', ['batch', 32]);
    expect(apart({ q: product('q'), v: product('v') }, places(16))).toBe(2);
    expect(apart({ q: product('q'), v: product('v', 6, other) }, places())).toBe(2);
    expect(apart({ q: product('q'), v: product('v', 9000) }, places(0, 9000))).toBe(2);
    // one that is also multiplied by something else stays as it is
    expect(apart({ q: product('q'), v: product('v'), again: product('v', 6, other) }, places())).toBe(3);
  });

  test('are unpacked where no kernel reads them', () => {
    expect(parse({ y: matmul(wide, matrix, { transB: true }), z: mul(matrix, 2) }).ops).toContain('BitShift');
  });
});

describe('kernels', () => {
  test('fused ones are used unless told otherwise', () => {
    const y = rmsNorm(x, input('weight', 'float32', [4]), 1e-6);
    expect(parse({ y }).ops).toEqual(['SimplifiedLayerNormalization']);
    const plain = parse({ y }, { fuse: [] }).ops;
    expect(plain).not.toContain('SimplifiedLayerNormalization');
    expect(plain).toContain('ReduceMean');
  });

  test('transposes and factors of a product cost no node', () => {
    const w = input('w', 'float32', [3, 4]);
    expect(parse({ y: matmul(x, w, { transB: true, alpha: 0.5 }) }).ops).toEqual(['FusedMatMul']);
    expect(parse({ y: matmul(w, x, { transB: true }), z: matmul(input('v', 'float32', [2, 3]), w) }).ops).toContain('MatMul');
  });

  test('an attention step holds one softmax and six products', () => {
    const q = input('q', 'float32', ['batch', 4, 'tokens', 8]);
    const k = input('k', 'float32', ['batch', 1, 'tokens', 8]);
    const v = input('v', 'float32', ['batch', 1, 'tokens', 8]);
    const loss = reduceSum(attention(q, k, v, { scale: 0.3 }), [0, 1, 2, 3]);
    const gradients = grad(loss, [q, k, v]);
    const { ops } = parse({ loss, ...Object.fromEntries(gradients.map((g, i) => [`g${i}`, g])) });
    expect(ops.filter((op) => op === 'Softmax')).toHaveLength(1);
    expect(ops.filter((op) => op.endsWith('MatMul'))).toHaveLength(6);
  });
});

describe('scatters', () => {
  const ids = input('ids', 'int32', ['batch']);
  const table = input('table', 'float32', [7, 4]);

  test('go onto the other term of a sum, without zeros or an addition', () => {
    expect(parse({ y: add(table, scatterAdd(ids, x, [7, 4])) }).ops).not.toContain('Add');
    expect(parse({ y: add(putAlong(ids, input('v', 'float32', ['batch']), 4), x) }).ops).toEqual([
      'Unsqueeze',
      'Unsqueeze',
      'ScatterElements',
    ]);
  });

  test('but not onto a term that is widened', () => {
    expect(parse({ y: add(scatterAdd(ids, x, [7, 4]), input('row', 'float32', [4])) }).ops).toContain('Add');
  });

  test('two of one sum make a chain', () => {
    const y = add(add(scatterAdd(ids, x, [7, 4]), table), scatterAdd(ids, mul(x, 2), [7, 4]));
    const { ops } = parse({ y });
    expect(ops).not.toContain('Add');
    expect(ops.filter((op) => op === 'ScatterElements')).toHaveLength(2);
  });
});

describe('named dims', () => {
  test('a reshape with one free dim needs no shape arithmetic', () => {
    const hidden = input('hidden', 'float32', ['batch', 'tokens', 12]);
    const heads = transpose(reshape(hidden, ['batch', 'tokens', 3, 4]), [0, 2, 1, 3]);
    expect(parse({ y: reshape(heads, ['batch', 3, '4*tokens']) }).ops).not.toContain('Shape');
  });

  test('several free dims are read from the inputs that carry them', () => {
    const flat = input('flat', 'float32', ['batch*tokens', 4]);
    const mask = input('mask', 'float32', ['batch', 'tokens', 1]);
    expect(parse({ y: mul(reshape(flat, ['batch', 'tokens', 4]), mask) }).ops).toContain('Shape');
    expect(() => lower({ y: reshape(flat, ['batch', 'tokens', 4]) })).toThrow('no graph input carries the dimension "batch"');
  });
});

describe('a product of transposed rows', () => {
  const product = (rows: number, columns: number, options?: LowerOptions) => {
    const [a, b] = [input('a', 'float32', ['rows', rows]), input('b', 'float32', ['rows', columns])];
    return parse({ y: matmul(a, b, { transA: true }) }, options).ops;
  };

  test('is a plain one of which the narrower operand was transposed before', () => {
    expect(product(512, 1024)).toEqual(['Transpose', 'Reshape', 'MatMul']);
    expect(product(1024, 512)).toEqual(['Transpose', 'Reshape', 'MatMul', 'Transpose']);
  });

  test('stays whole where it is thin, or where memory comes first', () => {
    expect(product(64, 1024)).toEqual(['FusedMatMul']);
    expect(product(1024, 512, { recast: true })).toEqual(['FusedMatMul']);
  });
});

describe('recomputation', () => {
  const weight = input('w', 'float32', [4, 4]);
  const hidden = matmul(x, weight);
  const active = geluTanh(hidden);
  const loss = reduceSum(mul(add(active, hidden), active), [0, 1]);
  const outputs = { loss, gradient: grad(loss, [weight])[0] };
  const usersOf = (graph: ReturnType<typeof parse>['graph'], name: string) => graph.node.filter((node) => node.input.includes(name));

  test('repeats what is cheap for the backward pass, before all other nodes, and holds what is not', () => {
    const plain = parse(outputs);
    const repeated = parse(outputs, { recompute: { forward: ['loss'], what: 'cheap' } });
    const count = (ops: string[], op: string) => ops.filter((other) => other === op).length;
    expect(count(plain.ops, 'Gelu')).toBe(1);
    expect(count(repeated.ops, 'Gelu')).toBe(2);
    expect(count(repeated.ops, 'MatMul')).toBe(count(plain.ops, 'MatMul'));
    const [first, second] = repeated.graph.node.filter(({ opType }) => opType === 'Gelu');
    expect(first.input).toEqual(second.input);
    // the copy comes before the product that both read, which is what makes the runtime run it late
    const places = repeated.graph.node.map(({ output }) => output[0]);
    expect(places.indexOf(first.output[0])).toBeLessThan(places.indexOf(first.input[0]));
    // the forward pass reads the one, the backward pass the other
    const forward = new Set(usersOf(repeated.graph, second.output[0]).map(({ name }) => name));
    expect(usersOf(repeated.graph, first.output[0]).some(({ name }) => forward.has(name))).toBe(false);
  });

  test('has masks that need inputs alone stand before all other nodes, which makes the runtime run them late', () => {
    const rows = input('rows', 'float32', ['batch', 1]);
    const masked = (x: Tensor, n: number) =>
      matmul(mul(x, cast(lessOrEqual(mul(rows, constant(Float32Array.of(1, 2, 3, n), [4])), constant(2)), 'float32')), weight);
    const loss = reduceSum([1, 2, 3].reduce(masked, x), [0, 1]);
    const { ops } = parse({ loss, gradient: grad(loss, [weight])[0] }, { recompute: { forward: ['loss'], what: 'cheap' } });
    // each once more for the backward pass
    expect(ops.filter((op) => op === 'LessOrEqual')).toHaveLength(2 * 3);
    expect(ops.lastIndexOf('LessOrEqual')).toBeLessThan(ops.indexOf('MatMul'));
  });

  test('repeats everything between marks where it is told to', () => {
    const layer = (x: Tensor, w: Tensor) => hold(add(x, geluTanh(matmul(x, w))));
    const weights = [1, 2, 3].map((n) => input(`w${n}`, 'float32', [4, 4]));
    const loss = reduceSum(weights.reduce(layer, x), [0, 1]);
    const gradients = grad(loss, weights);
    const outputs = { loss, ...Object.fromEntries(gradients.map((gradient, n) => [`g${n}`, gradient])) };
    const count = (options?: LowerOptions) => parse(outputs, options).ops.filter((op) => op === 'Gelu' || op === 'MatMul').length;
    // the gelu of a layer is not needed behind it, but the product is
    expect(count({ recompute: { forward: ['loss'], what: 'all' } })).toBe(count() + 3);
    expect(count({ recompute: { forward: ['loss'], what: 'cheap' } })).toBe(count());
    // the slope of a gelu needs no gradient: it must not run before there is one
    const { ops } = parse(outputs, { recompute: { forward: ['loss'], what: 'all' } });
    expect(ops.filter((op) => op === 'Sigmoid')).toHaveLength(3);
    expect(ops.lastIndexOf('Sigmoid')).toBeLessThan(ops.indexOf('ReduceSum'));
    const plain = parse(outputs).ops;
    expect(plain.indexOf('Sigmoid')).toBeGreaterThan(plain.indexOf('ReduceSum'));
  });
});
