import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inProcesses, memoryTransports } from '../../tests/processes.ts';
import { thisProcess } from '../process-life.ts';
import { createRandom } from '../random.ts';
import type { Communicator } from './communicator.ts';
import { messageCommunicator } from './messages.ts';
import { overTransport } from './open.ts';

/** Numbers whose sums depend on the order of additions. */
function numbers(rank: number, length: number): Float32Array {
  const random = createRandom(5, rank);
  return Float32Array.from({ length }, () => (random.uniform() - 0.5) * 10 ** random.integer(8));
}

/** The sum of a balanced tree. */
function treeSum(parts: readonly number[]): number {
  if (parts.length === 1) return parts[0];
  const half = parts.length / 2;
  return Math.fround(treeSum(parts.slice(0, half)) + treeSum(parts.slice(half)));
}

const allOf = (size: number, length: number) => Array.from({ length: size }, (_, rank) => numbers(rank, length));

describe('sum', () => {
  test.each([1, 2, 4, 8])('of %i processes is that of a balanced tree, to the bit', async (size) => {
    const parts = allOf(size, 1001);
    const expected = Float32Array.from({ length: 1001 }, (_, i) => treeSum(parts.map((part) => part[i])));
    if (size > 2) {
      const inOrder = expected.map((_, i) => parts.reduce((sum, part) => Math.fround(sum + part[i]), 0));
      expect(inOrder).not.toEqual(expected);
    }
    const sums = await inProcesses(size, async (communicator) => {
      const own = numbers(communicator.rank, 1001);
      await communicator.sum([own]);
      return own;
    });
    for (const sum of sums) expect(sum).toEqual(expected);
  });

  test('gives the same on all processes, however many there are and however the arrays are cut', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 2, max: 7 }),
        fc.array(fc.integer({ min: 0, max: 70_000 }), { maxLength: 4 }),
        async (size, lengths) => {
          const sums = await inProcesses(size, async (communicator) => {
            const arrays = lengths.map((length, i) => new Float32Array(length).fill(2 ** (communicator.rank + i)));
            await communicator.sum(arrays);
            return arrays;
          });
          const total = 2 ** size - 1;
          for (const arrays of sums)
            expect(arrays.map((array, i) => array.every((x) => x === total * 2 ** i))).toEqual(lengths.map(() => true));
        },
      ),
      { numRuns: 15 },
    );
  });

  test('sends no number more often than a sum must', async () => {
    const length = 1 << 16;
    const transports = memoryTransports(4);
    const all = transports.map((transport) => messageCommunicator(transport, { limit: 60, localSize: 4, onSilence: () => {} }));
    await Promise.all(all.map((communicator) => communicator.sum([new Float32Array(length)])));
    // a half, a quarter, and the way back
    for (const { sent } of transports) expect(sent).toBe(1.5 * length);
  });
});

test.each([1, 2, 3, 5, 8])('%i processes broadcast, share and gather', async (size) => {
  const bytes = (rank: number) => Uint8Array.from({ length: 3 * rank }, (_, i) => rank + i);
  const results = await inProcesses(size, async (communicator: Communicator) => {
    const { rank } = communicator;
    const from = size - 1;
    const array = Float32Array.of(rank, 10 * rank);
    await communicator.broadcast(array, from);
    await communicator.barrier();
    const gathered = await communicator.gather(bytes(rank));
    const shared = await communicator.share([rank, 0.1, -0]);
    await communicator.close();
    return { array, gathered, shared, localSize: communicator.localSize };
  });
  const ranks = Array.from({ length: size }, (_, rank) => rank);
  for (const [rank, { array, gathered, shared, localSize }] of results.entries()) {
    expect(array).toEqual(Float32Array.of(size - 1, 10 * (size - 1)));
    expect(shared).toEqual(ranks.map((of) => [of, 0.1, -0]));
    expect(gathered).toEqual(rank === 0 ? ranks.map(bytes) : []);
    expect(localSize).toBe(size);
  }
});

