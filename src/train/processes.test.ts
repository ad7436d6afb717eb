import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { inProcesses } from '../../tests/processes.ts';
import { batchShare, bindingNote, checkShares, gatherFeatures, gatherValues, requireSame, requireShared, threadsOf } from './processes.ts';
import type { Recipe } from './recipe.ts';

describe('batches of a step', () => {
  test.each([1, 2, 4])('are shared by %i processes in their order, each once', (size) => {
    const shares = Array.from({ length: size }, (_, rank) => batchShare({ rank, size }, 8));
    const batches = shares.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i));
    expect(batches).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  const recipe = (accumulation: number, batch_size: number) =>
    ({
      stages: [
        { name: 'first', accumulation: 4, batch_size: 1 },
        { name: 'second', accumulation, batch_size },
      ],
    }) as unknown as Recipe;

  test('that cannot be shared are an error, with the settings that would work', () => {
    expect(() => checkShares(recipe(8, 1), 4)).not.toThrow();
    expect(() => checkShares(recipe(1, 3), 1)).not.toThrow();
    expect(() => checkShares(recipe(2, 16), 4)).toThrow(
      'stage second: a step has accumulation 2, which 4 processes cannot share: give --set stages.1.accumulation=4 --set stages.1.batch_size=8, which leaves 32 samples in a step, or another number of processes',
    );
    expect(() => checkShares(recipe(1, 3), 2)).toThrow(
      'stage second: a step has accumulation 1, which 2 processes cannot share: give --set stages.1.accumulation=2 and a batch_size, or as many processes as divide 1',
    );
  });
});

describe('threads', () => {
  test.each([
    // cores of the host, processes there, cores that this one may use: threads
    [8, 2, 8, 4],
    [8, 3, 8, 2],
    [2, 4, 2, 1],
    // bound
    [8, 2, 1, 1],
    [8, 2, 4, 4],
  ])('%i cores, %i processes, %i usable: %i', (cores, localSize, usable, expected) => {
    expect(threadsOf({ localSize }, cores, usable)).toBe(expected);
  });

  test('a process that is bound to one core of several is told how to use them', () => {
    expect(bindingNote({ localSize: 2 }, 8, 1)).toBe(
      'each process is bound to one core, and could have 4: start with mpirun --bind-to none, or srun --cpu-bind=none',
    );
    expect(bindingNote({ localSize: 2 }, 8, 8)).toBeUndefined();
    expect(bindingNote({ localSize: 4 }, 4, 1)).toBeUndefined();
  });
});

const outcomeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'fine',
    ({ message }: Error) => message,
  );

describe('what all must have', () => {
  test('is compared with that of the first, by name', async () => {
    const outcomes = await inProcesses(3, (communicator) => {
      const { rank } = communicator;
      const own = [
        { name: 'the recipe', content: 'a' },
        { name: 'data.json', content: rank === 2 ? 'other bytes' : 'bytes' },
      ];
      return outcomeOf(requireSame(communicator, own));
    });
    expect(outcomes.slice(0, 2)).toEqual(['fine', 'fine']);
    expect(outcomes[2]).toMatch(/^process 2 of 3 on .*: data\.json is not the same as for process 0$/);
  });

  test('is a folder that they share', async () => {
    const folders = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'shared-')));
    const where = (folder: (rank: number) => string) =>
      inProcesses(2, (communicator) =>
        outcomeOf(
          Promise.race([requireShared(communicator, folder(communicator.rank), 0.2), new Promise((resolve) => setTimeout(resolve, 600))]),
        ),
      );
    expect(await where(() => folders[0])).toEqual(['fine', 'fine']);
    expect(readdirSync(folders[0])).toEqual([]);
    const [, other] = await where((rank) => folders[rank]);
    expect(other).toMatch(
      /^process 1 of 2 on .* does not see what process 0 has written to .*: start all in the same folder of a disk that their hosts share$/,
    );
    for (const folder of folders) rmSync(folder, { recursive: true });
  });
});

test('values and features are gathered on the first, in the order of the processes', async () => {
  const gathered = await inProcesses(3, async (communicator) => {
    const { rank } = communicator;
    const keys = Array.from({ length: rank }, (_, i) => `${rank}${i}`.repeat(32));
    const features = Float32Array.from({ length: 2 * rank }, (_, i) => rank + i / 10);
    return { values: await gatherValues(communicator, { rank }), features: await gatherFeatures(communicator, { keys, features }) };
  });
  expect(gathered[0].values).toEqual([{ rank: 0 }, { rank: 1 }, { rank: 2 }]);
  expect(gathered[0].features).toEqual([
    { keys: [], features: new Float32Array(0) },
    { keys: ['10'.repeat(32)], features: Float32Array.of(1, 1.1) },
    { keys: ['20'.repeat(32), '21'.repeat(32)], features: Float32Array.of(2, 2.1, 2.2, 2.3) },
  ]);
  for (const { values, features } of gathered.slice(1)) expect([values, features]).toEqual([[], []]);
});
