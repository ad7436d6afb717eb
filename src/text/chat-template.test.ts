import { Template } from '@huggingface/jinja';
import { expect, test } from 'vitest';
import { gemmaChatTemplate } from './chat-template.ts';

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
