// Maps against PyTorch: tiny LLaVAs over each language family and each encoder
// (tests/reference/make_relevancy.py), loaded through the ordinary checkpoint path and explained as users'
// models are.

import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { createOrtEngine } from '../src/engine/ort.ts';
import { createExplainer, type Explainer } from '../src/explain/explainer.ts';
import type { AnsweredQuestion } from '../src/explain/explanation.ts';
import { byPatch, rowsByPatch } from '../src/explain/maps.ts';
import { createGenerator } from '../src/generate/generator.ts';
import { imageProcessorConfig } from '../src/images/processor.ts';
import { llavaConfigSchema, llavaParameters } from '../src/models/llava.ts';
import { withCheckpoint } from '../src/pretrained/folder.ts';
import { readRunWeights } from '../src/pretrained/run-weights.ts';
import type { Tokenizer } from '../src/text/tokenizer.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';

const TOLERANCE = 1e-4;
const engine = createOrtEngine({ threads: 1 });
const folderOf = (name: string) => fileURLToPath(new URL(`./reference/goldens/${name}`, import.meta.url));

/** Tokens by their numbers: the goldens have ids alone. */
const numbers = { token: (id: number) => `▁${id}`, isSpecial: () => false, decode: (ids: readonly number[]) => ids.join(' ') };

async function readGolden(name: string, file: string) {
  const opened = await openSafetensors(`${folderOf(name)}/${file}.safetensors`);
  try {
    const read = new Map<string, { data: Float32Array; shape: readonly number[] }>();
    for (const tensor of opened.names) {
      const { dtype, shape, data } = await opened.read(tensor);
      const bytes = data.slice().buffer;
      read.set(tensor, { shape, data: dtype === 'I64' ? Float32Array.from(new BigInt64Array(bytes), Number) : new Float32Array(bytes) });
    }
    return (tensor: string) => read.get(tensor)!;
  } finally {
    await opened.close();
  }
}

const opened: Explainer[] = [];
afterAll(async () => {
  for (const explainer of opened) await explainer.dispose();
});

/** A golden's model with its question: the pictures' rows are our own. */
async function openGolden(name: string) {
  const inputs = await readGolden(name, 'inputs-maps');
  return withCheckpoint(folderOf(name), llavaConfigSchema, async (config, checkpoint) => {
    const weights = await readRunWeights(checkpoint, llavaParameters(config));
    const generator = await createGenerator(engine, config, weights.values);
    const model = { config, generator, processor: imageProcessorConfig.parse({}), tokenizer: numbers as unknown as Tokenizer };
    const explainer = await createExplainer(engine, model, weights);
    opened.push(explainer);
    const pixelValues = inputs('pixel_values').data;
    const question: AnsweredQuestion = {
      prompt: '',
      answer: '',
      promptIds: [...inputs('prompt').data],
      answerIds: [...inputs('answer').data],
      pixelValues,
      imageRows: await generator.imageRows(await generator.imageFeatures(pixelValues)),
    };
    return { config, explainer, question };
  });
}

/** Largest difference of each model's maps. */
const worstOf = new Map<string, number>();
afterAll(() => {
  for (const [name, worst] of worstOf) console.log(`${name}: worst absolute error ${worst.toExponential(1)}`);
});

function expectClose(label: string, actual: ArrayLike<number>, expected: ArrayLike<number>): void {
  expect(actual.length, label).toBe(expected.length);
  const worst = Array.from(actual).reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
  const [name] = label.split(/[,:]/);
  worstOf.set(name, Math.max(worst, worstOf.get(name) ?? 0));
  expect(worst, label).toBeLessThan(TOLERANCE);
}

describe('maps equal those of PyTorch', () => {
  test.each(['llava', 'llava-siglip-gemma2', 'llava-dinov2-gemma3'])('%s', async (name) => {
    const { config, explainer, question } = await openGolden(name);
    const golden = await readGolden(name, 'outputs-maps');
    const explanation = await explainer.maps(question, { lens: true });
    const { layout } = explanation;
    const [count, length] = golden('relevancy').shape;
    const { hidden_size: hidden, num_hidden_layers: layers, num_attention_heads: heads } = config.text_config;
    const { promptIds } = question;
    const places = promptIds.flatMap((id, place) => (id === config.image_token_index ? [place] : []));
    const textPlaces = promptIds.flatMap((id, place) => (id === config.image_token_index ? [] : [place]));
    const row = (tensor: string, i: number, size: number) => golden(tensor).data.subarray(i * size, (i + 1) * size);
    const atImage = (values: Float32Array) =>
      byPatch(
        Float32Array.from(places, (place) => values[place]),
        layout,
      );
    expect(explanation.tokens).toHaveLength(count);
    for (let t = 0; t < count; t++) {
      const relevancy = row('relevancy', t, length).slice();
      // the identity that equation (9) adds back
      relevancy[promptIds.length - 1 + t] -= 1;
      const label = `${name}, token ${t}`;
      expectClose(label, [explanation.tokens[t].logit], [golden('logits').data[t]]);
      expectClose(`${label}: relevancy`, explanation.maps.relevancy[t], atImage(relevancy));
      expectClose(
        `${label}: prompt`,
        explanation.onPrompt[t],
        Float32Array.from(textPlaces, (place) => relevancy[place]),
      );
      expectClose(`${label}: answer`, explanation.onAnswer[t], relevancy.slice(promptIds.length, promptIds.length + t));
      expectClose(`${label}: rollout`, explanation.maps.rollout[t], atImage(row('rollout', t, length)));
      const rows = golden('encoder').shape[1];
      expectClose(`${label}: encoder`, explanation.maps.encoder![t], rowsByPatch(row('encoder', t, rows), layout));
      for (let head = 0; head < layers * heads; head++) {
        const patches = layout.grid.rows * layout.grid.columns;
        const ours = explanation.heads.toPatches[t].subarray(head * patches, (head + 1) * patches);
        expectClose(`${label}: head ${head}`, ours, atImage(row('attention', t * layers * heads + head, length)));
      }
      const gradients = row('image_gradients', t, places.length * hidden);
      const products = Float32Array.from(places, (_, j) =>
        Math.abs(gradients.subarray(j * hidden, (j + 1) * hidden).reduce((sum, g, i) => sum + g * question.imageRows[j * hidden + i], 0)),
      );
      expectClose(`${label}: gradient x input`, explanation.maps.gradientInput[t], byPatch(products, layout));
      // relevancy is a share: what is not on the picture is on the prompt and the answer
      const rest = [...explanation.onPrompt[t], ...explanation.onAnswer[t]].reduce((sum, value) => sum + value, 0);
      expectClose(`${label}: shares`, [explanation.onImage[t] + rest], [1]);
    }
    for (let layer = 0; layer <= layers; layer++) {
      expectClose(`${name}: lens ${layer}`, explanation.lens![layer].probabilities, row('lens_probability', layer, places.length));
      const likeliest = [...row('lens_likeliest', layer, places.length)].map((id) => ` ${id}`);
      expect(explanation.lens![layer].texts).toEqual(likeliest);
    }
  });
});
