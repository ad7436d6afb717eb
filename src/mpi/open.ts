// The communicator of this process: over MPI where a launcher has started several, else of one alone.

import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import { lifeOf, type ProcessIdentity, thisProcess } from '../process-life.ts';
import { alone, type Communicator } from './communicator.ts';
import type { Launch } from './launcher.ts';
import { openTransport } from './library.ts';
import { messageCommunicator, type Transport } from './messages.ts';

export interface CommunicatorOptions {
  /** Seconds that a single message may take before all processes are ended. */
  limit: number;
  /** Is told why, in one sentence. */
  onSilence: (sentence: string) => void;
}

/** A number that stands for a name. */
const numberOf = (name: string) => createHash('sha256').update(name).digest().readUIntBE(0, 6);

/** What the processes tell each other of themselves. */
interface Introduction {
  host: number;
  process: ProcessIdentity;
}

/** Joins the processes of a launch; undefined is none. UserErrors as of `openTransport`. */
export async function openCommunicator(launch: Launch | undefined, options: CommunicatorOptions): Promise<Communicator> {
  return launch === undefined ? alone : overTransport(await openTransport(launch), options);
}

/** A communicator over `transport` that knows who shares a host, and sees who of its machine has ended. */
export async function overTransport(
  transport: Transport,
  options: CommunicatorOptions,
  { host, process }: Introduction = { host: numberOf(hostname()), process: thisProcess() },
): Promise<Communicator> {
  const { pid, machine = '', started = '-1' } = process;
  const own = [host, numberOf(machine), pid, Number(started)];
  const all = await messageCommunicator(transport, { ...options, localSize: 1 }).share(own);
  const hasEnded = (rank: number) => {
    const [, where, pid, started] = all[rank];
    return where === own[1] && lifeOf({ machine, pid, started: started < 0 ? undefined : String(started) }) === 'gone';
  };
  return messageCommunicator(transport, { ...options, localSize: all.filter(([other]) => other === host).length, hasEnded });
}
