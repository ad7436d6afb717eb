// Cases of every op: random shapes (broadcast, batched, size 1, named) for an engine to be compared with
// float64 loops, and every gradient rule with central differences.

import fc from 'fast-check';
import { expect } from 'vitest';
import { type Engine, float32, int32, type Value } from '../src/engine/engine.ts';
import { createReferenceEngine } from '../src/engine/reference.ts';
import { evaluateReference, type ReferenceValue } from '../src/engine/reference-ops.ts';
import * as c from '../src/graph/composites.ts';
import { type Dim, dimProduct } from '../src/graph/dims.ts';
import { grad } from '../src/graph/grad.ts';
import * as p from '../src/graph/primitives.ts';
import { type Composite, constant, input, type Leaves, numbersOf, type Primitive, type Tensor, typedData } from '../src/graph/tensor.ts';
import { adamW, adamW8bit, squaredNorm } from '../src/graph/updates.ts';
import { createRandom, type Random } from '../src/random.ts';

// === Cases ===

/** A size and, where the axis is named in the graph, its name. */
interface Axis {
  size: number;
  name?: string;
}

interface Operand {
  axes: readonly Axis[];
  value: Value;
  /** Whether the gradient with respect to it is checked. */
  gradient: boolean;
}

export interface Case {
  label: string;
  operands: Operand[];
  build(inputs: Tensor[]): Tensor;
}

const sizes = (axes: readonly Axis[]) => axes.map((axis) => axis.size);
const count = (axes: readonly Axis[]) => sizes(axes).reduce((a, b) => a * b, 1);

function floats(random: Random, axes: readonly Axis[], low = -2, high = 2): Operand {
  const data = Float32Array.from({ length: count(axes) }, () => low + (high - low) * random.uniform());
  return { axes, value: float32(data, sizes(axes)), gradient: true };
}

function integers(random: Random, axes: readonly Axis[], below: number): Operand {
  const data = Int32Array.from({ length: count(axes) }, () => random.integer(below));
  return { axes, value: int32(data, sizes(axes)), gradient: false };
}

function bools(random: Random, axes: readonly Axis[]): Operand {
  const data = Uint8Array.from({ length: count(axes) }, () => random.integer(2));
  return { axes, value: { dtype: 'bool', dims: sizes(axes), data }, gradient: false };
}

export const fixed = (operand: Operand): Operand => ({ ...operand, gradient: false });

const AXIS_NAMES = ['batch', 'tokens', 'rows', 'columns'];
const size = fc.integer({ min: 1, max: 4 });
const axisAt = (i: number) =>
  fc.record({ size, named: fc.boolean() }).map(({ size, named }): Axis => (named ? { size, name: AXIS_NAMES[i] } : { size }));
const shape = (minRank: number, maxRank: number): fc.Arbitrary<Axis[]> =>
  fc.integer({ min: minRank, max: maxRank }).chain((rank) => fc.tuple(...Array.from({ length: rank }, (_, i) => axisAt(i))));
const plain = (axes: readonly Axis[], at: number): Axis[] => axes.map((axis, i) => (i === at ? { size: axis.size } : axis));

/** A shape that broadcasts to `axes`: leading axes are dropped, others set to 1. */
function narrowed(random: Random, axes: readonly Axis[]): Axis[] {
  const dropped = random.integer(4) === 0 ? random.integer(axes.length + 1) : 0;
  return axes.slice(dropped).map((axis) => (random.integer(4) === 0 ? { size: 1 } : axis));
}

/** Data and remaining choices of a case come from one seed; the shape shrinks by itself. */
const withShape = (minRank: number, maxRank: number, make: (axes: Axis[], random: Random) => Case): fc.Arbitrary<Case> =>
  fc.tuple(shape(minRank, maxRank), fc.nat()).map(([axes, seed]) => make(axes, createRandom(seed)));

