// Where a Hugging Face folder keeps its chat template, in the order of transformers 5.18: the processor's
// files (processing_utils.py get_processor_dict), then the tokenizer's (tokenization_utils_base.py).

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readJsonFile, readTextFile } from './checkpoint.ts';

/** Files with a template as one field, and files that are one. The first that has one counts. */
const FILES = [
  'processor_config.json',
  'chat_template.json',
  'chat_template.jinja',
  'additional_chat_templates/default.jinja',
  'tokenizer_config.json',
];

/**
 * The chat template of the folder `dir`: Jinja source or, as some tokenizer_config.json have it, a list of
 * named ones. Undefined where there is none. UserError, naming the file, for one that cannot be read.
 */
export async function readChatTemplate(dir: string): Promise<unknown> {
  for (const name of FILES) {
    const file = join(dir, name);
    if (!existsSync(file)) continue;
    if (name.endsWith('.jinja')) return readTextFile(file);
    const template = ((await readJsonFile(file)) as { chat_template?: unknown } | null)?.chat_template;
    if (template !== undefined && template !== null) return template;
  }
  return undefined;
}
