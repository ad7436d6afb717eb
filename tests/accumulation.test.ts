// Accumulated batches train as one big batch would: every labelled token of an optimizer step weighs the
// same, in whatever batch it lies.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { beforeAll, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { readMetrics } from '../src/runs/metrics.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli, enterToyFolder, recipes } from './toy.ts';

/**
 * Without clipping, and with an epsilon beside which gradients are small: Adam's steps then have the size of
 * the gradient.
 */
const plain = { eps: 1, max_grad_norm: 0, log_every: 1 };

beforeAll(async () => {
  const leave = await enterToyFolder();
  // any two samples differ in the number of their labels, and so do the batches that they make
  const samples = await Promise.all(
    [1, 2, 4, 7, 12, 20, 33, 54].map(async (words, i) => {
      const image = `${i}.png`;
      await sharp({ create: { width: 32, height: 32, channels: 3, background: { r: 30 * i, g: 90, b: 255 - 30 * i } } }).toFile(image);
      const conversations = [
        { from: 'human', value: '<image>\nwhat is it?' },
        { from: 'gpt', value: Array.from({ length: words }, (_, k) => ['cat', 'red', 'apple', 'left'][(i + k) % 4]).join(' ') },
      ];
      return { id: `${i}`, image, conversations };
    }),
  );
  writeFileSync('mine.json', JSON.stringify(samples));
  const [, finetune] = recipes.llava.stages;
  const stage = { ...finetune, ...plain, data: { data_path: 'mine.json', image_folder: '.' } };
  writeFileSync('mine.yaml', stringify({ task: 'llava', model: recipes.llava.model, stages: [stage] }));
  writeFileSync('text.yaml', stringify({ ...recipes.gemma, stages: [{ ...recipes.gemma.stages[0], ...plain }] }));
  return leave;
}, 60_000);

/** Trains and returns the steps as they were logged. */
async function train(recipe: string, out: string, settings: Record<string, number>) {
  const words = Object.entries(settings).flatMap(([name, value]) => ['--set', `stages.0.${name}=${value}`]);
  const { code, stderr } = await cli('train', recipe, '--out', out, ...words);
  expect(code, stderr).toBe(0);
  return readMetrics(join(out, 'metrics.jsonl')).flatMap((event) => (event.type === 'step' ? [event] : []));
}

async function weights(out: string): Promise<Map<string, Float32Array>> {
  const file = await openSafetensors(join(out, 'checkpoints', 'finetune', 'model.safetensors'));
  const found = new Map<string, Float32Array>();
  for (const name of file.names) {
    const { data } = await file.read(name);
    found.set(name, new Float32Array(new Uint8Array(data).buffer));
  }
  await file.close();
  return found;
}

it('a LLaVA learns the same from four accumulated batches of two as from one of eight', async () => {
  const whole = await train('mine.yaml', 'whole', { steps: 4, batch_size: 8 });
  const halves = await train('mine.yaml', 'halves', { steps: 4, batch_size: 2, accumulation: 4 });
  expect(halves.map(({ step, epoch }) => ({ step, epoch }))).toEqual(whole.map(({ step, epoch }) => ({ step, epoch })));
  for (const [i, { loss, gradNorm }] of whole.entries()) {
    expect(halves[i].loss).toBeCloseTo(loss, 4);
    expect(halves[i].gradNorm / gradNorm).toBeCloseTo(1, 4);
  }
  // the rate is high and the gradients are not small: the weights move far more than what is allowed below
  expect(Math.min(...whole.map(({ gradNorm }) => gradNorm))).toBeGreaterThan(0.1);
  const [one, other] = [await weights('whole'), await weights('halves')];
  expect([...other.keys()]).toEqual([...one.keys()]);
  for (const [name, values] of one) {
    const apart = values.reduce((max, value, i) => Math.max(max, Math.abs(value - other.get(name)![i])), 0);
    expect(apart, name).toBeLessThan(1e-6);
  }
});

it('a language model has the loss of all its accumulated rows together', async () => {
  // text is made afresh for each batch, so there is no big batch of the same; at a rate of almost nothing two
  // steps see what one may
  const idle = { lr: 1e-12, weight_decay: 0 };
  const [first, second] = await train('text.yaml', 'apart', { ...idle, steps: 2 });
  const [both] = await train('text.yaml', 'together', { ...idle, steps: 1, accumulation: 2 });
  const losses = [first.loss, second.loss];
  expect(both.loss).toBeGreaterThanOrEqual(Math.min(...losses) - 1e-6);
  expect(both.loss).toBeLessThanOrEqual(Math.max(...losses) + 1e-6);
  expect(both.gradNorm).toBeLessThanOrEqual(Math.max(first.gradNorm, second.gradNorm) + 1e-6);
});
