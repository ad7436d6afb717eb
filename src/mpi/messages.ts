// A communicator over plain messages between two processes. The sums are ours, not MPI_Allreduce's, whose
// order of additions is the library's business: halves of the vector are exchanged with the neighbor,
// quarters with the neighbor's neighbor and so on, then all is gathered the same way back (Rabenseifner
// 2004). Each element is so the sum of a balanced tree over the ranks, and travels twice.

import { setImmediate as immediate, setTimeout as sleep } from 'node:timers/promises';
import type { Communicator } from './communicator.ts';

/** Messages of float32, in order between two processes and by tag. */
export interface Transport {
  readonly rank: number;
  readonly size: number;
  send(to: number, tag: number, data: Float32Array): Promise<void>;
  receive(from: number, tag: number, into: Float32Array): Promise<void>;
  /** Both at once. */
  exchange(peer: number, tag: number, data: Float32Array, into: Float32Array): Promise<void>;
  /** Whether a message is there to be received. */
  hasMessage(from: number, tag: number): boolean;
  abort(code: number): void;
  close(): void;
}

export interface MessageOptions {
  /** Seconds that a single message may take. */
  limit: number;
  /**
   * Seconds for which each process waits longer than the one before it: the first to lose patience ends the
   * others before they say the same. Default: 2.
   */
  stagger?: number;
  /** How many processes run on this one's host. */
  localSize: number;
  /** Whether a process is known to have ended. Default: nothing is known of any. */
  hasEnded?: (rank: number) => boolean;
  /** Is told in one sentence that another process is silent or has ended; then all are ended. */
  onSilence: (sentence: string) => void;
}

const TAGS = { sum: 1, broadcast: 2, gather: 3, control: 4, answer: 5 } as const;

/** What process 0 says to those that wait for it; anything from 0 on is a question. */
const [ALIVE, DONE] = [-1, -2];

/** Numbers that are added up at a time: 16 MB. */
const PIECE = 2 ** 22;
/** Arrays of fewer numbers than this share a message. */
const SMALL = 2 ** 16;

/**
 * A message is looked for in every turn of the event loop for so many milliseconds, then once in so many.
 */
const POLL = { eager: 2, every: 1 };

/**
 * Most milliseconds that count between two looks at the clock: a process that was suspended with all others,
 * or that computes, has not waited.
 */
const LOOK = 1000;

/** Milliseconds of waiting for a process between two looks at whether it is still there. */
const CHECK = 500;

/** Milliseconds that one who is gone is waited for: what it sent comes in, or the launcher ends all. */
const MOURNING = 2000;

