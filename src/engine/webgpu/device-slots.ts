// Sequences side by side in buffers of the device, each of a length of its own: the cache of a batch that
// rows join and leave. One buffer has all slots, padded with zeros. Whatever changes them is a selection of
// rows, which makes another buffer; nothing of it passes through host memory.

import type { DType } from '../../graph/tensor.ts';
import { elementBytes, type SavedSlot, type SlotState, sizeOf, type Value } from '../engine.ts';
import { zeros } from '../host-state.ts';
import { checkHeld, SlotRange, Slots } from '../slots.ts';
import type { Device, Selection } from './device.ts';
import type { RuntimeTensor } from './runtime.ts';

/** Positions that a slot takes from rows of the sources of a selection. */
interface Piece {
  /** Where its first run begins, and how far the next one is from there. */
  start: number;
  stride: number;
  length: number;
}

class DeviceSavedSlot implements SavedSlot {
  /** [runs, length, width], or nothing where it has no positions or was disposed of. */
  tensor: RuntimeTensor | undefined;
  readonly length: number;
  readonly bytes: number;

  constructor(tensor: RuntimeTensor | undefined, length: number, bytes: number) {
    this.tensor = tensor;
    this.length = length;
    this.bytes = bytes;
  }

  dispose(): void {
    this.tensor?.dispose();
    this.tensor = undefined;
  }
}

/** Slots in one buffer. */
export class DeviceSlots extends Slots implements SlotState {
  readonly device: Device;
  /** All slots, with the room and the positions that they had when it was made. */
  private held: { tensor: RuntimeTensor; room: number; filled: readonly number[] } | undefined;
  /** What the last run read, where that was not the beginning of the buffer. */
  private copy: RuntimeTensor | undefined;

  constructor(device: Device, dtype: DType, dims: readonly number[], axis: number) {
    super(dtype, dims, axis);
    this.device = device;
  }

  // what is in the buffer is moved, or cleared, before it is read
  reserve(positions: number): void {
    this.room = this.roomFor(positions);
  }

  truncate(slot: number, length: number): void {
    checkHeld(this.filled[slot], length);
    this.filled[slot] = length;
  }

  async save(slot: number, length: number): Promise<SavedSlot> {
    checkHeld(this.filled[slot], length);
    const { dtype, runs, width, held } = this;
    if (length === 0) return new DeviceSavedSlot(undefined, 0, 0);
    const piece = this.pieceOf(slot, length);
    const [tensor] = await this.device.select([{ dtype, width, sources: [held!.tensor], rows: rowsOf([[piece]], runs, length) }]);
    return new DeviceSavedSlot(tensor, length, runs * length * width * elementBytes[dtype]);
  }

  async begin(slot: number, from: number | SavedSlot, length: number): Promise<void> {
    checkHeld(0, this.filled[slot]);
    const isOwn = typeof from === 'number';
    if (!isOwn && !(from instanceof DeviceSavedSlot)) throw new Error('a saved slot belongs to another engine');
    checkHeld(isOwn ? this.filled[from] : from.length, length);
    if (length === 0) return;
    this.reserve(length);
    const lengths = this.filled.with(slot, length);
    const piece = isOwn ? this.pieceOf(from, length, BEHIND_ZEROS) : { start: this.rowsHeld, stride: from.length, length };
    const selection = this.arrangement(new Map([[slot, piece]]), isOwn ? undefined : from.tensor);
    this.adopt((await this.device.select([selection]))[0], lengths);
  }

  range(first: number, kept: readonly number[]): DeviceSlotRange {
    return new DeviceSlotRange(this, first, kept);
  }

  // === For runs ===

  /** Neighboring slots, for a run to read: good until the next call, or until something changes them. */
  async tensor(first: number, count: number): Promise<RuntimeTensor> {
    const { device, dtype, runs, width, room } = this;
    const dims = this.dimsOf(first, count);
    if (sizeOf(dims) === 0) return device.fromHost({ dtype, dims, data: zeros(dtype, 0) });
    const isStale = (length: number, i: number) => length < this.held!.filled[first + i];
    if (this.held?.room !== room || this.filled.slice(first, first + count).some(isStale))
      this.adopt((await device.select([this.arrangement(new Map())]))[0], this.filled);
    const { tensor } = this.held!;
    if (first === 0) return device.view(tensor, dims);
    const pieces = Array.from({ length: count }, (_, i) => [this.pieceOf(first + i, room)]);
    this.dropCopy();
    const [copy] = await device.select([{ dtype, width, sources: [tensor], rows: rowsOf(pieces, runs, room) }]);
    this.copy = copy;
    return device.view(copy, dims);
  }

