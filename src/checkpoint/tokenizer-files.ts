// The tokenizer files of a Hugging Face folder, parsed: what `createTokenizer` (text/tokenizer.ts) takes.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../errors.ts';
import { readChatTemplate } from './chat-template-files.ts';
import { readJsonFile } from './checkpoint.ts';

export interface TokenizerFiles {
  tokenizerJson: unknown;
  tokenizerConfig: Record<string, unknown>;
}

/**
 * Reads tokenizer.json and, if it is there, tokenizer_config.json of `dir`; `chat_template` is the folder's,
 * whichever of its files has it. Throws UserError if tokenizer.json is missing or a file is not JSON.
 */
export async function readTokenizerFiles(dir: string): Promise<TokenizerFiles> {
  const tokenizerFile = join(dir, 'tokenizer.json');
  if (!existsSync(tokenizerFile) && existsSync(join(dir, 'tokenizer.model')))
    throw new UserError(
      `${dir} has tokenizer.model alone, SentencePiece's format, which is not read: make tokenizer.json of it once in Python (AutoTokenizer.from_pretrained, then save_pretrained), or take it from the model's page on the hub`,
    );
  const tokenizerJson = await readJsonFile(tokenizerFile);
  const configFile = join(dir, 'tokenizer_config.json');
  const config = existsSync(configFile) ? ((await readJsonFile(configFile)) as Record<string, unknown>) : {};
  const chat_template = await readChatTemplate(dir);
  return { tokenizerJson, tokenizerConfig: { ...config, ...(chat_template === undefined ? {} : { chat_template }) } };
}

/** Tokenizer files as text, by file name, for saving in a folder. */
export function tokenizerFilesOf({ tokenizerJson, tokenizerConfig }: TokenizerFiles): Record<string, string> {
  return {
    'tokenizer.json': JSON.stringify(tokenizerJson),
    'tokenizer_config.json': `${JSON.stringify(tokenizerConfig, null, 2)}\n`,
  };
}
