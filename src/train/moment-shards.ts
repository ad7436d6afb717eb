// Moments that are kept once over all processes of a run, instead of once in each (the first stage of ZeRO,
// Rajbhandari et al. 2020): each process updates a share of the parameters and tells the others their values.

import { elementBytes, type State, sizeOf, type Value } from '../engine/engine.ts';
import type { TypedData } from '../graph/tensor.ts';
import type { Communicator } from '../mpi/communicator.ts';
import { type Moment, momentBytes, momentsOf, type Optim, type TrainedParameter } from './optimizer.ts';

/** Which process updates a parameter. */
export type Owners = ReadonlyMap<string, number>;

/** Moments of about the same size: the largest first, always to whoever has least. */
export function ownersOf(parameters: readonly Pick<TrainedParameter, 'name' | 'dims'>[], size: number, optim?: Optim): Owners {
  const loads = new Array<number>(size).fill(0);
  const owners = new Map<string, number>();
  const sized = parameters.map((parameter) => ({ name: parameter.name, bytes: momentBytes(parameter, optim) }));
  for (const { name, bytes } of sized.sort((a, b) => b.bytes - a.bytes)) {
    const owner = loads.indexOf(Math.min(...loads));
    loads[owner] += bytes;
    owners.set(name, owner);
  }
  return owners;
}

/** Gives all processes the values that their owners have updated. */
export async function shareValues(communicator: Communicator, parameters: readonly TrainedParameter[], owners: Owners): Promise<void> {
  for (const { name, values } of parameters) {
    const value = await values.read();
    await communicator.broadcast(value.data as Float32Array, owners.get(name)!);
    await values.write(value);
  }
}

/** The moments of all processes, to be read by process 0 while it leads. */
export function gatheredMoments(
  communicator: Communicator,
  parameters: readonly TrainedParameter[],
  owners: Owners,
  own: ReadonlyMap<string, State>,
  optim?: Optim,
): { moments: ReadonlyMap<string, State>; answer: (question: number) => Promise<Float32Array> } {
  const all = parameters.flatMap((parameter) =>
    momentsOf(parameter, optim).map((moment) => ({ moment, owner: owners.get(parameter.name)! })),
  );
  const moments = new Map(
    all.map(({ moment, owner }, question) => [
      moment.name,
      own.get(moment.name) ?? remoteState(moment, (into) => communicator.ask(owner, question, into)),
    ]),
  );
  return { moments, answer: async (question) => asMessage((await own.get(all[question].moment.name)!.read()).data) };
}

/** Bytes of a message: it has whole numbers of four bytes. */
const messageBytes = (bytes: number) => 4 * Math.ceil(bytes / 4);

/** Data as they are sent, whose bits alone matter. */
function asMessage(data: TypedData): Float32Array {
  if (data instanceof Float32Array) return data;
  const bytes = new Uint8Array(messageBytes(data.byteLength));
  bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return new Float32Array(bytes.buffer);
}

/** A state of another process, which can only be read. */
function remoteState({ dtype, dims }: Moment, fill: (into: Float32Array) => Promise<void>): State {
  const refuse = () => {
    throw new Error('a state of another process can only be read');
  };
  return {
    dtype,
    dims,
    async read(): Promise<Value> {
      const count = sizeOf(dims);
      const message = new Float32Array(messageBytes(elementBytes[dtype] * count) / 4);
      await fill(message);
      return { dtype, dims, data: dtype === 'float32' ? message : new Uint8Array(message.buffer, 0, count) };
    },
    write: async () => refuse(),
    clear: refuse,
  };
}
