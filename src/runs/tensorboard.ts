// TensorBoard event files with scalars, rewritten from metrics.jsonl when a run is resumed, so that the two
// always agree. Framing: tensorflow/tsl/lib/io/record_writer.h (length, masked CRC-32C, data, masked
// CRC-32C); messages: tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto.
import { appendFileSync, closeSync, openSync, readdirSync, rmSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { onDisk } from '../disk.ts';
import type { MetricEvent } from './metrics.ts';

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});

/** CRC-32C (Castagnoli, RFC 3720 appendix B.4). Node's zlib has only the other CRC-32. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = crcTable[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/**
 * TensorFlow rotates and shifts checksums, so that a checksum over data that contains checksums remains
 * useful.
 */
export function maskedCrc32c(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function record(data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(12 + data.length + 4);
  bytes.writeBigUInt64LE(BigInt(data.length), 0);
  bytes.writeUInt32LE(maskedCrc32c(bytes.subarray(0, 8)), 8);
  bytes.set(data, 12);
  bytes.writeUInt32LE(maskedCrc32c(data), 12 + data.length);
  return bytes;
}

/** tensorflow.Event: wall_time = 1, step = 2, file_version = 3, summary = 5. */
function versionEvent(time: number): Uint8Array {
  return new BinaryWriter().tag(1, WireType.Bit64).double(time).tag(3, WireType.LengthDelimited).string('brain.Event:2').finish();
}

/** A Summary (value = 1) of Values (tag = 1, simple_value = 2). */
function scalarsEvent(time: number, step: number, scalars: Record<string, number>): Uint8Array {
  const event = new BinaryWriter().tag(1, WireType.Bit64).double(time).tag(2, WireType.Varint).int64(step);
  event.tag(5, WireType.LengthDelimited).fork();
  for (const [name, value] of Object.entries(scalars)) {
    event.tag(1, WireType.LengthDelimited).fork();
    event.tag(1, WireType.LengthDelimited).string(name).tag(2, WireType.Bit32).float(value);
    event.join();
  }
  return event.join().finish();
}

/**
 * The scalars of a metric event, by TensorBoard tag: `<stage>/loss`, `<stage>/grad_norm/<module>`,
 * `<stage>/eval/<split>/<task>`.
 */
function scalarsOf(event: MetricEvent): Record<string, number> {
  const scalars: Record<string, number> = {};
  if (event.type === 'step') {
    const { loss, learningRate, gradNorm, tokensPerSecond, epoch, dataWait, memory, modules = {}, extra } = event;
    const values = {
      loss,
      learning_rate: learningRate,
      grad_norm: gradNorm,
      tokens_per_second: tokensPerSecond,
      epoch,
      data_wait: dataWait,
      rss_mb: memory?.rssMb,
      anonymous_mb: memory?.anonymousMb,
      ...extra,
    };
    for (const [name, value] of Object.entries(values)) if (value !== undefined) scalars[`${event.stage}/${name}`] = value;
    for (const [module, { gradNorm, updateRatio }] of Object.entries(modules)) {
      scalars[`${event.stage}/grad_norm/${module}`] = gradNorm;
      scalars[`${event.stage}/update_ratio/${module}`] = updateRatio;
    }
  } else if (event.type === 'held-out') {
    const { loss, imageGain } = event;
    scalars[`${event.stage}/held_out_loss`] = loss;
    if (imageGain !== undefined) scalars[`${event.stage}/image_gain`] = imageGain;
  } else if (event.type === 'evaluation') {
    for (const [split, tasks] of Object.entries(event.scores)) {
      for (const [task, { accuracy }] of Object.entries(tasks)) scalars[`${event.stage}/eval/${split}/${task}`] = accuracy;
    }
  }
  return scalars;
}

export interface TensorboardWriter {
  write(event: MetricEvent): void;
  close(): void;
}

/**
 * Starts the folder's one event file, replacing earlier ones, with the events of the run so far. UserError,
 * also of `write`, where the disk is full or the file cannot be written.
 */
export function openTensorboard(folder: string, past: readonly MetricEvent[]): TensorboardWriter {
  for (const name of readdirSync(folder)) if (name.startsWith('events.out.tfevents.')) rmSync(join(folder, name));
  const start = past[0]?.time ?? Date.now() / 1000;
  const path = join(folder, `events.out.tfevents.${String(Math.floor(start)).padStart(10, '0')}.${hostname()}`);
  const file = onDisk(path, () => openSync(path, 'w'));
  const append = (event: Uint8Array) => onDisk(path, () => appendFileSync(file, record(event)));
  append(versionEvent(start));
  const write = (event: MetricEvent) => {
    const scalars = scalarsOf(event);
    if (Object.keys(scalars).length > 0) append(scalarsEvent(event.time, event.step, scalars));
  };
  for (const event of past) write(event);
  return { write, close: () => closeSync(file) };
}
