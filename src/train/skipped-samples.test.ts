import { expect, it } from 'vitest';
import type { SampleFault } from '../data/llava-json.ts';
import { alone } from '../mpi/communicator.ts';
import { skippedSamples } from './skipped-samples.ts';

it('a process that writes no list takes more faults than a call could have arguments', () => {
  const faults = Array.from({ length: 200_000 }, (_, position): SampleFault => ({ file: 'a.json', position, sample: 'a', reason: 'bad' }));
  const { leaveOut } = skippedSamples('stage', { out: 'nowhere', communicator: { ...alone, rank: 1 } });
  expect(() => leaveOut(faults)).not.toThrow();
});
