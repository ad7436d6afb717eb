// Expected values: EvalAIAnswerProcessor of haotian-liu/LLaVA and VQAEval of GT-Vision-Lab/VQA, in Python.
import { describe, expect, it } from 'vitest';
import { evalAiAnswer, lmmsEvalAnswer, plainAnswer, vqaAnswer } from './vqa-answers.ts';

/** What is given, what the EvalAI processor makes of it and, where it differs, the VQA scorer. */
const cases: [given: string, evalAi: string, vqa?: string][] = [
  ['The Dog.', 'dog'],
  // punctuation beside a space is dropped, any other becomes a space: in the text as it was
  ['Coca-Cola', 'coca cola'],
  ['coca -cola', 'coca cola'],
  ['yes/no', 'yes no'],
  ['yes / no', 'yes no'],
  ['what?', 'what'],
  ['1,000', '1000'],
  ['1,,000', '1000', '1 000'],
  ['1,000 - ok', '1000 ok'],
  ['$1,000.00!', '$1000.00'],
  ['3.5', '3.5'],
  ['3.', '3'],
  ['a.b.c', 'abc'],
  ['isnt it', "isn't it"],
  ["somebody'd", 'somebodyd'],
  ["Somebodyd've", "somebody'd've"],
  ['Im', 'im'],
  ['none of the ten', '0 of 10'],
  ["Bob's", "bob 's", "bob's"],
  ['A', ''],
  [' two\tbirds\n', '2 birds'],
  ["It's a 5:00 p.m.", "it 's 5:00 pm", "it's 5:00 pm"],
  ['\u00a0ten\u2003men', '10 men'],
  ['constructor', 'constructor'],
];

describe('answers in one form', () => {
  it.each(cases)('%j', (given, evalAi, vqa = evalAi) => {
    expect(evalAiAnswer(given)).toBe(evalAi);
    expect(vqaAnswer(given)).toBe(vqa);
  });

  it('lose 32 full stops and keep the others', () => {
    expect(evalAiAnswer('.'.repeat(40))).toBe('.'.repeat(8));
    expect(vqaAnswer(`${'x. '.repeat(33)}end.`)).toBe(`${'x '.repeat(32)}x. end.`);
  });

  it('are left as they are, but for lines and spaces around, where annotators agree', () => {
    expect(plainAnswer('\tThe dog,\n black. ')).toBe('The dog,  black.');
    expect(lmmsEvalAnswer("1,,000 Bob's")).toBe("1000 bob's");
  });
});
