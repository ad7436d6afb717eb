import { describe, expect, test } from 'vitest';
import { float32, int32, type Value } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { input } from '../graph/tensor.ts';
import { initialize, Parameters } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import { dinov2, dinov2ConfigSchema, dinov2Norm } from './dinov2.ts';
import { compileGraph, type Graph, graphOf } from './programs.ts';
import { isOfHead, selfDistillationLoss, sinkhorn, teacherInput } from './self-distillation.ts';

const engine = createOrtEngine({ threads: 1 });
const config = dinov2ConfigSchema.parse({
  model_type: 'dinov2',
  hidden_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  image_size: 12,
  patch_size: 4,
});
const options = { head: { hidden: 10, bottleneck: 5, prototypes: 7 }, localSize: 8, studentTemperature: 0.1, teacherTemperature: 0.25 };
const scenes = 2;
const locals = 3 * scenes;
const slots = 2;
const patches = 9;

const random = createRandom(3, 'values');
const noise = (...dims: number[]) =>
  float32(
    Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => random.normal()),
    dims,
  );
const masked = Uint8Array.from({ length: 2 * scenes * patches }, (_, i) => Number(i % 4 === 1));
const maskedRows = [...masked.keys()].filter((row) => masked[row] === 1);
const inputs: Record<string, Value> = {
  global_pixels: noise(2 * scenes, 3, 12, 12),
  local_pixels: noise(locals, 3, 8, 8),
  masked: { dtype: 'bool', dims: [2 * scenes, patches], data: masked },
  masked_rows: int32(maskedRows, [maskedRows.length]),
  // the first scene has two drawings, the second one
  drawings: int32([0, 1, 2, 4, 5, 6], [6]),
  global_target: int32([3, 4, 5, 0, 1, 2], [6]),
  local_targets: int32([0, 2, 1, 2, 1, 2, 3, 5, 4, 5, 4, 5], [2, locals]),
  global_reading: noise(2 * scenes, slots, patches),
  teacher_reading: noise(2 * scenes, slots, patches),
  local_reading: noise(locals, 5),
  dino_scale: float32([1 / (6 + 2 * locals)], []),
  ibot_scale: float32([0.5 / maskedRows.length], []),
};

const { parameters, outputs } = selfDistillationLoss(config, options);
/** Large enough that every part of the loss matters. */
const valuesOf = (who: string) =>
  new Map<string, Value>(
    parameters.map(({ name, dims }) => {
      const data = initialize({ dims, initializer: { kind: 'normal', std: 0.4 } }, createRandom(1, who, name));
      return [name, float32(data, [...dims])];
    }),
  );
const student = valuesOf('student');
const teacher = valuesOf('teacher');
const teacherInputs = Object.fromEntries([...teacher].map(([name, value]) => [teacherInput(name), value]));

async function run<O extends string>(graph: Graph<string, O>, values: ReadonlyMap<string, Value>, given: Record<string, Value>) {
  const program = await compileGraph(engine, graph, values);
  const results = await program.run(given);
  await program.dispose();
  return results;
}

/** Rows of the encoder after its norm, [images][rows]: the encoder itself is tested in goldens. */
async function encode(values: ReadonlyMap<string, Value>, pixels: Value, mask?: Value): Promise<number[][][]> {
  const [images, , size] = pixels.dims;
  const graph = graphOf((p) => {
    const pixel_values = input('pixels', 'float32', [images, 3, size, size]);
    const masks = mask && input('mask', 'bool', mask.dims);
    const rows = dinov2Norm(p, config, dinov2(p, config, pixel_values, 2, masks).at(-1)!);
    return { inputs: { pixel_values } as Record<string, typeof pixel_values>, outputs: { rows } };
  });
  const { rows } = await run(graph, values, { pixels, ...(mask ? { mask } : {}) });
  const [, count, width] = rows.dims;
  const all = [...(rows.data as Float32Array)];
  const row = (i: number, r: number) => all.slice((i * count + r) * width, (i * count + r + 1) * width);
  return Array.from({ length: images }, (_, i) => Array.from({ length: count }, (_, r) => row(i, r)));
}

