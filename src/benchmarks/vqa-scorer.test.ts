import { describe, expect, it } from 'vitest';
import { agreement, agreementOfDistinct, vqaForms } from './vqa-scorer.ts';

const ten = (answer: string, count: number, other = 'other') => [...Array(count).fill(answer), ...Array(10 - count).fill(other)];

describe('agreement with ten annotators', () => {
  it('leaves each out in turn', () => {
    const credits = [0, 1, 2, 3, 4, 10].map((count) => agreement('yes', ten('yes', count)));
    expect(credits).toEqual([0, 0.3, 0.6, 0.9, 1, 1].map((credit) => expect.closeTo(credit, 12)));
  });

  it('leaves out all equal entries where nothing tells them apart', () => {
    const same = Array(10).fill('');
    expect(agreementOfDistinct('yes', ten('yes', 4), same)).toBeCloseTo(0.6, 12);
    expect(agreementOfDistinct('yes', ten('yes', 10), same)).toBe(0);
    const numbered = same.map((_, i) => String(i));
    expect(agreementOfDistinct('yes', ten('yes', 3), numbered)).toBeCloseTo(0.9, 12);
    // two sure and two unsure ones: each of the four leaves the two others
    const sure = ['yes', 'yes', 'no', 'no', ...Array(6).fill('yes')];
    expect(agreementOfDistinct('yes', ten('yes', 4), sure)).toBeCloseTo((4 * (2 / 3) + 6) / 10, 12);
  });

  it('processes answers only where the ten differ', () => {
    expect(vqaForms('The Dog.', Array(10).fill('dog'))).toEqual({ answer: 'The Dog.', references: Array(10).fill('dog') });
    expect(vqaForms('The Dog.', ten('a dog', 9)).answer).toBe('dog');
    expect(vqaForms('two', ['two ', 'two\n']).answer).toBe('two');
  });
});
