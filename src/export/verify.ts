// An export beside the model that it was made from: the software that it is for answers the same questions,
// and is shown to compute the same, stage by stage, up to the first that differs.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildEmojiDataset } from '../data/emoji/build.ts';
import { UserError } from '../errors.ts';
import { partnerOf } from '../evaluate/exchanged.ts';
import { type Question, readQuestions } from '../evaluate/questions.ts';
import { createSession } from '../generate/session.ts';
import { imageSize } from '../models/llava.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import { wilsonInterval } from '../statistics/proportion.ts';
import { renderPrompt } from '../text/chat.ts';
import { imageToken, type Tokenizer } from '../text/tokenizer.ts';
import type { RunningPeer } from './peer.ts';
import type { PeerLoad, PeerQuestion, Traced } from './peers/serve.ts';
import { ownTrace } from './trace.ts';

/** How far the peer may be from us. */
export interface Tolerance {
  /** Of image rows, keys and values: the largest difference by the largest magnitude. */
  stages: number;
  /** Of logits: the largest difference; where `isRelative`, by the largest magnitude. */
  logits: number;
  isRelative?: boolean;
  /** Share of answers that must be the same. */
  answers: number;
}

export interface VerifyOptions {
  load: PeerLoad;
  tolerance: Tolerance;
  /** How many. */
  questions: number;
  maxNewTokens: number;
  onProgress?: (done: number, total: number) => void;
}

export interface Verification {
  /** Name and version of the peer. */
  peer: string;
  /** In the order in which they are computed; where `isRelative`, shares of the largest number. */
  stages: { name: string; difference: number; limit: number; isRelative: boolean }[];
  /** Answers of ours that another picture changes, and how many of these it changes in the peer. */
  seen: { changed: number; of: number };
  /** Answers that are the same, of how many, and the 95 % interval of their share. */
  same: number;
  asked: number;
  interval: { low: number; high: number };
  /** Some of those that differ. */
  others: { question: string; ours: string; theirs: string }[];
}

/** Stages before any weight: no dtype excuses a difference. */
const GIVEN: Readonly<Record<string, number>> = { pixel_values: 1e-4, input_ids: 0, text_ids: 0 };

/** Words that one side rules out and the other does not: that of the picture, and what pads a vocabulary. */
const MOST_RULED_OUT = 64;

/** Answers that pictures change, below which nothing is said of them. */
export const LEAST_SEEN = 4;

/** Answers that differ and are shown. */
const SHOWN = 3;

/**
 * Asks `peer` and the model in the folder `dir`. UserError, with the first stage that differs by more than it
 * may, with the share of equal answers where that is too low, or where pictures make no difference to the
 * peer.
 */
