import { Template } from '@huggingface/jinja';
import { expect, test } from 'vitest';
import { gemmaChatTemplate, withParts } from './chat-template.ts';

const render = (roles: string[], addGenerationPrompt = false) =>
  new Template(gemmaChatTemplate).render({
    messages: roles.map((role, i) => ({ role, content: ` ${i}\n` })),
    add_generation_prompt: addGenerationPrompt,
    bos_token: '<bos>',
  });

// What google/gemma-2b-it's own template gives.
test('lays a conversation out as Gemma does', () => {
  const question = '<bos><start_of_turn>user\n0<end_of_turn>\n';
  const answer = '<start_of_turn>model\n1<end_of_turn>\n';
  expect(render(['user'])).toBe(question);
  expect(render(['user', 'assistant'])).toBe(question + answer);
  expect(render(['user', 'assistant', 'user'], true)).toBe(
    `${question}${answer}<start_of_turn>user\n2<end_of_turn>\n<start_of_turn>model\n`,
  );
});

test.each([
  [['system'], 'System role not supported'],
  [['user', 'system'], 'System role not supported'],
  [['assistant'], 'Conversation roles must alternate'],
  [['user', 'user'], 'Conversation roles must alternate'],
  [['user', 'assistant', 'assistant'], 'Conversation roles must alternate'],
])('refuses %j', (roles, message) => {
  expect(() => render(roles)).toThrow(message);
});

const rendered = (template: string, contents: unknown[]) =>
  new Template(template).render({
    messages: contents.map((content, i) => ({ role: i % 2 === 0 ? 'user' : 'assistant', content })),
    add_generation_prompt: true,
    bos_token: '<bos>',
  });

test('contents in parts are laid out as the text that the model was trained on', () => {
  const image = { type: 'image' };
  const text = (words: string) => ({ type: 'text', text: words });
  const template = withParts(gemmaChatTemplate);
  const question = rendered(gemmaChatTemplate, ['<image>\nWhat is it?', 'a cat', 'Sure?']);
  expect(rendered(template, ['<image>\nWhat is it?', 'a cat', 'Sure?'])).toBe(question);
  expect(rendered(template, [[image, text('What is it?')], [text('a cat')], [text('Sure?')]])).toBe(question);
  // pictures go first, as LLaVA moves them
  expect(rendered(template, [[text('What is it?'), image], 'a cat', 'Sure?'])).toBe(question);
  expect(rendered(template, [[image, image, text('Which?')]])).toContain('user\n<image>\n<image>\nWhich?<end_of_turn>');
});

test('a template that takes parts already is left alone', () => {
  const template = withParts(gemmaChatTemplate);
  expect(withParts(template)).toBe(template);
  const own =
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}";
  expect(withParts(own)).toBe(own);
});
