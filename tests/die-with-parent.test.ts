import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, it } from 'vitest';

const guard = new URL('die-with-parent.mjs', import.meta.url).href;

it.each<NodeJS.Signals>(['SIGTERM', 'SIGKILL'])('a process ends when the one that started it has died of %s', async (signal) => {
  const starter = `
    import { spawn } from 'node:child_process';
    const options = { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] };
    spawn(process.execPath, ['--import', ${JSON.stringify(guard)}, '-e', 'console.log("up"); setInterval(() => {}, 1000)'], options);
  `;
  const parent = spawn(process.execPath, ['--input-type=module', '-e', starter], { stdio: ['ignore', 'pipe', 'inherit'] });
  // the two share their output: it ends when both have ended
  const ended = Promise.all([once(parent.stdout!, 'close'), once(parent, 'exit')]);
  await once(parent.stdout!, 'data');
  parent.kill(signal);
  await ended;
  expect(parent.signalCode).toBe(signal);
});

it('a process that has nothing left to do is not kept alive by it', async () => {
  const child = spawn(process.execPath, ['--import', guard, '-e', '1'], { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] });
  expect(await once(child, 'close')).toEqual([0, null]);
});