export async function verify(dir: string, peer: RunningPeer, options: VerifyOptions): Promise<Verification> {
  const { load, tolerance, maxNewTokens } = options;
  const name = await peer.load(load);
  const model = await loadModel(dir);
  let questions: Awaited<ReturnType<typeof questionsFor>> | undefined;
  try {
    questions = await questionsFor(model, options.questions);
    const [first] = questions.list;
    const stages = compared(await ownTrace(dir, model, first), await peer.trace(first), tolerance);
    const wrong = stages.find(({ difference, limit }) => !(difference <= limit));
    if (wrong)
      throw new UserError(
        `${load.folder} does not compute what ${dir} does: ${wrong.name} is the first that differs, by ${wrong.difference.toPrecision(3)} (at most ${wrong.limit}) in ${name}`,
      );
    const session = createSession(model);
    const answersOf = (list: readonly PeerQuestion[]) =>
      session.answerAll(
        list.map(({ text, image }) => ({ turns: [{ from: 'human' as const, value: text }], images: [image] })),
        { maxNewTokens },
      );
    const { list } = questions;
    const ours = await answersOf(list);
    const elsewhere = list.map((question, i) => ({ ...question, image: list[partnerOf(i, list.length)].image }));
    const oursElsewhere = await answersOf(elsewhere);
    const others: Verification['others'] = [];
    const seen = { changed: 0, of: 0 };
    for (const [i, question] of list.entries()) {
      const theirs = (await peer.answer(question, maxNewTokens)).trim();
      if (theirs !== ours[i]) others.push({ question: question.text, ours: ours[i], theirs });
      if (ours[i] !== oursElsewhere[i]) {
        seen.of++;
        if ((await peer.answer(elsewhere[i], maxNewTokens)).trim() !== theirs) seen.changed++;
      }
      options.onProgress?.(i + 1, list.length);
    }
    const asked = list.length;
    const same = asked - others.length;
    if (seen.of >= LEAST_SEEN && seen.changed < seen.of / 2)
      throw new UserError(
        `${load.folder}: ${name} does not see its pictures as ${dir} does: another one changes ${seen.of} answers of ${dir}, and ${seen.changed} of these there`,
      );
    if (same / asked < tolerance.answers)
      throw new UserError(
        `${load.folder}: ${name} gives ${same} of ${asked} answers as ${dir} does, fewer than ${tolerance.answers * 100} %: ${JSON.stringify(others[0])}`,
      );
    return { peer: name, stages, seen, same, asked, interval: wilsonInterval(same, asked), others: others.slice(0, SHOWN) };
  } finally {
    await questions?.remove();
    await model.generator.dispose();
  }
}

function compared(ours: ReadonlyMap<string, Float32Array>, theirs: readonly Traced[], tolerance: Tolerance): Verification['stages'] {
  return theirs.map(({ name, data }) => {
    const own = ours.get(name);
    if (!own) throw new Error(`there is no ${name} to compare with`);
    const isLogits = name.endsWith('logits');
    const limit = isLogits ? tolerance.logits : (GIVEN[name] ?? tolerance.stages);
    const isRelative = !isLogits || tolerance.isRelative === true;
    if (own.length !== data.length) return { name, difference: Number.POSITIVE_INFINITY, limit, isRelative };
    let [most, scale, ruledOut] = [0, 0, 0];
    for (let i = 0; i < own.length; i++) {
      // a word that is ruled out: on one side alone it is another graph, but for one that no answer has
      if (own[i] === -Infinity && data[i] === -Infinity) continue;
      if (own[i] === -Infinity || data[i] === -Infinity) {
        ruledOut++;
        continue;
      }
      most = Math.max(most, Math.abs(own[i] - data[i]));
      if (Number.isNaN(data[i])) most = Number.POSITIVE_INFINITY;
      scale = Math.max(scale, Math.abs(own[i]));
    }
    if (ruledOut > MOST_RULED_OUT) most = Number.POSITIVE_INFINITY;
    return { name, difference: isRelative && scale > 0 ? most / scale : most, limit, isRelative };
  });
}

/**
 * Questions about drawn scenes, which every model can be asked; they have the size that the encoder takes, so
 * that how a picture is resized plays no part.
 */
async function questionsFor({ config, tokenizer }: LoadedModel, count: number): Promise<{ list: PeerQuestion[]; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'llava-gemma-verify-'));
  const split = 'unseen-artist';
  const { evaluation, imageFolder } = await buildEmojiDataset({
    seed: 11,
    out: folder,
    trainScenes: 0,
    splits: [split],
    // a scene gives up to six
    evaluationScenes: Math.ceil(count / 4),
    size: imageSize(config),
  });
  const questions = await readQuestions(evaluation[split], imageFolder);
  const list = questions.slice(0, count).map((question) => peerQuestion(question, tokenizer));
  return { list, remove: () => rm(folder, { recursive: true, force: true }) };
}

function peerQuestion({ prompt, imagePaths }: Question, tokenizer: Tokenizer): PeerQuestion {
  const text = prompt[0].value.replace(`${imageToken}\n`, '');
  const rendered = (value: string) => renderPrompt(tokenizer, [{ from: 'human', value }]);
  return { image: imagePaths[0], text, prompt: rendered(`${imageToken}\n${text}`), textPrompt: rendered(text) };
}
