// What `llava-gemma explain` does.
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type EvaluationSplit, evaluationSplits } from '../../data/emoji/build.ts';
import { pointingQuestions } from '../../data/emoji/pointing.ts';
import { makeFolder, onDisk } from '../../disk.ts';
import { UserError } from '../../errors.ts';
import { readQuestionFile } from '../../evaluate/questions.ts';
import { openLines } from '../../evaluate/samples.ts';
import { aboutDrawings, type BatchQuestion, explainQuestions, summarize } from '../../explain/batch.ts';
import { batchCard, batchPage, batchTables, CARDS } from '../../explain/batch-page.ts';
import { type Explainer, loadExplainer } from '../../explain/explainer.ts';
import { type AnsweredQuestion, MAP_KINDS } from '../../explain/explanation.ts';
import { measureFaithfulness } from '../../explain/faithfulness.ts';
import type { Grid } from '../../explain/maps.ts';
import { overlayPng } from '../../explain/overlay.ts';
import { explanationPage, headSheet } from '../../explain/page.ts';
import { explanationJson, partsOf, targetsOf } from '../../explain/report.ts';
import { verdict } from '../../explain/verdict.ts';
import { type ImageProcessorConfig, pictureOf } from '../../images/processor.ts';
import { resolvePath } from '../../paths.ts';
import { type LoadedModel, loadModel } from '../../pretrained/load.ts';
import { createStatusLine } from '../../runs/status.ts';
import type { Quantization } from '../../weights/quantize.ts';
import { formatCount } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';

export interface ExplainFlags {
  model: string;
  image?: string;
  prompt?: string;
  out: string;
  answer?: string;
  short?: boolean;
  maxNewTokens: number;
  encoder: boolean;
  lens?: boolean;
  faithfulness: boolean;
  steps: number;
  batch?: string;
  imageFolder?: string;
  scenes?: number;
  split: string;
  limit?: number;
  seed: number;
  memoryLimit?: number;
  quantize?: Quantization;
}

/** Runs the command. */
export async function explain(flags: ExplainFlags): Promise<void> {
  checkFlags(flags);
  const questions = await questionsOf(flags);
  makeFolder(flags.out);
  const dir = resolvePath(flags.model, '--model');
  const { quantize, memoryLimit } = flags;
  const model = await loadModel(dir, { quantize });
  const explainer = await loadExplainer(dir, { model, quantize, memoryLimit });
  try {
    await withInterrupt(
      (signal) =>
        questions ? explainAll(explainer, model, questions(explainer), flags, signal) : explainOne(explainer, model, flags, signal),
      questions ? `the questions so far are in ${join(flags.out, 'questions.jsonl')}` : 'nothing was written',
    );
  } finally {
    await explainer.dispose();
  }
}

function checkFlags({ image, prompt, answer, batch, scenes, imageFolder, short, lens, limit }: ExplainFlags): void {
  const ways = [image ?? prompt, batch, scenes].filter((way) => way !== undefined).length;
  if (ways !== 1) throw new UserError('give --image and --prompt for one question, or --batch, or --scenes: one of the three');
  if (batch === undefined && scenes === undefined && (image === undefined || prompt === undefined))
    throw new UserError('one question needs --image and --prompt');
  if (batch !== undefined && imageFolder === undefined)
    throw new UserError('--batch needs --image-folder, which its image paths are relative to');
  for (const [name, value] of Object.entries({ '--answer': answer, '--lens': lens }))
    if (value !== undefined && image === undefined) throw new UserError(`${name} is for one question: give --image and --prompt`);
  if (limit !== undefined && batch === undefined) throw new UserError('--limit goes with --batch');
  if (imageFolder !== undefined && batch === undefined) throw new UserError('--image-folder goes with --batch');
  if (short && scenes !== undefined) throw new UserError('--short: the questions of --scenes ask for short answers already');
}

// === One question ===

async function explainOne(
  explainer: Explainer,
  { processor }: Pick<LoadedModel, 'processor'>,
  flags: ExplainFlags,
  signal: AbortSignal,
): Promise<void> {
  const { image, prompt, answer, short, maxNewTokens, encoder, lens, faithfulness, steps, seed, out } = flags;
  const question = await explainer.answer({ picture: image!, prompt: prompt!, answer, short, maxNewTokens, signal });
  const explanation = await explainer.maps(question, { throughEncoder: encoder, lens, signal });
  let parts = partsOf(explanation);
  if (faithfulness) {
    const measured = await measureFaithfulness(explainer, question, targetsOf(parts), { seed, steps, perturbation: true, signal });
    parts = parts.map((part, i) => ({ ...part, faithfulness: measured[i] }));
  }
  const { grid } = explanation.layout;
  const picture = seen(question, grid, processor);
  const write = (name: string, data: string | Uint8Array) => onDisk(out, () => writeFileSync(join(out, name), data));
  onDisk(out, () => {
    for (const name of readdirSync(out).filter((name) => PICTURE.test(name))) rmSync(join(out, name));
  });
  const sheets = await Promise.all(parts.map((part) => headSheet(explanation, part)));
  for (const [i, part] of parts.entries()) {
    const name = fileName(i, part.text);
    for (const [kind, map] of Object.entries(part.maps)) write(`${name}-${kind}.png`, await overlayPng(picture, map, grid));
    write(`${name}-heads.png`, sheets[i]);
  }
  for (const [t, { text }] of explanation.tokens.entries())
    write(`token-${fileName(t + 1, text)}-relevancy.png`, await overlayPng(picture, explanation.maps.relevancy[t], grid));
  write('explanation.json', `${JSON.stringify(explanationJson(explanation, parts, flags.model))}\n`);
  write('index.html', await explanationPage(explanation, parts, picture, sheets));
  console.log(explanation.answer);
  for (const part of parts) console.log(`  ${part.text}: ${verdict(part)}`);
  console.log(`page: ${join(out, 'index.html')}`);
}

