import { expect, test } from 'vitest';
import { float32, int32, type Value } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { input } from '../graph/tensor.ts';
import { initialize } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import { dinov2, dinov2ConfigSchema, dinov2Norm } from './dinov2.ts';
import { instanceLoss, isOfHead } from './instance-discrimination.ts';
import { compileGraph, type Graph, graphOf } from './programs.ts';

const engine = createOrtEngine({ threads: 1 });
const config = dinov2ConfigSchema.parse({
  model_type: 'dinov2',
  hidden_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  image_size: 12,
  patch_size: 4,
  use_mask_token: false,
});
const [instances, projection, patches, temperature] = [7, 5, 9, 0.2];

const random = createRandom(3, 'values');
const noise = (...dims: number[]) =>
  float32(
    Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => random.normal()),
    dims,
  );
// the first picture has two drawings, the second one, in its second place
const places = [0, 1, 3];
const labels = [4, 0, 6];
const inputs = {
  pixel_values: noise(2, 3, 12, 12),
  region_weights: noise(2, 2, patches),
  region_rows: int32(places, [3]),
  region_labels: int32(labels, [3]),
  region_scale: float32([1 / 3], []),
};

const graph = instanceLoss(config, { slots: 2, instances, projection, temperature });
/** Large enough that everything matters. */
const weights = new Map<string, Value>(
  graph.parameters.map(({ name, dims }) => [
    name,
    float32(initialize({ dims, initializer: { kind: 'normal', std: 0.4 } }, createRandom(1, name)), [...dims]),
  ]),
);

async function run<O extends string>(of: Graph<string, O>, given: Record<string, Value>) {
  const program = await compileGraph(engine, of, weights);
  const results = await program.run(given);
  await program.dispose();
  return results;
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => Array.from(a).reduce((sum, value, i) => sum + value * b[i], 0);
const rowOf = (data: Float32Array, width: number, i: number) => data.subarray(i * width, (i + 1) * width);

test('the loss is the cross entropy of cosines between drawings and instances', async () => {
  const encoder = graphOf((p) => {
    const pixel_values = input('pixel_values', 'float32', ['images', 3, 12, 12]);
    return { inputs: { pixel_values }, outputs: { rows: dinov2Norm(p, config, dinov2(p, config, pixel_values).at(-1)!) } };
  });
  const rows = (await run(encoder, { pixel_values: inputs.pixel_values })).rows.data as Float32Array;
  const numbers = (name: string) => weights.get(name)!.data as Float32Array;
  const losses = places.map((place, i) => {
    const [image, slot] = [Math.floor(place / 2), place % 2];
    const read = Array.from({ length: 8 }, (_, k) =>
      // the class token's row comes first, and is not read
      dot(
        rowOf(inputs.region_weights.data as Float32Array, patches, image * 2 + slot),
        Array.from({ length: patches }, (_, patch) => rows[(image * (1 + patches) + 1 + patch) * 8 + k]),
      ),
    );
    const embed = Array.from({ length: projection }, (_, j) => dot(read, rowOf(numbers('head.projection.weight'), 8, j)));
    const logits = Array.from({ length: instances }, (_, n) => {
      const known = rowOf(numbers('head.instances.weight'), projection, n);
      return dot(embed, known) / Math.sqrt(dot(embed, embed) * dot(known, known)) / temperature;
    });
    return Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0)) - logits[labels[i]];
  });
  const loss = Number((await run(graph, inputs)).loss.data[0]);
  expect(loss).toBeCloseTo(losses.reduce((a, b) => a + b) / 3, 4);
});

test('the head is told from the encoder, which is all that a DINOv2 without a mask token has', () => {
  expect(graph.parameters.filter(({ name }) => isOfHead(name)).map(({ name }) => name)).toEqual([
    'head.projection.weight',
    'head.instances.weight',
  ]);
  const encoder = graph.parameters.map(({ name }) => name).filter((name) => !isOfHead(name));
  expect(encoder).toContain('layernorm.weight');
  expect(encoder).not.toContain('embeddings.mask_token');
});
