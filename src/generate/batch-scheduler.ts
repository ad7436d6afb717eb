// Continuous batching (Yu et al. 2022, "Orca"): prompts wait in the order in which they came, join the batch
// as soon as a slot is free, and leave it with their last token, while the others go on. Prompts are read in
// pieces between the tokens of those that are being answered, and what one of them has read another need not
// read again.

import { concatFloat32 } from '../arrays.ts';
import { imageTokenCount } from '../models/llava.ts';
import { createRandom, type Random } from '../random.ts';
import type { RowResult, RowStep } from './decode-batch.ts';
import { checkLength, type Generator } from './generator.ts';
import { type KvRow, kvBytesPerToken } from './kv-slots.ts';
import { type ChosenLogprob, logprobsOf } from './logprobs.ts';
import { PrefixStore, type ReadTokens, sharedPrefix } from './prefix-store.ts';
import { type Sampling, sampleToken } from './sampling.ts';

/** A picture of a prompt. */
export interface PromptPicture {
  /** The same for the same picture. */
  key: string;
  /** [imageTokens * hidden]. */
  rows: Float32Array;
}

export interface RowRequest {
  /** Prompts join in the order of these numbers, as far as they are there. */
  ticket: number;
  inputIds: readonly number[];
  /** In the order of their image tokens. */
  pictures: readonly PromptPicture[];
  maxNewTokens: number;
  /** The answer ends at any of these, which are not part of it. */
  stopTokenIds: readonly number[];
  /** Greedy when absent. */
  sampling?: Sampling;
  /** Gives the log-probability of each token, beside so many of the likeliest. */
  logprobs?: number;
  /** Ends the answer, or the wait for it, with its reason. */
  signal?: AbortSignal;
  /** Called with each token as it comes; the answer ends where it returns true. */
  onToken?(token: number, logprob?: ChosenLogprob): boolean | undefined;
}

export interface RowAnswer {
  tokens: number[];
  /** `length`: no more tokens were asked for, or the context has no room for them. */
  finish: 'stop' | 'length';
  /** Tokens of the prompt that had been read before. */
  cachedTokens: number;
}

export interface SchedulerOptions {
  /** Rows that are answered at a time. */
  slots: number;
  /** Memory for what was read for earlier prompts, in bytes. */
  prefixBytes: number;
  /** Tokens of prompts that are read between two tokens of others. Default: 256. */
  readTokens?: number;
  /** Given a turn after each step. */
  breathe(): Promise<void>;
}

export interface BatchScheduler {
  /** The answer to a prompt, when its turn has come. UserError for one that leaves no room to answer. */
  answer(request: RowRequest): Promise<RowAnswer>;
  /** Rows that are being answered, those that wait, and bytes of prefixes. */
  readonly load: { running: number; waiting: number; prefixBytes: number };
}

/** Tokens of prompts, padding included, that are read while others wait for their next token. */
const READ_TOKENS = 256;
/** Times as many are read where nobody waits. */
const UNDISTURBED = 4;
/** A prompt waits for one that is being read if they share so many more tokens than are known. */
const WORTH_WAITING = 16;

interface Row {
  request: RowRequest;
  tokens: ReadTokens;
  generated: number[];
  /** Of the prompt and what was generated, how many tokens the cache has. */
  read: number;
  cachedTokens: number;
  random: Random;
  resolve(answer: RowAnswer): void;
  reject(reason: unknown): void;
}