const unary = (op: (x: Tensor) => Tensor, low = -2, high = 2) =>
  withShape(0, 4, (axes, random) => ({ label: 'unary', operands: [floats(random, axes, low, high)], build: ([x]) => op(x) }));

const binary = (op: (a: p.Operand, b: p.Operand) => Tensor, options: { low?: number; high?: number; integer?: boolean } = {}) =>
  withShape(0, 4, (axes, random) => {
    const kind = random.integer(options.integer ? 4 : 3);
    if (kind === 3) {
      const operands = [integers(random, axes, 9), integers(random, narrowed(random, axes), 9)];
      return { label: 'int32', operands, build: ([a, b]) => op(a, b) };
    }
    const left = floats(random, narrowed(random, axes), options.low, options.high);
    if (kind === 2) return { label: 'scalar', operands: [left], build: ([a]) => (random.integer(2) ? op(a, 1.5) : op(1.5, a)) };
    return {
      label: 'pair',
      operands: [left, floats(random, narrowed(random, axes), options.low, options.high)],
      build: ([a, b]) => op(a, b),
    };
  });

const comparison = (op: (a: p.Operand, b: p.Operand) => Tensor) =>
  withShape(0, 4, (axes, random) => {
    const first = integers(random, axes, 3);
    const second = integers(random, narrowed(random, axes), 3);
    if (random.integer(2)) return { label: 'int32', operands: [first, second], build: ([a, b]) => op(a, b) };
    const asFloat = ({ axes, value }: Operand) => ({
      axes,
      value: float32(Float32Array.from(value.data as Int32Array), value.dims),
      gradient: false,
    });
    return { label: 'float32', operands: [asFloat(first), asFloat(second)], build: ([a, b]) => op(a, b) };
  });

const logic = (op: (a: p.Operand, b: p.Operand) => Tensor) =>
  withShape(0, 4, (axes, random) => ({
    label: 'bool',
    operands: [bools(random, axes), bools(random, narrowed(random, axes))],
    build: ([a, b]) => op(a, b),
  }));

const reduction = (op: typeof p.reduceSum, gradient: (axes: readonly Axis[]) => boolean) =>
  withShape(1, 4, (axes, random) => {
    const chosen = axes.map((_, i) => i).filter(() => random.integer(2));
    const reduced = chosen.length > 0 ? chosen : [axes.length - 1];
    const signed = reduced.map((axis) => (random.integer(2) ? axis : axis - axes.length));
    const keepDims = random.integer(2) === 1;
    const x = floats(random, axes);
    return {
      label: `axes ${signed} keep ${keepDims}`,
      operands: [{ ...x, gradient: gradient(reduced.map((axis) => axes[axis])) }],
      build: ([t]) => op(t, signed, keepDims),
    };
  });

const rowsOp = (op: (x: Tensor, weights: Tensor[]) => Tensor, weights: number) =>
  withShape(1, 4, (shape, random) => {
    const axes = plain(shape, shape.length - 1);
    const last = axes.slice(-1);
    return {
      label: 'rows',
      operands: [floats(random, axes), ...Array.from({ length: weights }, () => floats(random, last))],
      build: ([x, ...rest]) => op(x, rest),
    };
  });

/** A mask with at least one true entry, and the number of them. */
function filledMask(random: Random, axes: readonly Axis[]): [Operand, number] {
  const mask = bools(random, axes);
  mask.value.data[0] = 1;
  return [mask, (mask.value.data as Uint8Array).reduce((a, b) => a + b, 0)];
}

/** An op of rows [rows, n] and very many classes [classes, n], here few. */
const classes = (label: string, of: (h: Tensor, w: Tensor, numbers: Tensor, options: c.CappedOptions) => Tensor) =>
  withShape(1, 1, ([rows], random) => {
    const count = { size: 2 + random.integer(5) };
    const width = { size: 1 + random.integer(5) };
    const options = random.pick([{}, { scale: 0.5 }, { scale: 0.5, softcap: 0.875 }]);
    const operands = [
      floats(random, [rows, width]),
      floats(random, [count, width]),
      { ...floats(random, [rows]), gradient: label === 'classGradient' },
    ];
    return { label, operands, build: ([h, w, numbers]) => of(h, w, numbers, options) };
  });

