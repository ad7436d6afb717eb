import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { type ChildProgress, errorOf, MachineError, workInChild } from './child.ts';
import { NotFiniteError } from './optimizer.ts';

const folder = mkdtempSync(join(tmpdir(), 'child-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** A process of a few lines that speaks as child-side.ts does. */
function processOf(name: string, lines: string): URL {
  const path = join(folder, `${name}.mjs`);
  writeFileSync(path, lines);
  return pathToFileURL(path);
}

const never = new AbortController().signal;

it('a process that dies says why: by its last words, or by what ended it', async () => {
  const words = processOf('words', "console.error('one\\nno such device'); process.exit(3)");
  await expect(workInChild(words, 'the run', {}, { signal: never })).rejects.toThrow(
    new MachineError('the run ended without a word: no such device'),
  );
  const thrown = processOf('thrown', "throw new TypeError('no such part')");
  await expect(workInChild(thrown, 'the run', {}, { signal: never })).rejects.toThrow('without a word: TypeError: no such part');
  const silent = processOf('silent', 'process.exit(3)');
  await expect(workInChild(silent, 'the run', {}, { signal: never })).rejects.toThrow('its code was 3');
  if (process.platform === 'win32') return;
  const killed = processOf('killed', "process.kill(process.pid, 'SIGKILL')");
  await expect(workInChild(killed, 'the run', {}, { signal: never })).rejects.toThrow('SIGKILL, or the machine has run out of memory');
});

it('a process that is to stop saves first, and the reason of the signal is thrown', async () => {
  const stopping = processOf(
    'stopping',
    `process.on('message', (message) => {
      if ('work' in message) process.send({ progress: \`half of \${message.work}\` });
      else process.send({ stopped: true }, () => process.exit());
    });`,
  );
  const controller = new AbortController();
  const told: ChildProgress[] = [];
  const onProgress = (progress: ChildProgress) => {
    told.push(progress);
    controller.abort(new Error('enough'));
  };
  await expect(workInChild(stopping, 'the run', 'it', { signal: controller.signal, onProgress })).rejects.toThrow('enough');
  expect(told).toEqual(['half of it']);
  await expect(workInChild(stopping, 'the run', 'it', { signal: controller.signal })).rejects.toThrow('enough');
});

it('what it gives comes back, and what went wrong as the error that it was', async () => {
  const usage = { seconds: 1, cpuSeconds: 1, peakRssMb: 1 };
  const echo = processOf('echo', "process.on('message', ({ work }) => process.send(work, () => process.exit()));");
  expect(await workInChild(echo, 'the run', { result: [1, 2], usage }, { signal: never })).toEqual({ result: [1, 2], usage });
  const end = await workInChild(echo, 'the run', { error: { message: 'lr: must be above 0', kind: 'user' }, usage }, { signal: never });
  expect(errorOf((end as { error: Parameters<typeof errorOf>[0] }).error)).toEqual(new UserError('lr: must be above 0'));
  expect(errorOf({ message: 'a NaN', kind: 'not-finite' })).toBeInstanceOf(NotFiniteError);
  expect(errorOf({ message: 'a full disk', kind: 'machine' })).toBeInstanceOf(MachineError);
  expect(errorOf({ message: 'a fault', stack: 'at line 7', kind: 'other' }).stack).toBe('at line 7');
});
