// What the maps of an answer take beside the answer: the model that comes along, one thread.

import type { Command } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { pointingQuestions } from '../src/data/emoji/pointing.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { loadExplainer } from '../src/explain/explainer.ts';
import { bundledModel } from '../src/paths.ts';
import { type LoadedModel, loadModel } from '../src/pretrained/load.ts';
import { busyCores, busyNote, median, round, thisMachine } from './statistics.ts';

/** Tokens of the answers that are decoded; the model's own answers have one or two. */
const LONG = [8, 16];

/** Long enough for the longest of them. */
const LONG_ANSWER = 'a dog at the left, a cat at the right, a house above a tree and a car below it';

const PARTS = ['answer', 'maps', 'maps_with_encoder'] as const;
type Part = (typeof PARTS)[number];
type Times = Record<Part, number>;

export function register(program: Command): void {
  program
    .command('explain')
    .description('the time of an answer and of its maps, at the bundled size')
    .option('--pictures <n>', 'pictures that are asked about', parseCount, 15)
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .action(benchExplain);
}

async function benchExplain({ pictures, json }: { pictures: number; json?: boolean }): Promise<void> {
  const log = json ? console.error : console.log;
  const machine = { ...thisMachine(), threads: 1 };
  const before = await busyCores();
  const engine = createOrtEngine({ threads: 1 });
  const model = await loadModel(bundledModel, { engine });
  const answers: Record<string, Awaited<ReturnType<typeof measure>>> = {};
  for (const tokens of [undefined, ...LONG]) {
    const result = await measure(engine, model, pictures, tokens);
    const { cpu_ms: cpu, ratio, ratio_with_encoder } = result;
    answers[tokens ?? 'own'] = result;
    log(
      `${tokens ? `${tokens} tokens` : `its own answers, ${result.tokens.toFixed(1)} tokens`}: answer ${cpu.answer} ms, maps ${cpu.maps} ms (${ratio} x), ` +
        `with the encoder ${cpu.maps_with_encoder} ms (${ratio_with_encoder} x)`,
    );
  }
  const { busy, note } = busyNote(before, await busyCores());
  log(`CPU time, medians of ${pictures} pictures; ${machine.cpu}${note ? `; ${note}` : ''}`);
  if (json) console.log(JSON.stringify({ benchmark: 'explain', machine: { ...machine, busy_cores: busy }, pictures, answers }));
}

/** Times of answers of so many tokens and of their maps; without a number, of the model's own answers. */
async function measure(engine: ReturnType<typeof createOrtEngine>, model: LoadedModel, pictures: number, tokens?: number) {
  const { generator, tokenizer } = model;
  const explainer = await loadExplainer(bundledModel, { engine, model });
  const text = tokens && tokenizer.decode(tokenizer.encode(LONG_ANSWER).slice(0, tokens));
  const cpu: Record<Part, number[]> = { answer: [], maps: [], maps_with_encoder: [] };
  const wall: Record<Part, number[]> = { answer: [], maps: [], maps_with_encoder: [] };
  let read = 0;
  const timed = async (part: Part, run: () => Promise<unknown>) => {
    const [used, start] = [process.cpuUsage(), performance.now()];
    await run();
    wall[part].push(performance.now() - start);
    const { user, system } = process.cpuUsage(used);
    cpu[part].push((user + system) / 1000);
  };
  for (const { picture, question } of await pointingQuestions(pictures, 5)) {
    const request = { picture, prompt: question };
    const asked = await explainer.answer({ ...request, ...(text ? { answer: text } : {}) });
    const { promptIds, answerIds } = asked;
    read += answerIds.length;
    await timed('answer', async () => {
      if (!text) return explainer.answer(request);
      const [imageRows] = await model.imageRows([picture]);
      return generator.generate([{ inputIds: promptIds, imageRows }], { maxNewTokens: answerIds.length, stopTokenIds: [] });
    });
    await timed('maps', () => explainer.maps(asked, { throughEncoder: false }));
    await timed('maps_with_encoder', () => explainer.maps(asked, { throughEncoder: true }));
  }
  const medians = (times: Record<Part, number[]>) =>
    Object.fromEntries(PARTS.map((part) => [part, round(median(times[part]), 1)])) as Times;
  const cpuMs = medians(cpu);
  return {
    tokens: round(read / pictures, 1),
    cpu_ms: cpuMs,
    ms: medians(wall),
    ratio: round(cpuMs.maps / cpuMs.answer, 2),
    ratio_with_encoder: round(cpuMs.maps_with_encoder / cpuMs.answer, 2),
  };
}