// === The loss in plain loops ===

const erf = (x: number) => {
  let term = x;
  let sum = x;
  for (let n = 1; n < 60; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
};
const gelu = (x: number) => (Math.abs(x) > 5 ? Math.max(x, 0) : (x * (1 + erf(x / Math.SQRT2))) / 2);
const unit = (v: readonly number[]) => v.map((x) => x / Math.hypot(...v));
const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, k) => sum + x * b[k], 0);

function cosines(values: ReadonlyMap<string, Value>, row: readonly number[]): number[] {
  const of = (name: string) => values.get(`dino_head.${name}`)!;
  const matrix = ({ data, dims: [rows, columns] }: Value) =>
    Array.from({ length: rows }, (_, r) => [...(data as Float32Array).subarray(r * columns, (r + 1) * columns)]);
  const linear = (name: string, x: readonly number[]) =>
    matrix(of(`${name}.weight`)).map((w, r) => dot(w, x) + (of(`${name}.bias`).data as Float32Array)[r]);
  const narrow = unit(linear('fc3', linear('fc2', linear('fc1', row).map(gelu)).map(gelu)));
  return matrix(of('last_layer.weight')).map((prototype) => dot(unit(prototype), narrow));
}

/**
 * Standardized columns, then Sinkhorn-Knopp as in SwAV's code: prototypes to 1/K, rows to 1/B, and at last
 * rows to 1.
 */
function assignments(rows: readonly (readonly number[])[], temperature: number): number[][] {
  const column = (q: readonly (readonly number[])[], k: number) => q.map((row) => row[k]);
  const moments = rows[0].map((_, k) => {
    const center = mean(column(rows, k));
    return { center, spread: Math.sqrt(mean(column(rows, k).map((x) => (x - center) ** 2))) };
  });
  let q = rows.map((row) => row.map((x, k) => Math.exp((x - moments[k].center) / moments[k].spread / temperature)));
  q = q.map((row) => row.map((x) => x / row.reduce((a, b) => a + b)));
  for (let i = 0; i < 3; i++) {
    const sums = q[0].map((_, k) => column(q, k).reduce((a, b) => a + b));
    q = q.map((row) => row.map((x, k) => x / sums[k] / row.length));
    q = q.map((row) => row.map((x) => x / row.reduce((a, b) => a + b) / q.length));
  }
  return q.map((row) => row.map((x) => x * q.length));
}

