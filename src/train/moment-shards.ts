// Moments that are kept once over all processes of a run, instead of once in each (the first stage of ZeRO,
// Rajbhandari et al. 2020): each process updates a share of the parameters and tells the others their values.

import { type State, sizeOf, type Value } from '../engine/engine.ts';
import type { Communicator } from '../mpi/communicator.ts';
import { momentNames, type TrainedParameter } from './optimizer.ts';

/** Which process updates a parameter. */
export type Owners = ReadonlyMap<string, number>;

/** Shares of about the same size: the largest parameter first, always to whoever has least. */
export function ownersOf(parameters: readonly Pick<TrainedParameter, 'name' | 'dims'>[], size: number): Owners {
  const loads = new Array<number>(size).fill(0);
  const owners = new Map<string, number>();
  for (const { name, dims } of [...parameters].sort((a, b) => sizeOf(b.dims) - sizeOf(a.dims))) {
    const owner = loads.indexOf(Math.min(...loads));
    loads[owner] += sizeOf(dims);
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
): { moments: ReadonlyMap<string, State>; answer: (question: number) => Promise<Float32Array> } {
  const all = parameters.flatMap(({ name, dims }) => momentNames(name).map((moment) => ({ moment, dims, owner: owners.get(name)! })));
  const moments = new Map(
    all.map(({ moment, dims, owner }, question) => [
      moment,
      own.get(moment) ?? remoteState(dims, (into) => communicator.ask(owner, question, into)),
    ]),
  );
  return { moments, answer: async (question) => (await own.get(all[question].moment)!.read()).data as Float32Array };
}

/** A state of another process, which can only be read. */
function remoteState(dims: readonly number[], fill: (into: Float32Array) => Promise<void>): State {
  const refuse = () => {
    throw new Error('a state of another process can only be read');
  };
  return {
    dtype: 'float32',
    dims,
    async read(): Promise<Value> {
      const data = new Float32Array(sizeOf(dims));
      await fill(data);
      return { dtype: 'float32', dims, data };
    },
    write: async () => refuse(),
    clear: refuse,
  };
}
