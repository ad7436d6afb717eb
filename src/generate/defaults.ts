// What a model's generation_config.json says of answering: where answers end, how long they get, and how
// tokens are chosen where nobody asks for another way. Fields and defaults follow GenerationConfig of
// transformers 5.18.

import { z } from 'zod';
import type { Sampling } from './sampling.ts';

const id = z.int().nonnegative();

/** generation_config.json; null stands for the default, and what is not known here is not heeded. */
export const generationConfigSchema = z.looseObject({
  eos_token_id: z.union([id, z.array(id)], { error: 'must be a token id or a list of them' }).nullish(),
  do_sample: z.boolean().nullish(),
  temperature: z.number().nonnegative().nullish(),
  top_k: z.int().nonnegative().nullish(),
  top_p: z.number().nonnegative().max(1).nullish(),
  repetition_penalty: z.number().positive().nullish(),
  max_new_tokens: z.int().positive().nullish(),
});
export type GenerationConfig = z.infer<typeof generationConfigSchema>;

export interface GenerationDefaults extends Omit<Sampling, 'seed' | 'temperature'> {
  /** Tokens that end an answer, in addition to the ends of turn and text. */
  stopTokenIds: readonly number[];
  maxNewTokens?: number;
  /** 0 is greedy. */
  temperature: number;
}

/** The defaults in a generation_config.json; `eos` are the end tokens in the model's config.json. */
export function generationDefaultsOf(config: GenerationConfig, eos: GenerationConfig['eos_token_id'] = []): GenerationDefaults {
  const { eos_token_id, do_sample, temperature, top_k, top_p, repetition_penalty, max_new_tokens } = config;
  return {
    stopTokenIds: [eos_token_id ?? eos ?? []].flat(),
    maxNewTokens: max_new_tokens ?? undefined,
    temperature: do_sample ? (temperature ?? 1) : 0,
    topK: top_k ?? (do_sample ? 50 : undefined),
    topP: top_p ?? undefined,
    repetitionPenalty: repetition_penalty ?? undefined,
  };
}

/** Fields that change answers and are not followed here, with the values that change nothing. */
const NOT_FOLLOWED: Readonly<Record<string, unknown>> = {
  bad_words_ids: [],
  begin_suppress_tokens: [],
  diversity_penalty: 0,
  encoder_repetition_penalty: 1,
  epsilon_cutoff: 0,
  eta_cutoff: 0,
  exponential_decay_length_penalty: [],
  force_words_ids: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  guidance_scale: 1,
  min_length: 0,
  min_new_tokens: 0,
  min_p: 0,
  no_repeat_ngram_size: 0,
  num_beams: 1,
  penalty_alpha: 0,
  sequence_bias: [],
  stop_strings: [],
  suppress_tokens: [],
  top_h: 1,
  typical_p: 1,
};

/** Names of the fields for which other software would answer otherwise. */
export function notFollowed(config: GenerationConfig): string[] {
  const changes = (value: unknown, neutral: unknown) => value !== neutral && (value as { length?: unknown }).length !== 0;
  return Object.entries(NOT_FOLLOWED)
    .filter(([name, neutral]) => config[name] !== undefined && config[name] !== null && changes(config[name], neutral))
    .map(([name]) => name);
}

/** Greedy with a repetition penalty: the likeliest token after it. */
export function greedySampling(repetitionPenalty = 1): Sampling | undefined {
  return repetitionPenalty === 1 ? undefined : { seed: 0, temperature: 1, topK: 1, repetitionPenalty };
}

/** What somebody asks for of sampling; what is not said is as the model's folder says. */
export type SamplingWishes = Partial<Sampling>;

/** The same wishes with a seed: the one that is asked for, or one that chance chooses. */
export const seeded = (wishes: SamplingWishes): SamplingWishes & { seed: number } => ({
  ...wishes,
  seed: wishes.seed ?? Math.floor(Math.random() * 2 ** 32),
});

/**
 * The sampling that is asked for, or nothing where that is a session's own way: greedy, with the penalty of
 * the model's folder. A temperature of 0 is greedy whatever else is asked for.
 */
export function samplingWith(wishes: SamplingWishes & { seed: number }, defaults: GenerationDefaults): Sampling | undefined {
  const { seed, temperature = defaults.temperature, topK = defaults.topK, topP = defaults.topP } = wishes;
  const { repetitionPenalty = defaults.repetitionPenalty ?? 1 } = wishes;
  // a session's own way is faster: it reads one number of all logits
  if (temperature === 0 && repetitionPenalty === (defaults.repetitionPenalty ?? 1)) return undefined;
  if (temperature === 0) return { seed, temperature: 1, topK: 1, repetitionPenalty };
  return { seed, temperature, topK, topP, repetitionPenalty };
}

/** The longest answer, in tokens: the model's own limit, but never so much that no room is left to ask. */
export function longestAnswer({ maxNewTokens = 64 }: Pick<GenerationDefaults, 'maxNewTokens'>, contextLength: number): number {
  return Math.min(maxNewTokens, Math.max(64, Math.floor(contextLength / 2)));
}
