import { expect, it } from 'vitest';
import { exchangedPictures, withExchangedPictures } from './exchanged.ts';

const exchanged = (lists: readonly string[][]) =>
  exchangedPictures(
    lists,
    (pictures) => pictures,
    (picture) => picture,
  );

it.each([2, 3, 4, 5, 6, 7, 100, 101])('%i pictures each take the place of another, one each', (count) => {
  const names = Array.from({ length: count }, (_, i) => `${i}`);
  // each is asked about twice, and both questions get the same one
  const others = exchanged([...names, ...names].map((name) => [name])).map((pictures) => pictures![0]);
  expect(new Set(others.slice(0, count)).size).toBe(count);
  for (const [i, other] of others.entries()) expect(other).not.toBe(names[i % count]);
  expect(others.slice(count)).toEqual(others.slice(0, count));
  // as far as can be from its own in the order of the file
  expect(others[0]).toBe(names[Math.floor(count / 2)]);
});

it('questions with several pictures take those of questions with as many', () => {
  const lists = [['a'], ['b', 'c'], [], ['d'], ['e', 'f'], ['g', 'h'], ['i', 'j', 'k']];
  expect(exchanged(lists)).toEqual([['d'], ['e', 'f'], undefined, ['a'], ['g', 'h'], ['b', 'c'], undefined]);
});

it('questions of which there is no other are left out', () => {
  const question = (...imagePaths: string[]) => ({
    id: `${imagePaths}`,
    imagePaths,
    images: [],
    prompt: [],
    task: '',
    split: '',
    expected: '',
  });
  const questions = [question('a'), question('b', 'c'), question('a'), question('d')];
  expect(withExchangedPictures(questions).map(({ id, imagePaths }) => [id, ...imagePaths])).toEqual([
    ['a', 'd'],
    ['a', 'd'],
    ['d', 'a'],
  ]);
});
