// The communicator of this process: over MPI where a launcher has started several, else of one alone.

import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
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

/** A number that stands for this host. */
const hostNumber = () => createHash('sha256').update(hostname()).digest().readUIntBE(0, 6);

/** Joins the processes of a launch; undefined is none. UserErrors as of `openTransport`. */
export async function openCommunicator(launch: Launch | undefined, options: CommunicatorOptions): Promise<Communicator> {
  return launch === undefined ? alone : overTransport(await openTransport(launch), options);
}

/** A communicator over `transport` that knows who shares a host. */
export async function overTransport(transport: Transport, options: CommunicatorOptions, host = hostNumber()): Promise<Communicator> {
  const hosts = await messageCommunicator(transport, { ...options, localSize: 1 }).share([host]);
  return messageCommunicator(transport, { ...options, localSize: hosts.filter(([other]) => other === host).length });
}
