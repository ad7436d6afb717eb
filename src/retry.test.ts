import { expect, it } from 'vitest';
import { networkErrorOf, persist, retryAfterOf, TransientError } from './retry.ts';

const giveUp = (reason: string, tries: number) => new Error(`${reason}, ${tries} times`);

it('what a server asks to wait is seconds or a date, within limits', () => {
  const of = (value?: string) => retryAfterOf(new Headers(value === undefined ? {} : { 'retry-after': value }));
  expect([of(), of('7'), of('0.5'), of('9999'), of('-3'), of('soon')]).toEqual([0, 7, 0.5, 120, 0, 0]);
  const date = of(new Date(Date.now() + 20_000).toUTCString());
  expect(date).toBeGreaterThan(17);
  expect(date).toBeLessThanOrEqual(20);
  expect(of(new Date(Date.now() - 20_000).toUTCString())).toBe(0);
});

it('work is repeated while trouble may pass, and progress restarts the count', async () => {
  const pauses: string[] = [];
  const options = {
    pauses: [0.001, 0.002],
    gaveUp: giveUp,
    onPause: (reason: string, seconds: number) => pauses.push(`${reason} ${seconds}`),
  };
  let tries = 0;
  const failing = async () => {
    throw new TransientError(`try ${++tries}`, tries === 2 ? 0.01 : 0);
  };
  await expect(persist(failing, options)).rejects.toThrow('try 3, 3 times');
  expect(pauses).toEqual(['try 1 0.001', 'try 2 0.01']);
  tries = 0;
  await expect(persist(failing, { ...options, reached: () => Math.min(tries, 3) })).rejects.toThrow('try 5, 3 times');
  const other = async () => {
    throw new Error('for good');
  };
  await expect(persist(other, options)).rejects.toThrow('for good');
});

it('a pause ends with the signal', async () => {
  const stop = new AbortController();
  const work = persist(
    async () => {
      setTimeout(() => stop.abort(new Error('stopped')), 5);
      throw new TransientError('busy');
    },
    { pauses: [100], signal: stop.signal, gaveUp: giveUp },
  );
  await expect(work).rejects.toThrow('stopped');
});

it('the reason of a failed request lies at the bottom', () => {
  const refused = Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
  const several = new AggregateError([refused, new Error('another')]);
  expect(networkErrorOf(new TypeError('fetch failed', { cause: several })).code).toBe('ECONNREFUSED');
  expect(networkErrorOf(new Error('plain')).message).toBe('plain');
});
