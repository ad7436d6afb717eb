import { expect, test } from 'vitest';
import { imagePlaces, type Turn } from './chat.ts';
import { shortAnswerPrompt } from './short-answer.ts';

const human = (value: string): Turn => ({ from: 'human', value });

test('places of pictures are counted over all turns', () => {
  expect(imagePlaces([human('What?')])).toBe(0);
  expect(imagePlaces([human('<image>\nWhat?')])).toBe(1);
  expect(imagePlaces([human('<image><image> What?'), { from: 'gpt', value: 'a cat' }, human('And <image>?')])).toBe(3);
});

test("short answers are asked for in the words of LLaVA's training data", () => {
  expect(shortAnswerPrompt).toBe('\nAnswer the question using a single word or phrase.');
});
