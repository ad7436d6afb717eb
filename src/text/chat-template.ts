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

/** A message as templates of vision models want it: pictures and stretches of text. */
export type Part = { type: 'image' } | { type: 'text'; text: string };

const question = 'a question';
const textPart: Part = { type: 'text', text: question };

/** What a template makes of one question, or nothing where it refuses it. */
function shown(template: Template, tokens: Readonly<Record<string, string>>, content: string | Part[]): string {
  try {
    return template.render({ messages: [{ role: 'user', content }], add_generation_prompt: true, ...tokens });
  } catch {
    return '';
  }
}

/** Whether a template writes `<image>` and the words of a message whose content comes in parts. */
function placesPictures(template: Template, tokens: Readonly<Record<string, string>>): boolean {
  const text = shown(template, tokens, [{ type: 'image' }, textPart]);
  return text.includes('<image>') && text.includes(question);
}

/**
 * Whether a template makes the place of a picture out of a part, or loses the text of a message that is one
 * text. It is found by trying, which holds however the template is written. `tokens`: special ones by name.
 */
export function takesParts(template: Template, tokens: Readonly<Record<string, string>>): boolean {
  if (placesPictures(template, tokens)) return true;
  return !shown(template, tokens, question).includes(question) && shown(template, tokens, [textPart]).includes(question);
}

function placesPicturesInText(template: string): boolean {
  try {
    return placesPictures(new Template(template), { bos_token: '', eos_token: '' });
  } catch {
    return false;
  }
}

/**
 * The template with contents in parts, as processors of transformers hand them over; where they are text
 * already, it writes what it wrote.
 */
export function withParts(template: string): string {
  return placesPicturesInText(template) ? template : `${partsAsText}\n${template}`;
}