export function createBatchScheduler(
  generator: Pick<Generator, 'config' | 'openBatch'>,
  { slots, prefixBytes, readTokens = READ_TOKENS, breathe }: SchedulerOptions,
): BatchScheduler {
  const { config } = generator;
  const batch = generator.openBatch(slots);
  const prefixes = new PrefixStore<KvRow>(prefixBytes);
  const waiting: Row[] = [];
  /** By slot. An empty one may stand between others while prompts are being read. */
  let rows: (Row | undefined)[] = [];
  let isRunning = false;

  /** Ends a row, whose slot is free for others; what it has read is kept. */
  async function leave(slot: number, end: (row: Row) => void): Promise<void> {
    const row = rows[slot]!;
    const length = batch.cache.length(slot);
    const tokens = { ...row.tokens, ids: allIds(row).slice(0, length) };
    try {
      await prefixes.keep(tokens, length * kvBytesPerToken(config.text_config), () => batch.cache.save(slot, length));
    } catch {
      // no memory for it, or no device any more: the answer is there all the same
    }
    free(slot);
    end(row);
  }

  function free(slot: number): void {
    batch.cache.truncate(slot, 0);
    rows[slot] = undefined;
  }

  /** Rows whose client has gone are let go, wherever they are. */
  async function dropAborted(): Promise<void> {
    const isGone = ({ request }: Row) => request.signal?.aborted === true;
    for (const row of waiting.filter(isGone)) {
      waiting.splice(waiting.indexOf(row), 1);
      row.reject(row.request.signal!.reason);
    }
    for (const [slot, row] of rows.entries())
      if (row && isGone(row)) await leave(slot, ({ request, reject }) => reject(request.signal!.reason));
  }

  /** Moves rows together, so that the last slots are the free ones. */
  async function closeGaps(): Promise<void> {
    for (let slot = 0; slot < rows.length; slot++) {
      while (rows.length > 0 && rows.at(-1) === undefined) rows.pop();
      if (slot >= rows.length || rows[slot]) continue;
      const last = rows.length - 1;
      try {
        await batch.cache.begin(slot, last, batch.cache.length(last));
      } catch {
        // no memory to move it: a gap costs time alone
        return;
      }
      rows[slot] = rows[last];
      free(last);
    }
  }

  /** Lets prompts join, in order, but for those that have more in common with one that joins now. */
  async function admit(): Promise<void> {
    await closeGaps();
    const joining: Row[] = [];
    for (const row of [...waiting]) {
      if (rows.length + joining.length === slots) break;
      const known = knownTokens(row);
      if (joining.some((other) => sharedPrefix(row.tokens, other.tokens) - known > WORTH_WAITING)) continue;
      waiting.splice(waiting.indexOf(row), 1);
      joining.push(row);
    }
    // of those that are read together, the shortest are read first, and their slots stand with the others'
    const unread = new Map(joining.map((row) => [row, row.tokens.ids.length - knownTokens(row)]));
    joining.sort((a, b) => unread.get(a)! - unread.get(b)!);
    for (const row of joining) {
      const slot = rows.length;
      const nearest = nearestSlot(row);
      rows.push(row);
      // where there is no memory to copy what is known, the prompt is read from its start
      row.cachedTokens = await begin(slot, row, nearest).catch(() => 0);
      row.read = row.cachedTokens;
    }
  }

  /** The slot, if any, that has read most of what a prompt begins with. */
  function nearestSlot({ tokens }: Row): { slot: number; length: number } {
    let [nearest, most] = [-1, 0];
    rows.forEach((row, slot) => {
      const shared = row ? Math.min(sharedPrefix({ ...row.tokens, ids: allIds(row) }, tokens), batch.cache.length(slot)) : 0;
      if (shared > most) [nearest, most] = [slot, shared];
    });
    return { slot: nearest, length: most };
  }

  /** The last token is always read anew: it gives the logits. */
  const atMost = ({ tokens }: Row, known: number) => Math.min(known, tokens.ids.length - 1);

  function knownTokens(row: Row): number {
    return atMost(row, Math.max(nearestSlot(row).length, prefixes.find(row.tokens)?.length ?? 0));
  }

  /** Begins a slot with what was read already; returns how much that is. */
  async function begin(slot: number, row: Row, near: ReturnType<typeof nearestSlot>): Promise<number> {
    const kept = prefixes.find(row.tokens);
    const length = atMost(row, Math.max(near.length, kept?.length ?? 0));
    if (length === 0) return 0;
    await batch.cache.begin(slot, kept && kept.length >= near.length ? kept.row : near.slot, length);
    return length;
  }

  const isReading = (row: Row | undefined) => row !== undefined && row.read < row.tokens.ids.length;

  /** Reads the next piece of the prompts that have joined. */
  async function readPrompts(): Promise<void> {
    const first = rows.findIndex(isReading);
    if (first < 0) return;
    const group = rows.slice(first);
    const budget = first > 0 ? readTokens : readTokens * UNDISTURBED;
    const isAlone = rows.length === 1;
    const piece = isAlone ? Number.POSITIVE_INFINITY : Math.max(1, Math.floor(budget / group.length));
    const steps = group.map((row): RowStep => (isReading(row) ? nextPiece(row!, piece) : { tokens: [] }));
    await advance(first, steps);
  }

  /** The next tokens of a prompt, with the rows of the pictures among them. */
  function nextPiece({ request, tokens: { ids }, read }: Row, count: number): RowStep {
    const tokens = ids.slice(read, read + count);
    const isPlace = (id: number) => id === config.image_token_index;
    const [before, here] = [ids.slice(0, read).filter(isPlace).length, tokens.filter(isPlace).length];
    const { hidden_size: hidden } = config.text_config;
    const imageRows = concatFloat32(request.pictures.map((picture) => picture.rows)).subarray(before * hidden, (before + here) * hidden);
    return { tokens, imageRows, ...(read + tokens.length === ids.length ? { wants: wantsOf(request) } : {}) };
  }

  /** The next token of the rows that have read their prompts. */
  async function decode(): Promise<void> {
    const reading = rows.findIndex(isReading);
    const count = reading < 0 ? rows.length : reading;
    const active = rows.slice(0, count);
    if (active.every((row) => row === undefined)) return;
    const steps = active.map((row): RowStep => (row ? { tokens: [row.generated.at(-1)!], wants: wantsOf(row.request) } : { tokens: [] }));
    await advance(0, steps);
  }

  /** Runs a step and does what its results say; an error is that of all its rows. */
  async function advance(first: number, steps: readonly RowStep[]): Promise<void> {
    let results: RowResult[];
    try {
      results = await batch.step(first, steps);
    } catch (error) {
      steps.forEach((_, i) => {
        const row = rows[first + i];
        if (!row) return;
        free(first + i);
        row.reject(error);
      });
      return;
    }
    for (const [i, result] of results.entries()) {
      const row = rows[first + i];
      if (!row) continue;
      row.read += steps[i].tokens.length;
      if (steps[i].wants) await take(first + i, row, result);
    }
  }

  /** Chooses the next token of a row. */
  async function take(slot: number, row: Row, { likeliest, logits }: RowResult): Promise<void> {
    const { request, generated, random } = row;
    const token = logits ? sampleToken(logits, request.sampling, random, allIds(row)) : likeliest!;
    let finish: RowAnswer['finish'] | undefined = 'stop';
    try {
      if (!request.stopTokenIds.includes(token)) {
        generated.push(token);
        const logprob = request.logprobs === undefined ? undefined : logprobsOf(logits!, token, request.logprobs);
        finish = request.onToken?.(token, logprob) ? 'stop' : lengthReached(row);
      }
    } catch (error) {
      await leave(slot, ({ reject }) => reject(error));
      return;
    }
    if (finish) await leave(slot, ({ resolve, cachedTokens }) => resolve({ tokens: generated, finish, cachedTokens }));
  }

  /** Whether a row has all the tokens that it may have. */
  function lengthReached({ request, tokens, generated }: Row): 'length' | undefined {
    const room = config.text_config.max_position_embeddings - tokens.ids.length;
    return generated.length >= Math.min(room, request.maxNewTokens) ? 'length' : undefined;
  }

  async function run(): Promise<void> {
    if (isRunning) return;
    isRunning = true;
    try {
      while (waiting.length > 0 || rows.some((row) => row !== undefined)) {
        await dropAborted();
        // while prompts are being read, slots stay as they are
        if (!rows.some(isReading)) await admit();
        await readPrompts();
        await decode();
        await breathe();
      }
      rows = [];
    } finally {
      isRunning = false;
    }
  }

  return {
    async answer(request) {
      checkLength(request.inputIds.length, config.text_config.max_position_embeddings);
      request.signal?.throwIfAborted();
      const tokens: ReadTokens = {
        ids: request.inputIds,
        imageToken: config.image_token_index,
        imageTokens: imageTokenCount(config),
        pictures: request.pictures.map(({ key }) => key),
      };
      const { promise, resolve, reject } = withResolvers<RowAnswer>();
      const random = createRandom(request.sampling?.seed ?? 0);
      const before = waiting.findIndex((row) => row.request.ticket > request.ticket);
      waiting.splice(before < 0 ? waiting.length : before, 0, {
        request,
        tokens,
        generated: [],
        read: 0,
        cachedTokens: 0,
        random,
        resolve,
        reject,
      });
      void run();
      return promise;
    },
    get load() {
      return { running: rows.filter((row) => row !== undefined).length, waiting: waiting.length, prefixBytes: prefixes.bytes };
    },
  };
}

const allIds = ({ tokens, generated }: Row) => [...tokens.ids, ...generated];

const wantsOf = ({ sampling, logprobs }: RowRequest) => (sampling || logprobs !== undefined ? 'logits' : 'likeliest');

function withResolvers<T>() {
  let [resolve, reject]: [(value: T) => void, (reason: unknown) => void] = [() => {}, () => {}];
  const promise = new Promise<T>((...both) => {
    [resolve, reject] = both;
  });
  return { promise, resolve, reject };
}
