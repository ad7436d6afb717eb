// How many models are in memory at a time. One that is wanted beyond that waits until the one that was used
// longest ago has given up its place: whoever waits for that one now is answered before.

/** A model that can be in memory. */
export interface Resident {
  /** Whether somebody is being answered by it, or waits for that. */
  readonly isBusy: boolean;
  /** Answers those who wait now, and gives up its memory: settles then. */
  vacate(): Promise<void>;
}

export interface ModelPool {
  /** Settles when there is room; models get in one after the other, in the order in which they asked. */
  enter(resident: Resident): Promise<void>;
  /** Says that a model is used now. */
  touch(resident: Resident): void;
  /** Says that a model is gone by itself. */
  leave(resident: Resident): void;
}

export function createModelPool(limit: number): ModelPool {
  /** Those in memory, the one used longest ago first. */
  const inside = new Set<Resident>();
  let turn = Promise.resolve();

  function victim(): Resident {
    const all = [...inside];
    return all.find(({ isBusy }) => !isBusy) ?? all[0];
  }

  return {
    enter(resident) {
      turn = turn.then(async () => {
        while (inside.size >= limit) {
          const oldest = victim();
          await oldest.vacate();
          inside.delete(oldest);
        }
        inside.add(resident);
      });
      return turn;
    },
    touch(resident) {
      if (inside.delete(resident)) inside.add(resident);
    },
    leave: (resident) => void inside.delete(resident),
  };
}
