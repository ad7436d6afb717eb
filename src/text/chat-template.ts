// Which chat template a tokenizer has, and Gemma's as Jinja source, for tokenizers whose files bring none and
// for those that this project trains. Behaves as the one in google/gemma-2b-it: `<bos>` first, no system
// role, strict alternation, contents trimmed.
import { UserError } from '../errors.ts';

/**
 * The Jinja source of `chat_template` in a tokenizer's config: the text itself or, of a list of named ones,
 * the one called default. Gemma's where there is none. UserError where none of the list is meant for
 * answering.
 */
export function chatTemplateOf(chatTemplate: unknown): string {
  if (chatTemplate === undefined || chatTemplate === null) return gemmaChatTemplate;
  if (typeof chatTemplate === 'string') return chatTemplate;
  const named = Array.isArray(chatTemplate)
    ? chatTemplate.map((entry): [unknown, unknown] => [entry?.name, entry?.template])
    : Object.entries(chatTemplate);
  const [, template] = named.find(([name]) => name === 'default') ?? [];
  if (typeof template === 'string') return template;
  const names = named.map(([name]) => name).join(', ');
  throw new UserError(`the chat templates are called ${names}: the one to be used must be called default, or be chat_template.jinja`);
}

export const gemmaChatTemplate = [
  '{{ bos_token }}',
  '{% for message in messages %}',
  "{% set expected = 'user' if loop.index0 % 2 == 0 else 'assistant' %}",
  "{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
  "{% if message['role'] != expected %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}",
  "{{ '<start_of_turn>' + ('user' if expected == 'user' else 'model') + '\\n' }}",
  "{{ message['content'] | trim }}",
  "{{ '<end_of_turn>\\n' }}",
  '{% endfor %}',
  "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
].join('');
