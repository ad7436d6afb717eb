// The tokenizer files of a LLaVA folder as transformers 5 writes and reads them, with what this project adds
// by itself when it reads a Gemma's: `<image>`, the turn markers and, where there is none, a chat template.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readJsonFile } from '../checkpoint/checkpoint.ts';
import { type TokenizerFiles, tokenizerFilesOf } from '../checkpoint/tokenizer-files.ts';
import { withParts } from '../text/chat-template.ts';
import { createTokenizer, imageToken, softImageToken, withSpecialTokens } from '../text/tokenizer.ts';
import { TRANSFORMERS_VERSION } from './hub-form.ts';

export const GENERATION_FILE = 'generation_config.json';

/** generation_config.json of a folder, or nothing where it has none. */
export async function readGenerationConfig(dir: string): Promise<Record<string, unknown>> {
  const path = join(dir, GENERATION_FILE);
  return existsSync(path) ? ((await readJsonFile(path)) as Record<string, unknown>) : {};
}

/**
 * tokenizer.json, tokenizer_config.json, chat_template.jinja and generation_config.json: text by file name.
 * Answers end where ours do, and where `generation` says. UserError if the tokenizer is not of Gemma's form.
 */
export function hubTokenizerFiles(
  { tokenizerJson, tokenizerConfig }: TokenizerFiles,
  generation: Record<string, unknown> = {},
): Record<string, string> {
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  const json = withSpecialTokens(tokenizerJson);
  const config: Record<string, unknown> = {
    // what a folder with tokenizer.json alone leaves to Gemma's
    tokenizer_class: 'GemmaTokenizer',
    bos_token: tokenizer.bosToken,
    eos_token: tokenizer.token(tokenizer.eosTokenId),
    pad_token: tokenizer.token(tokenizer.padTokenId),
    unk_token: tokenizer.token(tokenizer.unkTokenId),
    ...withOwnImageToken(tokenizerConfig),
    chat_template: withParts(tokenizer.chatTemplate),
    processor_class: 'LlavaProcessor',
  };
  if (tokenizerConfig.added_tokens_decoder)
    config.added_tokens_decoder = Object.fromEntries(json.added_tokens.map(({ id, ...token }) => [id, token]));
  const ends = [generation.eos_token_id ?? [], tokenizer.eosTokenId, tokenizer.endOfTurnTokenId].flat();
  const generationConfig = {
    bos_token_id: tokenizer.bosTokenId,
    pad_token_id: tokenizer.padTokenId,
    ...generation,
    eos_token_id: [...new Set(ends)],
    transformers_version: TRANSFORMERS_VERSION,
  };
  return {
    ...tokenizerFilesOf({ tokenizerJson: json, tokenizerConfig: config }),
    [GENERATION_FILE]: `${JSON.stringify(generationConfig, null, 2)}\n`,
  };
}

/**
 * The config without the tokens in which Gemma 3 puts its own images: transformers' LlavaProcessor takes a
 * tokenizer's `image_token` before that of the processor, and writes it in place of `<image>`.
 */
function withOwnImageToken({ boi_token, eoi_token, ...config }: Record<string, unknown>): Record<string, unknown> {
  if ('image_token' in config) config.image_token = imageToken;
  const { extra_special_tokens: extra } = config;
  if (Array.isArray(extra)) return { ...config, extra_special_tokens: extra.filter((token) => token !== softImageToken) };
  if (typeof extra !== 'object' || extra === null) return config;
  const { image_token, boi_token: _, eoi_token: __, ...others } = extra as Record<string, unknown>;
  return { ...config, extra_special_tokens: { ...others, ...(image_token === undefined ? {} : { image_token: imageToken }) } };
}
