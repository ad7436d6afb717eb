// Small helpers that arrays lack.

/** The parts, one after another. */
export function concatFloat32(parts: readonly Float32Array[]): Float32Array {
  const joined = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** The middle of the sorted values, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export interface GrowingArray<T> {
  readonly length: number;
  push(value: number): void;
  /** What was pushed, in memory that threads share. */
  shared(): T;
}

/** Numbers of one type, a few bytes each however many come. */
export function growingArray<T extends Uint8Array | Uint32Array | Float64Array>(type: {
  new (length: number): T;
  new (buffer: SharedArrayBuffer): T;
  BYTES_PER_ELEMENT: number;
}): GrowingArray<T> {
  let values = new type(1024);
  let length = 0;
  return {
    get length() {
      return length;
    },
    push(value) {
      if (length === values.length) {
        const longer = new type(2 * length);
        longer.set(values);
        values = longer;
      }
      values[length++] = value;
    },
    shared() {
      const result = new type(new SharedArrayBuffer(length * type.BYTES_PER_ELEMENT));
      result.set(values.subarray(0, length));
      return result;
    },
  };
}

/** Groups of items with the same key, in the order in which the keys first occur. */
export function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group) group.push(item);
    else groups.set(keyOf(item), [item]);
  }
  return [...groups.values()];
}
