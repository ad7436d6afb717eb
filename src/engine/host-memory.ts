// The kinds of state in host memory behind one set of functions: what a run is handed, and what it writes.

import type { State, Value, Write } from './engine.ts';
import { HostSlotRange } from './host-slots.ts';
import { HostSequence, HostState } from './host-state.ts';

export type HostMemory = HostState | HostSequence | HostSlotRange;

const grows = (state: State): state is HostSequence | HostSlotRange => state instanceof HostSequence || state instanceof HostSlotRange;

/**
 * The state of an engine in host memory that `run` was given. Throws an Error for what another engine made.
 */
export function hostMemory(name: string, state: State): HostMemory {
  if (state instanceof HostState || grows(state)) return state;
  throw new Error(`state ${name} belongs to another engine`);
}

/**
 * The states that `writes` name. Throws an Error for one that is missing or that grows where it must not, or
 * the other way.
 */
export function writtenStates(writes: Readonly<Record<string, Write>>, given: Readonly<Record<string, State>>): Map<string, HostMemory> {
  return new Map(
    Object.entries(writes).map(([name, { mode }]) => {
      if (!given[name]) throw new Error(`state ${name} is missing`);
      const state = hostMemory(name, given[name]);
      if (mode === 'append' && !grows(state)) throw new Error(`state ${name} does not grow: nothing can be appended`);
      if (mode === 'add' && !(state instanceof HostState)) throw new Error(`state ${name} grows: nothing can be added to it`);
      return [name, state];
    }),
  );
}

/** Does to a state what a write says. The data of `value` are nobody else's. */
export function applyWrite(state: HostMemory, mode: Write['mode'], value: Value): void {
  if (grows(state)) {
    if (mode === 'replace') state.clear();
    state.append(value);
  } else if (mode === 'add') state.add(value);
  else state.adopt(value);
}

/** The same with a value whose data others keep. */
export function applyCopy(state: HostMemory, mode: Write['mode'], value: Value): void {
  const isOnlyRead = grows(state) || (mode === 'add' && !state.isCleared);
  applyWrite(state, mode, isOnlyRead ? value : { ...value, data: value.data.slice() });
}