/** A communicator whose messages `transport` carries. */
export function messageCommunicator(transport: Transport, options: MessageOptions): Communicator {
  const { rank, size } = transport;
  const { limit, stagger = 2, localSize, hasEnded = () => false, onSilence } = options;
  const patience = 1000 * (limit + stagger * Math.min(rank, 10));

  const lost = (sentence: string): Error => {
    onSilence(sentence);
    transport.abort(1);
    return new Error(sentence);
  };

  /** Counts the time that is waited for a process, whose silence is an error, as is its end. */
  const patienceWith = (peer: number) => {
    let [waited, last, checked, gone] = [0, performance.now(), 0, 0];
    return () => {
      const now = performance.now();
      waited += Math.min(now - last, LOOK);
      last = now;
      if (waited - checked >= CHECK) {
        gone = hasEnded(peer) ? gone + waited - checked : 0;
        checked = waited;
        if (gone >= MOURNING) throw lost(`process ${peer} of ${size} has died: it was killed, perhaps for want of memory, or it crashed`);
      }
      if (waited >= patience)
        throw lost(
          `process ${peer} of ${size} has given no sign of life for ${limit} s: it hangs, its host or the network is gone, or it needs a longer --mpi-timeout`,
        );
      return waited;
    };
  };
  const limited = async (peer: number, message: Promise<void>): Promise<void> => {
    const look = patienceWith(peer);
    let timer: NodeJS.Timeout | undefined;
    const tooLong = new Promise<never>((_, reject) => {
      timer = setInterval(() => {
        try {
          look();
        } catch (error) {
          clearInterval(timer);
          reject(error);
        }
      }, Math.min(LOOK, patience) / 4);
    });
    try {
      await Promise.race([message, tooLong]);
    } finally {
      clearInterval(timer);
    }
  };
  const send = (to: number, tag: number, data: Float32Array) => limited(to, transport.send(to, tag, data));
  /** Waits asleep for the message: in its own receive, a library spins. */
  const receive = async (from: number, tag: number, into: Float32Array) => {
    const look = patienceWith(from);
    while (!transport.hasMessage(from, tag)) {
      if (look() < POLL.eager) await immediate();
      else await sleep(POLL.every);
    }
    await limited(from, transport.receive(from, tag, into));
  };
  const exchange = (peer: number, data: Float32Array, into: Float32Array) => limited(peer, transport.exchange(peer, TAGS.sum, data, into));

  /** The largest power of two that is not above the number of processes. */
  const paired = 2 ** Math.floor(Math.log2(size));
  const buffer = new Float32Array(PIECE);

  const sumPiece = async (data: Float32Array): Promise<void> => {
    // those beyond the power of two add theirs to another's first, and are told the sum
    if (rank >= paired) {
      await send(rank - paired, TAGS.sum, data);
      return receive(rank - paired, TAGS.sum, data);
    }
    const beyond = rank + paired < size ? rank + paired : undefined;
    if (beyond !== undefined) {
      await receive(beyond, TAGS.sum, buffer.subarray(0, data.length));
      addTo(data, buffer);
    }
    const steps: { peer: number; kept: Float32Array; given: Float32Array }[] = [];
    let mine = data;
    for (let distance = 1; distance < paired; distance *= 2) {
      const middle = mine.length >> 1;
      const halves = [mine.subarray(0, middle), mine.subarray(middle)];
      const [kept, given] = (rank & distance) === 0 ? halves : halves.reverse();
      const peer = rank ^ distance;
      await exchange(peer, given, buffer.subarray(0, kept.length));
      addTo(kept, buffer);
      steps.push({ peer, kept, given });
      mine = kept;
    }
    for (const { peer, kept, given } of steps.reverse()) await exchange(peer, kept, given);
    if (beyond !== undefined) await send(beyond, TAGS.sum, data);
  };

  const broadcast = async (array: Float32Array, from: number): Promise<void> => {
    // a binomial tree whose root is `from`
    const place = (rank - from + size) % size;
    const at = (other: number) => (other + from) % size;
    let bit = 1;
    while (bit < size && (place & bit) === 0) bit *= 2;
    if (place > 0) await receive(at(place - bit), TAGS.broadcast, array);
    for (let next = bit / 2; next >= 1; next /= 2) if (place + next < size) await send(at(place + next), TAGS.broadcast, array);
  };

  const share = async (numbers: readonly number[]): Promise<number[][]> => {
    const all = new Float64Array(size * numbers.length);
    all.set(numbers, rank * numbers.length);
    const asFloats = (of: number) => new Float32Array(all.buffer, 8 * of * numbers.length, 2 * numbers.length);
    if (rank > 0) await send(0, TAGS.gather, asFloats(rank));
    else for (let from = 1; from < size; from++) await receive(from, TAGS.gather, asFloats(from));
    await broadcast(new Float32Array(all.buffer), 0);
    return Array.from({ length: size }, (_, of) => [...all.subarray(of * numbers.length, (of + 1) * numbers.length)]);
  };

  const tell = async (word: number): Promise<void> => {
    for (let to = 1; to < size; to++) await send(to, TAGS.control, Float32Array.of(word));
  };

  const nextWord = async (): Promise<number> => {
    const word = new Float32Array(1);
    await receive(0, TAGS.control, word);
    return word[0];
  };

  return {
    rank,
    size,
    localSize,
    async sum(arrays) {
      for (const { data, parts } of pieces(arrays)) {
        await sumPiece(data);
        let at = 0;
        for (const part of parts) {
          part.set(data.subarray(at, at + part.length));
          at += part.length;
        }
      }
    },
    broadcast,
    share,
    async gather(bytes) {
      const lengths = (await share([bytes.length])).map(([length]) => length);
      if (rank > 0) {
        if (bytes.length > 0) await send(0, TAGS.gather, padded(bytes));
        return [];
      }
      const gathered = [bytes];
      for (let from = 1; from < size; from++) {
        const data = new Float32Array(Math.ceil(lengths[from] / 4));
        if (data.length > 0) await receive(from, TAGS.gather, data);
        gathered.push(new Uint8Array(data.buffer, 0, lengths[from]));
      }
      return gathered;
    },
    async barrier() {
      await share([0]);
    },
    async lead(work, answer) {
      if (rank > 0) {
        for (let word = await nextWord(); word !== DONE; word = await nextWord())
          if (word !== ALIVE) await send(0, TAGS.answer, await answer!(word));
        return;
      }
      let telling = Promise.resolve();
      const sign = setInterval(
        () => {
          telling = telling.then(() => tell(ALIVE));
        },
        Math.min(5000, 250 * limit),
      );
      try {
        await work();
      } finally {
        clearInterval(sign);
        await telling;
        await tell(DONE);
      }
    },
    async ask(from, question, into) {
      await send(from, TAGS.control, Float32Array.of(question));
      await receive(from, TAGS.answer, into);
    },
    abort: transport.abort,
    async close() {
      await share([0]);
      transport.close();
    },
  };
}

function addTo(sum: Float32Array, term: Float32Array): void {
  for (let i = 0; i < sum.length; i++) sum[i] += term[i];
}

/** Bytes as whole numbers of four, in memory of their own. */
function padded(bytes: Uint8Array): Float32Array {
  const data = new Float32Array(Math.ceil(bytes.length / 4));
  new Uint8Array(data.buffer).set(bytes);
  return data;
}

/**
 * Arrays cut and joined into pieces of a size that suits a message: `data` lies in one of them, or is a copy
 * of `parts`, which have to be filled from it.
 */
function* pieces(arrays: readonly Float32Array[]): Generator<{ data: Float32Array; parts: Float32Array[] }> {
  let parts: Float32Array[] = [];
  let length = 0;
  const joined = () => {
    const data = new Float32Array(length);
    let at = 0;
    for (const part of parts) {
      data.set(part, at);
      at += part.length;
    }
    const piece = { data, parts };
    parts = [];
    length = 0;
    return piece;
  };
  for (const array of arrays) {
    if (array.length >= SMALL) {
      for (let start = 0; start < array.length; start += PIECE) yield { data: array.subarray(start, start + PIECE), parts: [] };
      continue;
    }
    if (length + array.length > PIECE) yield joined();
    parts.push(array);
    length += array.length;
  }
  if (length > 0) yield joined();
}