export const CASES: Record<keyof Leaves | Primitive | Composite, fc.Arbitrary<Case>> = {
  input: unary((x) => x),
  constant: withShape(0, 3, (axes, random) => {
    const fixedAxes = axes.map(({ size }) => ({ size }));
    const value = floats(random, fixedAxes).value;
    return {
      label: 'constant',
      operands: [floats(random, fixedAxes)],
      build: ([x]) => p.add(x, constant(typedData(value.data as Float32Array, x.dtype), value.dims, x.dtype)),
    };
  }),
  add: binary(p.add, { integer: true }),
  sub: binary(p.sub, { integer: true }),
  mul: binary(p.mul, { integer: true }),
  div: binary(p.div, { low: 0.5 }),
  maximum: binary(p.maximum, { integer: true }),
  neg: unary(p.neg),
  exp: unary(p.exp),
  log: unary(p.log, 0.3, 4),
  sqrt: unary(p.sqrt, 0.3, 4),
  tanh: unary(p.tanh),
  sigmoid: unary(p.sigmoid, -6, 6),
  erf: unary(p.erf, -4, 4),
  stopGradient: withShape(0, 4, (axes, random) => ({
    label: 'forward',
    operands: [fixed(floats(random, axes))],
    build: ([x]) => p.stopGradient(x),
  })),
  hold: unary(p.hold),
  equal: comparison(p.equal),
  greater: comparison(p.greater),
  lessOrEqual: comparison(p.lessOrEqual),
  and: logic(p.logicalAnd),
  or: logic(p.logicalOr),
  cast: withShape(0, 4, (axes, random) => {
    const from = random.pick([floats(random, axes, -5, 5), integers(random, axes, 3), bools(random, axes)]);
    const to = random.pick(['float32', 'int32', 'bool', 'float16', 'bfloat16'] as const);
    const back = (y: Tensor) => (to === 'float16' || to === 'bfloat16' ? p.cast(y, 'float32') : y);
    return { label: `${from.value.dtype} to ${to}`, operands: [fixed(from)], build: ([x]) => back(p.cast(x, to)) };
  }),
  where: withShape(0, 4, (axes, random) => {
    const operands = [bools(random, narrowed(random, axes)), floats(random, narrowed(random, axes))];
    if (random.integer(2)) return { label: 'scalar', operands, build: ([m, a]) => p.where(m, a, -3) };
    return { label: 'pair', operands: [...operands, floats(random, narrowed(random, axes))], build: ([m, a, b]) => p.where(m, a, b) };
  }),
  matmul: withShape(2, 4, (shape, random) => {
    const batch = shape.slice(2);
    const [m, n] = shape;
    const k: Axis = { size: 1 + random.integer(5) };
    const [transA, transB] = [random.integer(2) === 1, random.integer(2) === 1];
    const alpha = random.pick([1, 0.5, -2]);
    const a = floats(random, [...narrowed(random, batch), ...(transA ? [k, m] : [m, k])]);
    const b = floats(random, [...(random.integer(2) ? [] : narrowed(random, batch)), ...(transB ? [n, k] : [k, n])]);
    const operands = [a, b];
    return { label: `${transA} ${transB} ${alpha}`, operands, build: ([x, y]) => p.matmul(x, y, { transA, transB, alpha }) };
  }),
  reshape: withShape(1, 4, (axes, random) => {
    const at = random.integer(axes.length);
    const target = random.pick<(x: Tensor) => Dim[]>([
      (x) => [dimProduct(x.dims)],
      (x) => [dimProduct(x.dims.slice(0, at)), ...x.dims.slice(at)],
      (x) => [...x.dims.slice(0, at), dimProduct(x.dims.slice(at))],
      (x) => [...x.dims.slice(0, at), 1, ...x.dims.slice(at)],
      (x) => [...x.dims].reverse(),
    ]);
    return { label: 'reshape', operands: [floats(random, axes)], build: ([x]) => p.reshape(x, target(x)) };
  }),
  transpose: withShape(0, 4, (axes, random) => {
    const perm = random.shuffle(axes.map((_, i) => i));
    return { label: `${perm}`, operands: [floats(random, axes)], build: ([x]) => p.transpose(x, perm) };
  }),
  concat: withShape(1, 4, (axes, random) => {
    const axis = random.integer(axes.length);
    const named = axes[axis].name !== undefined;
    const signed = random.integer(2) ? axis : axis - axes.length;
    // along a named axis: the past and the new tokens of a cache; along a plain one any number of parts
    const parts = Array.from({ length: 1 + random.integer(3) }, (_, part) =>
      axes.map((a, i) => (i !== axis ? a : named ? { size: 1 + random.integer(3), name: `part${part}` } : { size: 1 + random.integer(3) })),
    );
    const operands = parts.map((part) => ({ ...floats(random, part), gradient: !named }));
    return { label: `axis ${signed}`, operands, build: (inputs) => p.concat(inputs, signed) };
  }),
  slice: withShape(1, 4, (axes, random) => {
    const axis = random.integer(axes.length);
    const named = axes[axis].name !== undefined;
    const start = random.integer(axes[axis].size);
    const end = start + 1 + random.integer(axes[axis].size - start);
    const signed = random.integer(2) ? axis : axis - axes.length;
    const operands = [{ ...floats(random, axes), gradient: !named }];
    return { label: `${signed} ${start} ${end}`, operands, build: ([x]) => p.slice(x, signed, start, end) };
  }),
  pad: withShape(1, 4, (axes, random) => {
    const axis = random.integer(axes.length);
    const signed = random.integer(2) ? axis : axis - axes.length;
    const [before, after] = [random.integer(3), random.integer(3)];
    const operands = [{ ...floats(random, axes), gradient: axes[axis].name === undefined }];
    return { label: `${signed} ${before} ${after}`, operands, build: ([x]) => p.pad(x, signed, before, after) };
  }),
  expand: withShape(0, 4, (axes, random) => ({
    label: 'expand',
    operands: [floats(random, narrowed(random, axes)), floats(random, axes)],
    build: ([x, like]) => p.mul(p.expand(x, like.dims), like),
  })),
  reduceSum: reduction(p.reduceSum, () => true),
  reduceMean: reduction(p.reduceMean, (axes) => axes.every((axis) => axis.name === undefined)),
  reduceMax: reduction(p.reduceMax, () => false),
  softmax: withShape(1, 4, (axes, random) => ({ label: 'softmax', operands: [floats(random, axes, -5, 5)], build: ([x]) => p.softmax(x) })),
  argmax: withShape(1, 4, (axes, random) => {
    // integers, so that some are equal
    const whole = integers(random, axes, 3);
    const value = float32(Float32Array.from(whole.value.data as Int32Array), whole.value.dims);
    return { label: 'argmax', operands: [{ ...whole, value }], build: ([x]) => p.argmax(x) };
  }),
  gather: withShape(1, 4, (axes, random) => {
    const split = random.integer(Math.min(axes.length, 3));
    const data = [{ size: 1 + random.integer(5) }, ...axes.slice(split).map(({ size }) => ({ size }))];
    const operands = [floats(random, data), integers(random, axes.slice(0, split), data[0].size)];
    return { label: 'gather', operands, build: ([x, indices]) => p.gather(x, indices) };
  }),
  dequantize: fc.nat().map((seed) => {
    const random = createRandom(seed);
    const bits = random.pick([4, 8] as const);
    const blockSize = random.pick([16, 32, 64]);
    const [rows, blocks, others] = [1 + random.integer(6), 1 + random.integer(3), 1 + random.integer(4)];
    const columns = blocks * blockSize;
    const bytes = [rows, (columns * bits) / 8];
    const data = Uint8Array.from({ length: bytes[0] * bytes[1] }, () => random.integer(256));
    const packed = { axes: bytes.map((size) => ({ size })), value: { dtype: 'uint8', dims: bytes, data }, gradient: false } as const;
    const scale = fixed(floats(random, [{ size: rows }, { size: blocks }], -0.1, 0.1));
    const matrix = (inputs: Tensor[]) => p.dequantize(inputs[0], inputs[1], { bits, blockSize });
    const rest = random.integer(4);
    if (rest === 0) return { label: 'alone', operands: [packed, scale], build: matrix };
    if (rest === 1) {
      const indices = integers(random, [{ size: others, name: 'tokens' }], rows);
      return { label: 'gather', operands: [packed, scale, indices], build: (inputs) => p.gather(matrix(inputs), inputs[2]) };
    }
    // integers, the largest of each block being 127: rounding x to 8 bits changes nothing, so that the
    // kernels can be compared with float64
    const x = integers(random, [{ size: others, name: 'batch' }, { size: rest }, { size: columns }], 255);
    const left = {
      ...x,
      value: float32(
        Float32Array.from(x.value.data as Int32Array, (v, i) => (i % blockSize === 0 ? 127 : v - 127)),
        x.value.dims,
      ),
    };
    const alpha = random.pick([1, 0.5]);
    return {
      label: 'matmul',
      operands: [packed, scale, left],
      build: (inputs) => p.matmul(inputs[2], matrix(inputs), { transB: true, alpha }),
    };
  }),
  scatterAdd: withShape(1, 4, (axes, random) => {
    const split = 1 + random.integer(axes.length);
    const rows = 1 + random.integer(4);
    const row = axes.slice(split).map(({ size }) => ({ size }));
    const indexAxes = axes.slice(0, split);
    const operands = [integers(random, indexAxes, rows), floats(random, [...indexAxes, ...row])];
    return { label: 'scatterAdd', operands, build: ([indices, updates]) => p.scatterAdd(indices, updates, [rows, ...sizes(row)]) };
  }),
  takeLast: withShape(1, 4, (axes, random) => {
    const axis = random.integer(axes.length);
    const count = fixed({ axes: [], value: int32([random.integer(axes[axis].size + 1)], []), gradient: false });
    return {
      label: 'takeLast',
      operands: [fixed(floats(random, axes)), count],
      build: ([x, count]) => p.takeLast(x, axis, count, 'kept'),
    };
  }),
  cumsum: withShape(1, 3, (axes, random) => ({
    label: 'cumsum',
    operands: [integers(random, axes, 9)],
    build: ([x]) => p.cumsum(x),
  })),
  takeAlong: withShape(1, 4, (axes, random) => ({
    label: 'takeAlong',
    operands: [floats(random, axes), integers(random, axes.slice(0, -1), axes.at(-1)!.size)],
    build: ([x, indices]) => p.takeAlong(x, indices),
  })),
  putAlong: withShape(0, 3, (axes, random) => {
    const width = 1 + random.integer(4);
    const operands = [integers(random, axes, width), floats(random, axes)];
    return { label: 'putAlong', operands, build: ([indices, values]) => p.putAlong(indices, values, width) };
  }),
  maskedScatter: withShape(2, 4, (shape, random) => {
    const axes = plain(shape, shape.length - 1);
    const [mask, rows] = filledMask(random, axes.slice(0, -1));
    const operands = [floats(random, axes), mask, floats(random, [{ size: rows, name: 'images' }, axes.at(-1)!])];
    return { label: 'maskedScatter', operands, build: ([x, m, r]) => p.maskedScatter(x, m, r) };
  }),
  maskedGather: withShape(2, 4, (shape, random) => {
    const axes = plain(shape, shape.length - 1);
    const [mask, rows] = filledMask(random, axes.slice(0, -1));
    return { label: 'maskedGather', operands: [floats(random, axes), mask], build: ([x, m]) => p.maskedGather(x, m, rows) };
  }),
  rotary: withShape(3, 3, ([batch, tokens, heads], random) => {
    const half = { size: 1 + random.integer(4) };
    const positions = { size: 5 };
    const operands = [
      floats(random, [batch, { size: heads.size }, tokens, { size: 2 * half.size }]),
      integers(random, [batch, tokens], positions.size),
      fixed(floats(random, [positions, half])),
      fixed(floats(random, [positions, half])),
    ];
    return { label: 'rotary', operands, build: ([x, at, cos, sin]) => p.rotary(x, at, cos, sin) };
  }),
  rmsNorm: rowsOp((x, [weight]) => c.rmsNorm(x, weight, 1e-2), 1),
  layerNorm: rowsOp((x, [weight, bias]) => c.layerNorm(x, weight, bias, 1e-1), 2),
  geluTanh: unary(c.geluTanh, -5, 5),
  geluErf: unary(c.geluErf, -5, 5),
  quickGelu: unary(c.quickGelu, -5, 5),
  attention: withShape(3, 3, ([batch, tokens, keys], random) => {
    const kvHeads = { size: 1 + random.integer(2) };
    const heads = { size: kvHeads.size * (1 + random.integer(3)) };
    const [headDim, valueDim] = [{ size: 1 + random.integer(4) }, { size: 1 + random.integer(4) }];
    const scores = [batch, heads, tokens, keys];
    const operands = [
      floats(random, [batch, heads, tokens, headDim]),
      floats(random, [batch, kvHeads, keys, headDim]),
      floats(random, [batch, kvHeads, keys, valueDim]),
      ...(random.integer(2)
        ? [
            fixed(
              floats(
                random,
                scores.map((axis) => (random.integer(2) ? { size: 1 } : axis)),
              ),
            ),
          ]
        : []),
    ];
    return { label: 'attention', operands, build: ([q, k, v, bias]) => c.attention(q, k, v, { scale: 0.7, bias }) };
  }),
  linearCrossEntropy: withShape(1, 1, ([rows], random) => {
    const classes = { size: 2 + random.integer(5) };
    const width = { size: 1 + random.integer(5) };
    const scale = random.pick([1, 0.5]);
    const operands = [floats(random, [rows, width]), floats(random, [classes, width]), integers(random, [rows], classes.size)];
    return { label: 'linearCrossEntropy', operands, build: ([h, w, l]) => c.linearCrossEntropy(h, w, l, { scale }) };
  }),
  linearLogSumExp: classes('linearLogSumExp', (h, w, _, options) => c.linearLogSumExp(h, w, options)),
  classMean: classes('classMean', (h, w, _, options) => c.classMean(h, w, options)),
  classGradient: classes('classGradient', (h, w, numbers, options) => {
    return c.classGradient(h, w, { logSumExp: c.linearLogSumExp(h, w, options), factors: numbers }, options);
  }),
  squaredNorm: unary(squaredNorm),
  adamW: withShape(0, 3, (axes, random) => {
    const part = random.pick(['parameter', 'expAvg', 'expAvgSq', 'change'] as const);
    const scalars = ['clip', 'keep', 'rate', 'rootScale'].map(() => floats(random, [], 0.1, 1));
    const operands = [floats(random, axes), floats(random, axes), floats(random, axes), floats(random, axes, 0.1, 2), ...scalars];
    return {
      label: `adamW ${part}`,
      // inputs that one of the results does not depend on have no gradient to check
      operands: operands.map((operand, i) => ({ ...operand, gradient: i === 1 })),
      build: ([parameter, gradient, expAvg, expAvgSq, clip, keep, rate, rootScale]) =>
        adamW({ parameter, gradient, expAvg, expAvgSq }, { clip, keep, rate, rootScale }, { beta1: 0.6, beta2: 0.8, eps: 1e-2 })[part],
    };
  }),
  // the codes themselves, which rounding moves, are looked at in src/engine/state.test.ts
  adamW8bit: withShape(0, 3, (named, random) => {
    const axes = named.map(({ size }) => ({ size }));
    const part = random.pick(['parameter', 'expAvgAbsmax', 'expAvgSqAbsmax', 'change'] as const);
    const scalars = ['clip', 'keep', 'rate', 'rootScale'].map(() => floats(random, [], 0.1, 1));
    const [codes, absmax] = [() => integers(random, axes, 256), () => floats(random, [{ size: 1 }], 0.1, 2)];
    const operands = [floats(random, axes), floats(random, axes), codes(), absmax(), codes(), absmax(), ...scalars];
    return {
      label: `adamW8bit ${part}`,
      operands: operands.map((operand, i) => ({ ...operand, gradient: i === 1 && part !== 'expAvgAbsmax' && part !== 'expAvgSqAbsmax' })),
      build: ([parameter, gradient, mean, expAvgAbsmax, square, expAvgSqAbsmax, clip, keep, rate, rootScale]) => {
        const [expAvg, expAvgSq] = [p.cast(mean, 'uint8'), p.cast(square, 'uint8')];
        const tensors = { parameter, gradient, expAvg, expAvgAbsmax, expAvgSq, expAvgSqAbsmax };
        return adamW8bit(tensors, { clip, keep, rate, rootScale }, { beta1: 0.6, beta2: 0.8, eps: 1e-2 })[part];
      },
    };
  }),
};

