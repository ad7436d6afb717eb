import { expect, test } from 'vitest';
import { createModelPool, type Resident } from './model-pool.ts';

/** A model whose going is seen. */
function model(name: string, gone: string[], isBusy = false): Resident {
  return {
    isBusy,
    vacate: async () => void gone.push(name),
  };
}

test('the model that was used longest ago goes', async () => {
  const gone: string[] = [];
  const pool = createModelPool(2);
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((name) => model(name, gone));
  for (const each of [a, b]) await pool.enter(each);
  pool.touch(a);
  await pool.enter(c);
  expect(gone).toEqual(['b']);
  await pool.enter(d);
  expect(gone).toEqual(['b', 'a']);
});

test('one that is at work stays before one that rests', async () => {
  const gone: string[] = [];
  const pool = createModelPool(2);
  await pool.enter(model('busy', gone, true));
  await pool.enter(model('idle', gone));
  await pool.enter(model('next', gone, true));
  expect(gone).toEqual(['idle']);
  await pool.enter(model('last', gone));
  expect(gone).toEqual(['idle', 'busy']);
});

test('a place that somebody left needs no victim, and places are given in order', async () => {
  const gone: string[] = [];
  const pool = createModelPool(1);
  const first = model('first', gone);
  await pool.enter(first);
  pool.leave(first);
  const entered: string[] = [];
  await Promise.all(['second', 'third'].map(async (name) => pool.enter(model(name, gone)).then(() => entered.push(name))));
  expect(entered).toEqual(['second', 'third']);
  expect(gone).toEqual(['second']);
});