  /** What makes the slots from `first` on hold `kept` positions more, the first of a row of `tensor` each. */
  appending(first: number, kept: readonly number[], tensor: RuntimeTensor, known: Map<string, Int32Array>): Selection {
    const { dtype, runs, width } = this;
    const given = tensor.dims[this.axis];
    if (tensor.type !== dtype || tensor.dims[0] !== kept.length || sizeOf(tensor.dims) !== kept.length * runs * given * width)
      throw new Error(`slots of ${dtype} [${this.dimsOf(first, kept.length)}] cannot take ${tensor.type} [${tensor.dims}]`);
    this.reserve(Math.max(...kept.map((count, i) => this.filled[first + i] + count)));
    const { rowsHeld } = this;
    const added = kept.map((length, i): [number, Piece] => {
      checkHeld(given, length);
      return [first + i, { start: rowsHeld + i * runs * given, stride: given, length }];
    });
    // caches of all layers have the same lengths, and so the same rows
    const key = [runs, this.room, this.held?.room, this.filled, first, kept, given].join(' ');
    const selection = this.arrangement(new Map(added), tensor, known.get(key));
    known.set(key, selection.rows);
    return selection;
  }

  /** Replaces the buffer after `appending`. */
  appended(first: number, kept: readonly number[], tensor: RuntimeTensor): void {
    this.adopt(
      tensor,
      this.filled.map((length, slot) => length + (kept[slot - first] ?? 0)),
    );
  }

  private adopt(tensor: RuntimeTensor, filled: readonly number[]): void {
    this.held?.tensor.dispose();
    this.dropCopy();
    this.held = { tensor, room: this.room, filled: [...filled] };
    this.filled.splice(0, this.count, ...filled);
  }

  private dropCopy(): void {
    this.copy?.dispose();
    this.copy = undefined;
  }

  // === Selections ===

  /** Rows of the sources of an `arrangement` before those that are added. */
  private get rowsHeld(): number {
    return BEHIND_ZEROS + (this.held ? this.count * this.runs * this.held.room : 0);
  }

  /** The first positions of a slot in the buffer, whose rows begin at `offset`. */
  private pieceOf(slot: number, length: number, offset = 0): Piece {
    const { room } = this.held!;
    return { start: offset + slot * this.runs * room, stride: room, length };
  }

  /** What slots hold and, behind it, what is added to some of them, in the room that there is to be. */
  private arrangement(added: ReadonlyMap<number, Piece>, more?: RuntimeTensor, known?: Int32Array): Selection {
    const { device, dtype, width, held } = this;
    const zero = device.fromHost({ dtype, dims: [1, width], data: zeros(dtype, width) });
    const pieces = () =>
      this.filled.map((length, slot) => {
        const own = length > 0 ? [this.pieceOf(slot, length, BEHIND_ZEROS)] : [];
        const other = added.get(slot);
        return other ? [...own, other] : own;
      });
    const rows = known ?? rowsOf(pieces(), this.runs, this.room);
    return { dtype, width, sources: [zero, ...(held ? [held.tensor] : []), ...(more ? [more] : [])], rows };
  }
}

/** Adds the rows of a tensor to each range, in one run. */
export async function appendToSlots(
  device: Device,
  appended: readonly { target: DeviceSlotRange; tensor: RuntimeTensor }[],
): Promise<void> {
  const known = new Map<string, Int32Array>();
  const selections = appended.map(({ target: { slots, first, kept }, tensor }) => slots.appending(first, kept, tensor, known));
  const results = await device.select(selections);
  appended.forEach(({ target: { slots, first, kept } }, i) => {
    slots.appended(first, kept, results[i]);
  });
}

/** The first row of the sources of an arrangement is one of zeros. */
const BEHIND_ZEROS = 1;

/** The rows of [slots, runs, room] positions; those that no piece fills are row 0. */
function rowsOf(slots: readonly (readonly Piece[])[], runs: number, room: number): Int32Array {
  const rows = new Int32Array(slots.length * runs * room);
  slots.forEach((pieces, slot) => {
    for (let run = 0; run < runs; run++) {
      let at = (slot * runs + run) * room;
      for (const { start, stride, length } of pieces) for (let i = 0; i < length; i++) rows[at++] = start + run * stride + i;
    }
  });
  return rows;
}

/** Neighboring slots for one run of a program. */
export class DeviceSlotRange extends SlotRange<DeviceSlots> {
  /** Its buffer, for a run to read. */
  tensor(): Promise<RuntimeTensor> {
    return this.slots.tensor(this.first, this.kept.length);
  }

  async read(): Promise<Value> {
    const { dtype, dims } = this;
    return { dtype, dims, data: await this.slots.device.download(await this.tensor()) };
  }

  async write(value: Value): Promise<void> {
    this.clear();
    const { device } = this.slots;
    const tensor = await device.upload(value);
    try {
      await appendToSlots(device, [{ target: this, tensor: device.view(tensor, value.dims) }]);
    } finally {
      tensor.dispose();
    }
  }
}
