// What `llava-gemma eval` does.
import { existsSync, statSync } from 'node:fs';
import { type EvaluationSplit, evaluationSplits } from '../../data/emoji/build.ts';
import { onDisk } from '../../disk.ts';
import type { DeviceName } from '../../engine/engine.ts';
import { UserError } from '../../errors.ts';
import { answerWithModel, evaluateModel, type ModelEvaluation } from '../../evaluate/evaluate-model.ts';
import type { OpenAnswer } from '../../evaluate/open-answers.ts';
import { type Asked, type OpenQuestion, type QuestionList, readQuestionFile } from '../../evaluate/questions.ts';
import { type LineFile, openLines, scoreSamples } from '../../evaluate/samples.ts';
import { resolvePath } from '../../paths.ts';
import { createStatusLine } from '../../runs/status.ts';
import { imageToken } from '../../text/tokenizer.ts';
import type { Quantization } from '../../weights/quantize.ts';
import { formatCount } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';
import { formatScores, showsColor } from '../table.ts';

export interface EvaluateFlags {
  model: string;
  data?: string;
  imageFolder?: string;
  split: string[];
  scenes: number;
  seed: number;
  heldOutArtist?: string;
  limit?: number;
  batchSize: number;
  maxNewTokens?: number;
  blind: boolean;
  quantize?: Quantization;
  device?: DeviceName;
  out?: string;
  json?: boolean;
}

/** The options that a command line asks for. */
export async function evaluateOptionsOf(flags: EvaluateFlags): Promise<Omit<ModelEvaluation, 'signal' | 'onProgress'>> {
  const { limit, batchSize, maxNewTokens, blind, quantize, device } = flags;
  const model = resolvePath(flags.model, '--model');
  const common = { model, limit, batchSize, maxNewTokens, blind, quantize, device };
  if (flags.data !== undefined) {
    if (flags.imageFolder === undefined) throw new UserError('--data needs --image-folder, which its image paths are relative to');
    if (flags.split.length > 0)
      throw new UserError('--split names splits of the emoji scenes; with --data all questions of the file are asked');
    return { ...common, data: { dataPath: flags.data, imageFolder: flags.imageFolder } };
  }
  if (flags.imageFolder !== undefined) throw new UserError('--image-folder goes with --data, whose image paths are relative to it');
  const isSplit = (split: string): split is EvaluationSplit => (evaluationSplits as readonly string[]).includes(split);
  const unknown = flags.split.find((split) => !isSplit(split));
  if (unknown !== undefined) throw new UserError(`--split ${unknown}: the splits are ${evaluationSplits.join(', ')}`);
  const splits = flags.split.length > 0 ? flags.split.filter(isSplit) : evaluationSplits;
  const { scenes, seed, heldOutArtist } = flags;
  return { ...common, data: { generate: 'emoji', splits, scenes, seed, heldOutArtist } };
}

/** The answers must not take the place of what they answer. */
function checkApart(out: string, data: string): void {
  if (!existsSync(out)) return;
  const [there, source] = [out, data].map((path) => onDisk(path, () => statSync(path, { bigint: true })));
  if (there.dev === source.dev && there.ino === source.ino)
    throw new UserError(`--out ${out}: it would replace the questions of --data; give another file`);
}

/** Says how many questions show a picture that they do not name: it is easily called by another word. */
function noteUnshown(data: string, questions: QuestionList): void {
  const asked: readonly Asked[] = 'open' in questions ? questions.open : questions.scored;
  const count = asked.filter(({ prompt, imagePaths }) => imagePaths.length === 0 && prompt.some(({ value }) => value.includes(imageToken)));
  if (count.length > 0)
    console.error(
      `${data}: ${formatCount(count.length)} questions have ${imageToken} in their text and name no picture (in image): it is read as text`,
    );
}

/** Says how many questions could not be asked, and why. */
function reportProblems(problems: readonly (string | undefined)[], consequence: string): void {
  const found = problems.filter((problem) => problem !== undefined);
  if (found.length === 0) return;
  console.error(`${formatCount(found.length)} of ${formatCount(problems.length)} questions could not be asked${consequence}:`);
  const reasons = [...new Set(found)];
  for (const reason of reasons.slice(0, REASONS_SHOWN)) console.error(`  ${reason}`);
  if (reasons.length > REASONS_SHOWN) console.error(`  and ${formatCount(reasons.length - REASONS_SHOWN)} other reasons`);
}

const REASONS_SHOWN = 5;

/**
 * Runs the command. What it is to write is tried before anything is computed, and gets the answers as they
 * come.
 */
export async function evaluate(flags: EvaluateFlags): Promise<void> {
  const { data, ...options } = await evaluateOptionsOf(flags);
  const questions = 'dataPath' in data ? await readQuestionFile(data.dataPath, data.imageFolder) : undefined;
  if (questions && flags.out !== undefined) checkApart(flags.out, flags.data!);
  if (questions) noteUnshown(flags.data!, questions);
  const lines = flags.out === undefined ? undefined : openLines(flags.out);
  const advice = lines ? `the answers so far are in ${flags.out}` : 'nothing was written';
  try {
    await withInterrupt(async (signal) => {
      const work = { ...options, signal };
      if (questions && 'open' in questions) await answer(questions.open, work, lines, flags);
      else await score(questions?.scored ?? data, work, lines, flags);
    }, advice);
  } finally {
    lines?.close();
  }
}

type Work = Omit<ModelEvaluation, 'data' | 'onSamples' | 'onProgress'>;

async function score(data: ModelEvaluation['data'], work: Work, lines: LineFile | undefined, { json }: EvaluateFlags): Promise<void> {
  const { status, onProgress } = showProgress();
  const samples = await evaluateModel({ ...work, data, onProgress, onSamples: lines?.append }).finally(status.clear);
  if (samples.every(({ problem }) => problem !== undefined))
    throw new UserError(`none of the ${formatCount(samples.length)} questions could be asked: ${samples[0].problem}`);
  const scores = scoreSamples(samples);
  console.log(json ? JSON.stringify(scores, null, 2) : formatScores(scores, showsColor()));
  reportProblems(
    samples.map(({ problem }) => problem),
    ' and count as wrong',
  );
}

/** Answers questions that expect nothing, into the file or onto the terminal. */
async function answer(questions: readonly OpenQuestion[], work: Work, lines: LineFile | undefined, flags: EvaluateFlags): Promise<void> {
  if (flags.json) throw new UserError(`--json prints scores, and the questions of ${flags.data} have no expected answers`);
  const { status, onProgress } = showProgress();
  const onAnswers = (answers: OpenAnswer[]) => {
    if (lines) return lines.append(answers);
    status.clear();
    for (const line of answers) console.log(JSON.stringify(line));
  };
  const answers = await answerWithModel({ ...work, questions, onAnswers, onProgress }).finally(status.clear);
  if (lines) console.log(`wrote ${flags.out}; ${flags.data} has no expected answers, so that there is no score`);
  reportProblems(
    answers.map(({ metadata }) => metadata.problem),
    '',
  );
}

function showProgress() {
  const status = createStatusLine();
  const onProgress = (done: number, total: number) => status.draw(`answered ${formatCount(done)} of ${formatCount(total)} questions`);
  return { status, onProgress };
}
