import { expect, test } from 'vitest';
import { problemOf, sentence } from './problems.ts';

test('what the server says is a sentence', () => {
  expect(sentence('the body is not valid JSON')).toBe('The body is not valid JSON.');
  expect(sentence(' Why? ')).toBe('Why?');
});

test.each<[number, unknown, string, string]>([
  [429, { error: { code: 'queue_full', message: 'too many requests: 8 wait already' } }, 'other', 'Too many questions are waiting already'],
  [400, { error: { code: 'invalid_image', message: 'Invalid image: it is damaged' } }, 'other', 'Invalid image: it is damaged.'],
  [401, { error: { code: 'invalid_api_key', message: 'x' } }, 'key', 'The server asks for an API key.'],
  [200, { error: { code: 'worker_died', message: 'x' } }, 'other', 'is being started again'],
  // a proxy before the server has words of its own, or none
  [413, undefined, 'other', 'too large a file'],
  [502, '<html>', 'other', 'status 502'],
  [400, { error: 'plain' }, 'other', 'status 400'],
  [400, { error: { code: 'constructor', message: 'own words' } }, 'other', 'Own words.'],
])('status %i with %j', (status, body, kind, text) => {
  const problem = problemOf(status, body);
  expect(problem.kind).toBe(kind);
  expect(problem.message).toContain(text);
});
