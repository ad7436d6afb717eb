import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { UserError } from '../../errors.ts';
import { pointingQuestions } from './pointing.ts';

describe('questions with a box', () => {
  test('the box holds the drawing, and the rest of the picture is not all of it', async () => {
    const questions = await pointingQuestions(40, 3);
    expect(questions).toHaveLength(40);
    expect(new Set(questions.map(({ id }) => id)).size).toBe(40);
    expect(new Set(questions.map(({ task }) => task))).toEqual(new Set(['name', 'existence', 'colour', 'category']));
    for (const { picture, box, drawings, task, question, answer } of questions) {
      const { data, info } = await sharp(picture).raw().toBuffer({ resolveWithObject: true });
      const ground = data.subarray(0, 3);
      const isDrawn = (x: number, y: number) => {
        const at = (y * info.width + x) * info.channels;
        return [0, 1, 2].some((channel) => Math.abs(data[at + channel] - ground[channel]) > 8);
      };
      let [inside, outside] = [0, 0];
      for (let y = 0; y < info.height; y++)
        for (let x = 0; x < info.width; x++) {
          const [across, down] = [(x + 0.5) / info.width, (y + 0.5) / info.height];
          const isInside = across >= box.left && across < box.right && down >= box.top && down < box.bottom;
          if (isDrawn(x, y)) isInside ? inside++ : outside++;
        }
      expect(inside).toBeGreaterThan(40);
      // there are other drawings, each in a cell of its own
      expect(drawings).toBeGreaterThan(1);
      expect(outside).toBeGreaterThan(40);
      expect(Math.max(box.right - box.left, box.bottom - box.top)).toBeLessThan(0.5);
      const place = /at the (top|bottom) (left|right)/.exec(question);
      if (task === 'existence') expect([answer, place]).toEqual(['yes', null]);
      else {
        expect(place![1]).toBe(box.top + box.bottom < 1 ? 'top' : 'bottom');
        expect(place![2]).toBe(box.left + box.right < 1 ? 'left' : 'right');
      }
    }
  });

  test('the same seed gives the same questions', async () => {
    const [a, b, c] = await Promise.all([pointingQuestions(6, 3), pointingQuestions(6, 3), pointingQuestions(6, 4)]);
    expect(a).toEqual(b);
    expect(a).not.toEqual(c);
    await expect(pointingQuestions(2, 3, 'unseen-concepts')).rejects.toThrow(UserError);
  });
});