test('processes of other hosts do not count as local', async () => {
  const options = { limit: 60, onSilence: () => {} };
  const hosts = [7, 8, 7];
  const all = await Promise.all(
    memoryTransports(3).map((transport, i) => overTransport(transport, options, { host: hosts[i], process: thisProcess() })),
  );
  expect(all.map(({ localSize }) => localSize)).toEqual([2, 1, 2]);
});

test.runIf(process.platform === 'linux')(
  'a process of the same machine that has died ends the others long before their patience does',
  async () => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' });
    await once(child, 'spawn');
    const [, started] = /^.*\) (?:\S+ ){19}(\d+)/s.exec(readFileSync(`/proc/${child.pid}/stat`, 'utf8')) ?? [];
    const said: string[] = [];
    const transports = memoryTransports(2);
    const options = { limit: 60, onSilence: (sentence: string) => said.push(sentence) };
    const identities = [thisProcess(), { ...thisProcess(), pid: child.pid!, started }];
    const [waiting] = await Promise.all(
      transports.map((transport, i) => overTransport(transport, options, { host: 7, process: identities[i] })),
    );
    const start = performance.now();
    const sum = waiting.sum([new Float32Array(4)]);
    setTimeout(() => child.kill('SIGKILL'), 700);
    await expect(sum).rejects.toThrow('process 1 of 2 has died');
    expect(performance.now() - start).toBeGreaterThan(700);
    expect(performance.now() - start).toBeLessThan(5000);
    expect(said).toEqual(['process 1 of 2 has died: it was killed, perhaps for want of memory, or it crashed']);
    expect(transports[0].ended.codes).toEqual([1]);
  },
);

describe('lead', () => {
  test('has the others wait, and answer what they are asked', async () => {
    let isDone = false;
    const results = await inProcesses(3, async (communicator) => {
      const heard: number[] = [];
      await communicator.lead(
        async () => {
          for (const from of [2, 1, 2]) {
            const into = new Float32Array(2);
            await communicator.ask(from, 40 + from, into);
            heard.push(...into);
          }
          isDone = true;
        },
        async (question) => Float32Array.of(communicator.rank, question),
      );
      expect(isDone).toBe(true);
      return heard;
    });
    expect(results).toEqual([[2, 42, 1, 41, 2, 42], [], []]);
  });

  test('lets them go on where the work fails', async () => {
    const ends = await inProcesses(2, async (communicator) => {
      const work = communicator.lead(async () => {
        throw new Error('the disk is full');
      });
      return work.then(
        () => 'went on',
        ({ message }: Error) => message,
      );
    });
    expect(ends).toEqual(['the disk is full', 'went on']);
  });

  test('may take longer than a message, with signs of life', async () => {
    const options = { limit: 0.3, stagger: 0, localSize: 2, onSilence: (sentence: string) => expect.unreachable(sentence) };
    const work = () => new Promise<void>((resolve) => setTimeout(resolve, 900));
    await Promise.all(memoryTransports(2).map((transport) => messageCommunicator(transport, options).lead(work)));
  });
});

test.each<[string, number, (communicator: Communicator) => Promise<unknown>]>([
  ['a sum', 0, (communicator) => communicator.sum([new Float32Array(4)])],
  ['a sum', 1, (communicator) => communicator.sum([new Float32Array(4)])],
  ['a broadcast', 0, (communicator) => communicator.broadcast(new Float32Array(4), 1)],
  ['a few numbers', 0, (communicator) => communicator.share([1])],
  ['the work of the first', 1, (communicator) => communicator.lead(async () => {})],
])('%s that process %i waits for in vain ends all, with one sentence', async (_, rank, wait) => {
  const said: string[] = [];
  const transport = memoryTransports(2)[rank];
  const communicator = messageCommunicator(transport, {
    limit: 0.1,
    stagger: 0,
    localSize: 1,
    onSilence: (sentence) => said.push(sentence),
  });
  await expect(wait(communicator)).rejects.toThrow();
  expect(said).toEqual([
    `process ${1 - rank} of 2 has given no sign of life for 0.1 s: it hangs, its host or the network is gone, or it needs a longer --mpi-timeout`,
  ]);
  expect(transport.ended.codes).toEqual([1]);
});