// === Checks ===

/** Many, because making a session costs more than running it. */
export const CASES_PER_PROGRAM = 12;

const reference = createReferenceEngine();

const widenAll = (values: Record<string, Value>): Record<string, ReferenceValue> =>
  Object.fromEntries(
    Object.entries(values).map(([name, { dims, data, dtype }]) => [name, { dims: [...dims], data: numbersOf(data, dtype) }]),
  );

interface Built {
  outputs: Record<string, Tensor>;
  values: Record<string, Value>;
  /** Called with float64 results of `outputs`. */
  check(results: Record<string, ReferenceValue>): void;
}

/**
 * A case as named outputs: the result and the gradient of a random weighted sum of it, everything named by
 * `id`. Gradients are checked in float32 only: finite differences of rounded values mean nothing.
 */
export function buildCase(id: number, { operands, build, label }: Case, checked = true): Built {
  const values: Record<string, Value> = {};
  const inputs = operands.map(({ axes, value }, i) => {
    values[`x${id}_${i}`] = value;
    return input(
      `x${id}_${i}`,
      value.dtype,
      axes.map(({ size, name }) => (name ? `${name}${id}` : size)),
    );
  });
  const y = build(inputs);
  const outputs: Record<string, Tensor> = { [`y${id}`]: y };
  const wrt = operands.map((operand, i) => (operand.gradient ? i : -1)).filter((i) => i >= 0);
  if (y.dtype !== 'float32' || wrt.length === 0) return { outputs, values, check: () => {} };

  const forward = (at: Record<string, ReferenceValue>) => evaluateReference({ y }, at).y;
  const point = widenAll(values);
  const result = forward(point);
  const random = createRandom(id, label);
  const weights = Float32Array.from(result.data, () => random.normal());
  values[`w${id}`] = float32(weights, result.dims);
  const product = p.mul(y, input(`w${id}`, 'float32', y.dims));
  const loss =
    product.dims.length > 0
      ? p.reduceSum(
          product,
          product.dims.map((_, i) => i),
        )
      : product;
  grad(
    loss,
    wrt.map((i) => inputs[i]),
  ).forEach((gradient, j) => {
    expect(gradient.dims).toEqual(inputs[wrt[j]].dims);
    outputs[`g${id}_${wrt[j]}`] = gradient;
  });

  return {
    outputs,
    values,
    check(results) {
      if (!checked) return;
      const lossAt = (at: Record<string, ReferenceValue>) => forward(at).data.reduce((sum, v, i) => sum + v * weights[i], 0);
      const step = 2e-5;
      for (const i of wrt) {
        const name = `x${id}_${i}`;
        const gradient = results[`g${id}_${i}`].data;
        const direction = Float64Array.from(gradient, () => random.normal());
        const moved = (sign: number) => ({
          ...point,
          [name]: { dims: point[name].dims, data: point[name].data.map((v, j) => v + sign * step * direction[j]) },
        });
        const numeric = (lossAt(moved(1)) - lossAt(moved(-1))) / (2 * step);
        const analytic = gradient.reduce((sum, g, j) => sum + g * direction[j], 0);
        const scale = gradient.reduce((sum, g, j) => sum + Math.abs(g * direction[j]), 1e-2);
        expect(Math.abs(numeric - analytic) / scale, `gradient ${i}: ${analytic}, by differences ${numeric}`).toBeLessThan(1e-6);
      }
    },
  };
}

