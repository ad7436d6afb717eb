// Judges: what reads free-form answers where no rule can, a language model behind a small interface.

import { resolve } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { createSession } from '../generate/session.ts';
import { modelContent } from '../pretrained/content.ts';
import { loadModel } from '../pretrained/load.ts';
import { type EndpointOptions, openEndpoint } from '../remote/endpoint.ts';
import { openReplyCache, REPLIES_FOLDER } from '../remote/reply-cache.ts';

export interface JudgeRequest {
  /** Longest reply in tokens. */
  maxTokens: number;
  /** Default: 0, which is greedy. */
  temperature?: number;
  /** Of judging one answer several times: which time it is, from 1. */
  run?: number;
}

export interface JudgeReply {
  text: string;
  /** What the judge calls the model that replied. */
  model?: string;
}

/** Who judges. */
export interface Judge {
  /** As reports name it: `rules`, `local:assets/models/tiny-llava`, `https://host/v1 gpt-4-0613`. */
  readonly name: string;
  /** How often each answer is judged. */
  readonly runs: number;
  /** Asks the model; undefined where there is none, and rules alone decide. Calls may overlap. */
  reply?(prompt: string, request: JudgeRequest): Promise<JudgeReply>;
}

/** What judged, for reports. */
export interface JudgeReport {
  /** Its name, or where judgements were found. */
  judge: string;
  /** Which prompt it got; undefined where it got none. */
  prompt?: string;
  /** How its reply, or the answer itself, becomes a judgement. */
  rule: string;
}

export interface JudgeOptions extends Pick<EndpointOptions, 'cache' | 'signal' | 'onPause' | 'onNote'> {
  /** `rules`, `local:FOLDER`, or the address of an OpenAI-compatible endpoint. */
  judge: string;
  /** Of an endpoint: which of its models. */
  model?: string;
  /** How often each answer is judged. Default: 1. */
  runs?: number;
}

const asTurns = (prompt: string) => ({ turns: [{ from: 'human' as const, value: prompt }] });

/** Opens a judge. UserError for what is none, and for a folder or endpoint that cannot be used. */
export async function openJudge({ judge, model, runs = 1, ...options }: JudgeOptions): Promise<Judge> {
  if (!/^https?:/i.test(judge) && model !== undefined) throw new UserError('--judge-model goes with the address of an endpoint');
  if (judge === 'rules') return { name: 'rules', runs };
  if (judge.startsWith('local:')) return { ...(await openLocalJudge(judge.slice('local:'.length), options)), runs };
  if (!/^https?:/i.test(judge))
    throw new UserError(`${judge}: is no judge; it must be rules, local:FOLDER, or an address like https://api.openai.com/v1`);
  const endpoint = await openEndpoint({ url: judge, model, ...options });
  return { name: endpoint.name, runs, reply: (prompt, request) => endpoint.reply(asTurns(prompt), request) };
}

const textSchema = z.object({ text: z.string() });

async function openLocalJudge(folder: string, { cache = REPLIES_FOLDER, signal }: Pick<JudgeOptions, 'cache' | 'signal'>) {
  const name = `local:${folder}`;
  const session = createSession(await loadModel(folder));
  const content = await modelContent(folder);
  const kept = cache === false ? undefined : openReplyCache(cache, textSchema);

  async function reply(prompt: string, { maxTokens, temperature = 0, run = 1 }: JudgeRequest): Promise<JudgeReply> {
    const request = { folder: resolve(folder), content, ...asTurns(prompt), maxTokens, temperature, run };
    const known = await kept?.find(request);
    if (known) return known;
    const sampling = temperature > 0 ? { temperature, seed: run } : undefined;
    const [text] = await session.answerAll([asTurns(prompt)], { maxNewTokens: maxTokens, sampling, signal }).catch((error) => {
      throw error instanceof UserError ? new UserError(`${name}: as a judge: ${error.message}`, { cause: error }) : error;
    });
    await kept?.keep(request, { text });
    return { text };
  }
  return { name, reply };
}
