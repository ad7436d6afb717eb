// The decoder over rows of different lengths: each row has a slot of the cache, and a step reads one token or
// many of each of a range of slots. Positions alone decide what a row sees, so a row computes the same beside
// any others.

import { concatFloat32 } from '../arrays.ts';
import { type Engine, float32, int32 } from '../engine/engine.ts';
import type { LlavaConfig } from '../models/llava.ts';
import { HIDDEN_POSITION } from '../models/masks.ts';
import type { decoderGraph, GraphProgram } from '../models/programs.ts';
import { KvSlots } from './kv-slots.ts';

/** The compiled `decoderGraph`. */
export type Decoder = GraphProgram<keyof ReturnType<typeof decoderGraph>['inputs'], keyof ReturnType<typeof decoderGraph>['outputs']>;

/** What a step does to the row in one slot. */
export interface RowStep {
  /** Tokens that are read; a row without any only stands between others. */
  tokens: readonly number[];
  /** [rows, hidden], one for each image token among them. */
  imageRows?: Float32Array;
  /** What is asked for of the last token, if anything. */
  wants?: 'likeliest' | 'logits';
}

/** What a step gives for one row, as it was asked for. */
export interface RowResult {
  likeliest?: number;
  /** [vocabulary], good until the next step. */
  logits?: Float32Array;
}

export interface DecodeBatch {
  readonly cache: KvSlots;
  /** Reads the tokens of neighboring slots, the first of which is `first`, in one run. */
  step(first: number, rows: readonly RowStep[]): Promise<RowResult[]>;
}

export function createDecodeBatch(engine: Engine, program: Decoder, { text_config: text }: LlavaConfig, slots: number): DecodeBatch {
  const cache = new KvSlots(engine, text, slots);
  const { hidden_size: hidden, vocab_size: vocabulary } = text;

  async function step(first: number, rows: readonly RowStep[]): Promise<RowResult[]> {
    const counts = rows.map(({ tokens }) => tokens.length);
    const lengths = rows.map((_, i) => cache.length(first + i));
    const tokens = Math.max(...counts);
    cache.reserve(Math.max(...lengths.map((length, i) => length + counts[i])));
    const past = lengths.some((length) => length > 0) ? cache.capacity : 0;

    const inputIds = new Int32Array(rows.length * tokens);
    const positions = new Int32Array(rows.length * tokens);
    const keyPositions = new Int32Array(rows.length * (past + tokens)).fill(HIDDEN_POSITION);
    rows.forEach((row, i) => {
      inputIds.set(row.tokens, i * tokens);
      for (let t = 0; t < tokens; t++) positions[i * tokens + t] = lengths[i] + Math.max(0, Math.min(t, counts[i] - 1));
      const keys = keyPositions.subarray(i * (past + tokens), (i + 1) * (past + tokens));
      for (let t = 0; t < lengths[i]; t++) keys[t] = t;
      for (let t = 0; t < counts[i]; t++) keys[past + t] = lengths[i] + t;
    });
    const imageRows = concatFloat32(rows.map((row) => row.imageRows ?? new Float32Array(0)));
    const asked = rows.flatMap(({ wants }, i) => (wants ? [i] : []));
    // a run without any would need kernels that take empty tensors
    const logitRows = asked.length > 0 ? asked.map((i) => i * tokens + counts[i] - 1) : [0];
    // of 256,000 logits, one number is read back where that is all that is asked
    const outputs = (['likeliest', 'logits'] as const).filter((name) => rows.some(({ wants }) => wants === name));

    const results = await program.run(
      {
        input_ids: int32(inputIds, [rows.length, tokens]),
        position_ids: int32(positions, [rows.length, tokens]),
        key_positions: int32(keyPositions, [rows.length, past + tokens]),
        image_rows: float32(imageRows, [imageRows.length / hidden, hidden]),
        logit_rows: int32(logitRows, [logitRows.length]),
      },
      { state: cache.range(first, counts), outputs },
    );
    return rows.map(({ wants }, i) => {
      const at = asked.indexOf(i);
      if (wants === 'logits') return { logits: (results.logits.data as Float32Array).subarray(at * vocabulary, (at + 1) * vocabulary) };
      return wants === 'likeliest' ? { likeliest: results.likeliest.data[at] as number } : {};
    });
  }

  return { cache, step };
}
