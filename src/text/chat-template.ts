// Chat templates as Jinja source: a tokenizer's, Gemma's, and any with contents in parts.
import { Template } from '@huggingface/jinja';
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

/**
 * Gemma's chat template, for tokenizers whose files bring none and for those that this project trains.
 * Behaves as the one in google/gemma-2b-it: `<bos>` first, no system role, strict alternation, contents
 * trimmed.
 */
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

/**
 * Turns contents that come in parts into text, each picture of a message as a line `<image>` before its
 * words: where LLaVA's data have it.
 */
const partsAsText = [
  "{%- set ns = namespace(messages=[], text='') -%}",
  '{%- for message in messages -%}',
  "{%- if message['content'] is string -%}{%- set ns.messages = ns.messages + [message] -%}{%- else -%}",
  "{%- set ns.text = '' -%}",
  "{%- for part in message['content'] if part['type'] == 'image' -%}{%- set ns.text = ns.text + '<image>\\n' -%}{%- endfor -%}",
  "{%- for part in message['content'] if part['type'] == 'text' -%}{%- set ns.text = ns.text + part['text'] -%}{%- endfor -%}",
  "{%- set ns.messages = ns.messages + [{'role': message['role'], 'content': ns.text}] -%}",
  '{%- endif -%}',
  '{%- endfor -%}',
  '{%- set messages = ns.messages -%}',
].join('\n');

/** Whether a template writes `<image>` and the words of a message whose content comes in parts. */
function takesParts(template: string): boolean {
  const content = [{ type: 'image' }, { type: 'text', text: 'words' }];
  try {
    const text = new Template(template).render({ messages: [{ role: 'user', content }], bos_token: '', eos_token: '' });
    return text.includes('<image>') && text.includes('words');
  } catch {
    return false;
  }
}

/**
 * The template with contents in parts, as processors of transformers hand them over; where they are text
 * already, it writes what it wrote.
 */
export function withParts(template: string): string {
  return takesParts(template) ? template : `${partsAsText}\n${template}`;
}
