// Processes of a run that are none: communicators in this process, whose messages pass through memory.
import type { Communicator } from '../src/mpi/communicator.ts';
import type { Transport } from '../src/mpi/messages.ts';
import { overTransport } from '../src/mpi/open.ts';

/** Messages under way from one process to another. */
class Mailbox {
  private readonly messages: Float32Array[] = [];
  private readonly waiting: ((message: Float32Array) => void)[] = [];

  put(message: Float32Array): void {
    const taker = this.waiting.shift();
    if (taker) taker(message.slice());
    else this.messages.push(message.slice());
  }

  async take(into: Float32Array): Promise<void> {
    const message = this.messages.shift() ?? (await new Promise<Float32Array>((resolve) => this.waiting.push(resolve)));
    if (message.length !== into.length) throw new Error(`a message of ${message.length} numbers for ${into.length}`);
    into.set(message);
  }

  get isEmpty(): boolean {
    return this.messages.length === 0;
  }
}

export interface MemoryTransport extends Transport {
  /** Codes that `abort` was called with, and whether the process took leave. */
  ended: { codes: number[]; isClosed: boolean };
  /** Numbers that it sent. */
  sent: number;
}

/** Transports between `size` processes. A message to one that nobody listens in waits for ever. */
export function memoryTransports(size: number): MemoryTransport[] {
  const boxes = new Map<string, Mailbox>();
  const box = (from: number, to: number, tag: number) => {
    const name = `${from} ${to} ${tag}`;
    const known = boxes.get(name) ?? new Mailbox();
    boxes.set(name, known);
    return known;
  };
  return Array.from({ length: size }, (_, rank) => {
    const transport: MemoryTransport = {
      rank,
      size,
      ended: { codes: [], isClosed: false },
      sent: 0,
      async send(to, tag, data) {
        transport.sent += data.length;
        box(rank, to, tag).put(data);
      },
      receive: (from, tag, into) => box(from, rank, tag).take(into),
      async exchange(peer, tag, data, into) {
        await transport.send(peer, tag, data);
        await transport.receive(peer, tag, into);
      },
      hasMessage: (from, tag) => !box(from, rank, tag).isEmpty,
      abort: (code) => void transport.ended.codes.push(code),
      close: () => {
        transport.ended.isClosed = true;
      },
    };
    return transport;
  });
}

/** Runs `body` once a process, all at the same time, and returns what each gives. */
export async function inProcesses<T>(size: number, body: (communicator: Communicator) => Promise<T>): Promise<T[]> {
  const options = { limit: 60, onSilence: () => {} };
  return Promise.all(memoryTransports(size).map(async (transport) => body(await overTransport(transport, options))));
}