/** The picture as the encoder sees it. */
const seen = ({ pixelValues }: AnsweredQuestion, { size }: Grid, processor: ImageProcessorConfig) =>
  pictureOf(pixelValues, { height: size, width: size }, processor);

/** A name that every file system takes; the number tells words apart. */
const fileName = (part: number, text: string): string =>
  `${String(part).padStart(2, '0')}-${text
    .trim()
    .replace(/[^\p{L}\p{N}]+/gu, '-')
    .slice(0, 24)}`;

/** Names of pictures: those of an earlier answer in the folder would look like this one's. */
const PICTURE = new RegExp(`^(token-)?\\d{2,}-.*-(${[...MAP_KINDS, 'heads'].join('|')})\\.png$`);

// === Many questions ===

async function questionsOf(flags: ExplainFlags): Promise<((explainer: Explainer) => BatchQuestion[]) | undefined> {
  const { batch, imageFolder, scenes, split, seed, limit, maxNewTokens, short } = flags;
  if (scenes !== undefined) {
    if (!isSplit(split)) throw new UserError(`--split ${split}: the splits are ${evaluationSplits.join(', ')}`);
    const drawn = await pointingQuestions(scenes, seed, split);
    return ({ layout }) => aboutDrawings(drawn, layout.grid, maxNewTokens);
  }
  if (batch === undefined) return undefined;
  const found = await readQuestionFile(batch, imageFolder!);
  const asked =
    'open' in found
      ? found.open.map((question) => ({ ...question, id: String(question.question_id) }))
      : found.scored.map(({ id, task, expected, prompt, imagePaths }) => ({ id, task, expected, prompt, imagePaths }));
  const without = asked.filter(({ imagePaths }) => imagePaths.length !== 1).length;
  if (without > 0) console.error(`${batch}: ${formatCount(without)} questions are not about one picture, and are left out`);
  return () =>
    asked
      .filter(({ imagePaths }) => imagePaths.length === 1)
      .slice(0, limit)
      .map(({ imagePaths: [picture], ...question }) => ({ ...question, picture, cluster: picture, maxNewTokens, short }));
}

const isSplit = (split: string): split is EvaluationSplit => (evaluationSplits as readonly string[]).includes(split);

async function explainAll(
  explainer: Explainer,
  { processor }: Pick<LoadedModel, 'processor'>,
  questions: readonly BatchQuestion[],
  flags: ExplainFlags,
  signal: AbortSignal,
): Promise<void> {
  const { out, seed, steps, faithfulness, model, encoder } = flags;
  if (questions.length === 0) throw new UserError(`${flags.batch}: none of its questions is about one picture`);
  const file = openLines(join(out, 'questions.jsonl'));
  const status = createStatusLine();
  const cards: string[] = [];
  try {
    const lines = await explainQuestions(explainer, questions, {
      seed,
      steps,
      faithfulness,
      throughEncoder: encoder,
      signal,
      async onLine(line, done, question) {
        file.append([line]);
        const { grid } = explainer.layout;
        if (line.maps && question && cards.length < CARDS) cards.push(await batchCard(line, seen(question, grid, processor), grid));
        status.draw(`explained ${formatCount(done)} of ${formatCount(questions.length)} questions`);
      },
    });
    status.clear();
    const problem = lines.every((line) => line.problem !== undefined) ? lines[0].problem : undefined;
    if (problem !== undefined) throw new UserError(`none of the ${formatCount(lines.length)} questions could be explained: ${problem}`);
    const summary = summarize(lines);
    onDisk(out, () => {
      writeFileSync(join(out, 'summary.json'), `${JSON.stringify(summary, null, 2)}\n`);
      writeFileSync(join(out, 'index.html'), batchPage(summary, lines, cards, `Maps of ${model}`));
    });
    console.log(batchTables(summary));
    if (summary.problems > 0)
      console.error(`${formatCount(summary.problems)} questions could not be explained: see ${join(out, 'index.html')}`);
    console.log(`page: ${join(out, 'index.html')}`);
  } finally {
    status.clear();
    file.close();
  }
}