function crossEntropy(target: readonly number[], row: readonly number[]): number {
  const logits = row.map((x) => x / 0.1);
  const logSum = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
  return -target.reduce((sum, q, k) => sum + q * (logits[k] - logSum), 0);
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;

describe('the loss', () => {
  test('is that of plain loops', async () => {
    const taught = await encode(teacher, inputs.global_pixels);
    const whole = await encode(student, inputs.global_pixels, inputs.masked);
    const part = await encode(student, inputs.local_pixels);
    const say = (rows: number[][]) =>
      assignments(
        rows.map((row) => cosines(teacher, row)),
        0.25,
      );
    const sum = (rows: number[][], weights: Float32Array) =>
      rows[0].map((_, k) => rows.reduce((sum, row, r) => sum + weights[r] * row[k], 0));
    /** The drawing at place `place`, from the patches of its picture. */
    const drawing = (pictures: number[][][], { data }: Value, place: number) =>
      sum(pictures[Math.floor(place / slots)].slice(1), (data as Float32Array).subarray(place * patches, (place + 1) * patches));
    const places = [...(inputs.drawings.data as Int32Array)];
    const targets = say(places.map((place) => drawing(taught, inputs.teacher_reading, place)));
    const pairs = places.map((place, i) =>
      crossEntropy(targets[(i + 3) % 6], cosines(student, drawing(whole, inputs.global_reading, place))),
    );
    for (let local = 0; local < locals; local++)
      for (const target of [local, locals + local]) {
        const read = sum(part[local], (inputs.local_reading.data as Float32Array).subarray(local * 5, local * 5 + 5));
        pairs.push(crossEntropy(targets[(inputs.local_targets.data as Int32Array)[target]], cosines(student, read)));
      }
    const at = (all: number[][][], flat: number) => all[Math.floor(flat / patches)][1 + (flat % patches)];
    const patchTargets = say(maskedRows.map((row) => at(taught, row)));
    const ofPatches = maskedRows.map((row, i) => crossEntropy(patchTargets[i], cosines(student, at(whole, row))));

    const { loss, dino_loss, ibot_loss } = await run({ inputs: {}, outputs, parameters }, student, { ...inputs, ...teacherInputs });
    expect(dino_loss.data[0]).toBeCloseTo(mean(pairs), 4);
    expect(ibot_loss.data[0]).toBeCloseTo(0.5 * mean(ofPatches), 4);
    expect(loss.data[0]).toBeCloseTo(mean(pairs) + 0.5 * mean(ofPatches), 4);
  });

  test('has the parameters of the encoder and of the head, and none of the teacher', () => {
    const names = parameters.map(({ name }) => name);
    expect(names.filter(isOfHead).sort()).toEqual(
      ['fc1.bias', 'fc1.weight', 'fc2.bias', 'fc2.weight', 'fc3.bias', 'fc3.weight', 'last_layer.weight'].map(
        (name) => `dino_head.${name}`,
      ),
    );
    expect(names).toContain('embeddings.mask_token');
    expect(names.filter((name) => name.startsWith('teacher'))).toEqual([]);
  });
});

test('what is masked is not seen', async () => {
  const [first] = await encode(student, inputs.global_pixels, inputs.masked);
  const changed = (patch: number) => {
    const pixels = (inputs.global_pixels.data as Float32Array).slice();
    const [row, column] = [Math.floor(patch / 3), patch % 3];
    for (let y = 0; y < 4; y++) for (let x = 0; x < 4; x++) pixels[(row * 4 + y) * 12 + column * 4 + x] += 1;
    return float32(pixels, inputs.global_pixels.dims);
  };
  expect(masked[5]).toBe(1);
  expect((await encode(student, changed(5), inputs.masked))[0]).toEqual(first);
  expect(masked[4]).toBe(0);
  expect((await encode(student, changed(4), inputs.masked))[0]).not.toEqual(first);
});

test('a teacher shares the prototypes out evenly, however alike the rows are', async () => {
  const cosine = (row: number, prototype: number) => 0.9 * Number(prototype === 2) + 1e-3 * Math.sin(3 * row + prototype);
  const rows = Array.from({ length: 12 }, (_, row) => Array.from({ length: 4 }, (_, prototype) => cosine(row, prototype)));
  const x = input('x', 'float32', [12, 4]);
  const graph = { inputs: { x }, outputs: { shares: sinkhorn(x, 0.25) }, parameters: new Parameters().list() };
  const { shares } = await run(graph, new Map(), { x: float32(rows.flat(), [12, 4]) });
  const values = [...(shares.data as Float32Array)];
  const expected = assignments(rows, 0.25).flat();
  for (const [i, value] of values.entries()) expect(value).toBeCloseTo(expected[i], 4);
  for (let row = 0; row < 12; row++) expect(values.slice(4 * row, 4 * row + 4).reduce((a, b) => a + b)).toBeCloseTo(1, 5);
  // a softmax gives the third nearly everything, and to all rows alike
  expect(Math.max(...values.slice(0, 4))).toBeGreaterThan(0.5);
  for (let k = 0; k < 4; k++) {
    const share = values.filter((_, i) => i % 4 === k).reduce((a, b) => a + b);
    expect(share).toBeGreaterThan(1.5);
    expect(share).toBeLessThan(4.5);
  }
});
