// Observations that belong together (questions of a picture, answers of a run) as whole numbers, and sums
// over them.

/** What an observation belongs to: a picture, a question, a run. Compared as Map keys are. */
export type ClusterKeys = readonly (string | number)[];

export interface Clusters {
  /** For each observation, the number of its cluster: 0, 1, ... in the order in which they first occur. */
  ids: Int32Array;
  count: number;
}

/** Clusters from the keys of the observations. */
export function clustersOf(keys: ClusterKeys): Clusters {
  const numbers = new Map<string | number, number>();
  const ids = new Int32Array(keys.length);
  for (let i = 0; i < ids.length; i++) {
    const id = numbers.get(keys[i]) ?? numbers.size;
    numbers.set(keys[i], id);
    ids[i] = id;
  }
  return { ids, count: numbers.size };
}

/** Each observation for itself. */
export const singletons = (n: number): Clusters => ({ ids: Int32Array.from({ length: n }, (_, i) => i), count: n });

/** The clusters of `keys`, or each of `n` observations for itself. RangeError unless there are `n` keys. */
export function clustersFor(n: number, keys: ClusterKeys | undefined): Clusters {
  if (keys === undefined) return singletons(n);
  if (keys.length !== n) throw new RangeError(`${keys.length} keys of clusters for ${n} observations`);
  return clustersOf(keys);
}

/** What belongs together in both: the same question of the same run. */
export const crossed = (a: Clusters, b: Clusters): Clusters => clustersOf(Array.from(a.ids, (id, i) => id * b.count + b.ids[i]));

/** Sums of values [n] over clusters [count]. */
export function sumsByCluster(values: ArrayLike<number>, { ids, count }: Clusters): Float64Array {
  const sums = new Float64Array(count);
  for (let i = 0; i < ids.length; i++) sums[ids[i]] += values[i];
  return sums;
}

/** How many observations each cluster has. */
export function clusterSizes({ ids, count }: Clusters): Float64Array {
  const sizes = new Float64Array(count);
  for (const id of ids) sizes[id]++;
  return sizes;
}