function expectClose(name: string, actual: Value, expected: Value, tolerance: number) {
  expect({ name, dtype: actual.dtype, dims: [...actual.dims] }).toEqual({ name, dtype: expected.dtype, dims: [...expected.dims] });
  if (expected.dtype !== 'float32') {
    expect(actual.data, name).toEqual(expected.data);
    return;
  }
  const data = expected.data as Float32Array;
  const scale = data.reduce((max, v) => Math.max(max, Math.abs(v)), 1);
  data.forEach((v, i) => {
    const error = Math.abs((actual.data as Float32Array)[i] - v);
    if (!(error <= tolerance * scale)) expect.fail(`${name}[${i}] is ${actual.data[i]}, expected ${v}`);
  });
}

/** Runs cases in one program on `engine`; all results must be those of float64 within `tolerance`. */
export async function checkCases(engine: Engine, cases: Case[], { tolerance = 1e-5, checked = true } = {}): Promise<void> {
  const built = cases.map((one, id) => buildCase(id, one, checked));
  const outputs = Object.assign({}, ...built.map((b) => b.outputs)) as Record<string, Tensor>;
  const values = Object.assign({}, ...built.map((b) => b.values)) as Record<string, Value>;
  const exact = evaluateReference(outputs, widenAll(values));
  for (const { check } of built) check(exact);

  const program = await engine.compile(outputs);
  const oracle = await reference.compile(outputs);
  const [actual, expected] = [await program.run(values), await oracle.run(values)];
  await program.dispose();
  for (const name of Object.keys(outputs)) expectClose(name, actual[name], expected[name], tolerance);
}

/** The same case in 16 bits: its floats are rounded, cast on the way in, and cast back on the way out. */
export function inHalf({ label, operands, build }: Case, dtype: 'float16' | 'bfloat16'): Case {
  const half = (x: Tensor) => (x.dtype === 'float32' ? p.cast(x, dtype) : x);
  const rounded = (value: Value): Value => {
    if (value.dtype !== 'float32') return value;
    const numbers = numbersOf(typedData(value.data as Float32Array, dtype), dtype);
    return float32(Float32Array.from(numbers), value.dims);
  };
  return {
    label,
    operands: operands.map((operand) => ({ ...operand, value: rounded(operand.value) })),
    build(inputs) {
      const y = build(inputs.map(half));
      return y.dtype === dtype ? p.cast(y, 'float32') : y;
    },
  };
}

/** Programs of many cases; on failure, fast-check drops all but the failing one. */
export const batchOf = (cases: fc.Arbitrary<Case>) => fc.array(cases, { minLength: 1, maxLength: CASES_PER_PROGRAM, size: 'max' });
