// What quantized weights cost in quality: perplexity of the expected answers and how many greedy answers stay
// the same, compared with the same model in float32, on held-out scenes.

import type { Command } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { buildEmojiDataset } from '../src/data/emoji/build.ts';
import { float32, int32 } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { answerQuestions } from '../src/evaluate/evaluate.ts';
import { type Question, readQuestions } from '../src/evaluate/questions.ts';
import { forward } from '../src/generate/forward.ts';
import { imageSize, imageTokenCount } from '../src/models/llava.ts';
import { bundledModel } from '../src/paths.ts';
import { forwardModelOf, openModel } from '../src/pretrained/folder.ts';
import { type LoadedModel, loadModel } from '../src/pretrained/load.ts';
import { pixelValuesOf } from '../src/pretrained/processor.ts';
import { readRunWeights, runStorageOf } from '../src/pretrained/run-weights.ts';
import { encodeConversation, ignoreIndex } from '../src/text/labels.ts';
import { type Quantization, quantizations } from '../src/weights/quantize.ts';

interface Options {
  model: string;
  scenes: number;
  json?: boolean;
}

export function register(program: Command): void {
  program
    .command('quantize')
    .description('perplexity and answers of a model on weights of 4 and 8 bits, against float32')
    .option('--model <folder>', 'a LLaVA trained on the emoji scenes, not quantized', bundledModel)
    .option('--scenes <n>', 'scenes of each held-out split', parseCount, 200)
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .action(benchQuantize);
}

interface Quality {
  perplexity: number;
  /** Share of answers identical to those of float32. */
  agreement: number;
  accuracy: number;
}

async function benchQuantize({ model: dir, scenes, json }: Options): Promise<void> {
  const splits = ['unseen-scenes', 'unseen-artist'] as const;
  const dataset = await buildEmojiDataset({ seed: 42, out: '.cache/emoji-quantize', trainScenes: 0, splits, evaluationScenes: scenes });
  const questions: Question[] = [];
  for (const split of splits) questions.push(...(await readQuestions(dataset.evaluation[split], dataset.imageFolder, split)));
  const results: Record<string, Quality> = {};
  let reference: string[] = [];
  for (const quantize of [undefined, ...[...quantizations].reverse()]) {
    const name = quantize ?? 'float32';
    if (!json) console.log(`${name}: ${questions.length} questions`);
    const model = await loadModel(dir, { quantize });
    const samples = await answerQuestions(model, questions, { batchSize: 64, maxNewTokens: 24, blind: false });
    const answers = samples.map(({ answer }) => answer);
    if (!quantize) reference = answers;
    results[name] = {
      perplexity: await perplexity(dir, model, questions, quantize),
      agreement: answers.filter((answer, i) => answer === reference[i]).length / answers.length,
      accuracy: samples.filter(({ correct }) => correct).length / samples.length,
    };
    await model.generator.dispose();
  }
  if (json) console.log(JSON.stringify({ benchmark: 'quantize', model: dir, questions: questions.length, results }));
  else
    for (const [name, { perplexity, agreement, accuracy }] of Object.entries(results))
      console.log(
        `  ${name.padEnd(9)}perplexity ${perplexity.toFixed(4)}   the same answer ${(100 * agreement).toFixed(1)} %   right ${(100 * accuracy).toFixed(1)} %`,
      );
}

/** exp of the mean loss of the expected answers' tokens, each given those before it. */
async function perplexity(
  dir: string,
  { config, tokenizer, processor }: LoadedModel,
  questions: readonly Question[],
  quantize: Quantization | undefined,
): Promise<number> {
  const imageTokens = imageTokenCount(config);
  const size = imageSize(config);
  const encoded = questions.map(({ id, prompt, expected }) =>
    encodeConversation(tokenizer, [...prompt, { from: 'gpt', value: expected }], { imageTokens, sampleId: id }),
  );
  const tokens = Math.max(...encoded.map(({ inputIds }) => inputIds.length));
  const ids = new Int32Array(encoded.length * tokens);
  const mask = new Int32Array(encoded.length * tokens);
  for (const [row, { inputIds }] of encoded.entries()) {
    ids.set(inputIds, row * tokens);
    mask.fill(1, row * tokens, row * tokens + inputIds.length);
  }
  const dims = [encoded.length, tokens];
  const pixels = await pixelValuesOf(
    questions.map(({ imagePaths }) => imagePaths[0]),
    processor,
  );
  const checkpoint = await openModel(dir);
  const opened: { release(): Promise<void> }[] = [];
  try {
    const source = {
      storage: runStorageOf(checkpoint, quantize),
      read: async (parameters: Parameters<typeof readRunWeights>[1]) => {
        const weights = await readRunWeights(checkpoint, parameters, { quantize });
        opened.push(weights);
        return weights.values;
      },
    };
    const outputs = await forward(createOrtEngine(), forwardModelOf(checkpoint.config, dir), source, {
      input_ids: int32(ids, dims),
      attention_mask: int32(mask, dims),
      pixel_values: float32(pixels, [questions.length, 3, size, size]),
    });
    const { dims: logitDims, pieces } = outputs.get('logits')!;
    const vocabulary = logitDims[2];
    const labels = encoded.flatMap(({ labels }) => [...labels, ...new Array<number>(tokens - labels.length).fill(ignoreIndex)]);
    let position = 0;
    let loss = 0;
    let count = 0;
    for await (const piece of pieces())
      for (let at = 0; at < piece.length; at += vocabulary, position++) {
        // the logits at a token predict the next one
        const label = (position + 1) % tokens === 0 ? ignoreIndex : labels[position + 1];
        if (label === ignoreIndex) continue;
        loss += logSumExp(piece.subarray(at, at + vocabulary)) - piece[at + label];
        count++;
      }
    return Math.exp(loss / count);
  } finally {
    for (const weights of opened) await weights.release();
    await checkpoint.close();
  }
}

function logSumExp(values: Float32Array): number {
  const largest = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}
