// The tokenizer files of a Hugging Face folder, parsed: what `createTokenizer` (text/tokenizer.ts) takes.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readJsonFile } from './checkpoint.ts';

export interface TokenizerFiles {
  tokenizerJson: unknown;
  tokenizerConfig: Record<string, unknown>;
}

/**
 * Reads tokenizer.json and tokenizer_config.json of `dir`; a chat_template.jinja next to them, as
 * transformers 5 writes it, replaces the config's `chat_template`. Throws UserError if a file is missing or
 * not JSON.
 */
export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles> {
  const tokenizerJson = await readJsonFile(join(dir, 'tokenizer.json'));
  const tokenizerConfig = { ...((await readJsonFile(join(dir, 'tokenizer_config.json'))) as Record<string, unknown>) };
  const template = join(dir, 'chat_template.jinja');
  if (existsSync(template)) tokenizerConfig.chat_template = await readFile(template, 'utf8');
  return { tokenizerJson, tokenizerConfig };
}

/**
 * Tokenizer files as text, by file name, for saving in a folder. transformers 5 finds the chat template in
 * chat_template.jinja, older software in tokenizer_config.json.
 */
export function tokenizerFilesOf({ tokenizerJson, tokenizerConfig }: TokenizerFiles): Record<string, string> {
  const { chat_template: template } = tokenizerConfig;
  return {
    'tokenizer.json': JSON.stringify(tokenizerJson),
    'tokenizer_config.json': `${JSON.stringify(tokenizerConfig, null, 2)}\n`,
    ...(typeof template === 'string' ? { 'chat_template.jinja': template } : {}),
  };
}
