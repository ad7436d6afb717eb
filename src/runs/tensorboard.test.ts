import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { describe, expect, it } from 'vitest';
import type { MetricEvent } from './metrics.ts';
import { crc32c, maskedCrc32c, openTensorboard } from './tensorboard.ts';

const ascii = (text: string) => new TextEncoder().encode(text);

describe('crc32c', () => {
  // RFC 3720, appendix B.4, and the usual check value.
  it.each([
    ['123456789', ascii('123456789'), 0xe3069283],
    ['32 zeros', new Uint8Array(32), 0x8a9136aa],
    ['32 ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ['ascending', Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ['nothing', new Uint8Array(0), 0],
  ])('of %s', (_, bytes, crc) => {
    expect(crc32c(bytes)).toBe(crc);
  });

  it('is masked as TensorFlow does: the length 24 of a version record', () => {
    // The first record of any event file whose first event is `brain.Event:2`: 18 00.. then a3 7f 4b 22.
    expect(maskedCrc32c(Uint8Array.of(24, 0, 0, 0, 0, 0, 0, 0))).toBe(0x224b7fa3);
  });
});

interface Parsed {
  time?: number;
  step: number;
  version?: string;
  scalars: Record<string, number>;
}

function parseEvent(bytes: Uint8Array): Parsed {
  const event: Parsed = { step: 0, scalars: {} };
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field] = reader.tag();
    if (field === 1) event.time = reader.double();
    else if (field === 2) event.step = Number(reader.int64());
    else if (field === 3) event.version = reader.string();
    else {
      const summary = new BinaryReader(reader.bytes());
      while (summary.pos < summary.len) {
        summary.tag();
        const value = new BinaryReader(summary.bytes());
        value.tag();
        const name = value.string();
        value.tag();
        event.scalars[name] = value.float();
      }
    }
  }
  return event;
}

function parseFile(path: string): Parsed[] {
  const bytes = readFileSync(path);
  const events: Parsed[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(bytes.readUInt32LE(at + 8)).toBe(maskedCrc32c(bytes.subarray(at, at + 8)));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(data));
    events.push(parseEvent(data));
    at += 16 + length;
  }
  return events;
}

const stepEvent = (step: number): MetricEvent => ({
  type: 'step',
  stage: 'finetune',
  step,
  time: 1.75e9 + step,
  epoch: 0.5,
  loss: 2 / step,
  learningRate: 0.25,
  gradNorm: 1.5,
  tokensPerSecond: 1000,
  seconds: step,
  extra: { accuracy: 0.75 },
});

it('writes scalars that read back, checksums included', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tensorboard-'));
  const board = openTensorboard(folder, [stepEvent(1)]);
  board.write(stepEvent(4));
  const score = {
    accuracy: 0.5,
    ciLow: 0.4,
    ciHigh: 0.6,
    n: 10,
    correct: 5,
    majority: 0.3,
    majorityFrom: 'training',
    random: 0.25,
  } as const;
  board.write({ type: 'evaluation', stage: 'finetune', step: 4, time: 1.75e9, seconds: 1, scores: { 'unseen-artist': { count: score } } });
  board.close();
  const [name] = readdirSync(folder);
  const events = parseFile(join(folder, name));
  expect(events.map(({ step }) => step)).toEqual([0, 1, 4, 4]);
  expect(events[0].version).toBe('brain.Event:2');
  expect(events[2]).toMatchObject({
    time: 1.75e9 + 4,
    scalars: { 'finetune/loss': 0.5, 'finetune/learning_rate': 0.25, 'finetune/accuracy': 0.75 },
  });
  expect(events[3].scalars).toEqual({ 'finetune/eval/unseen-artist/count': 0.5 });
});

it('has what was measured of modules, memory and held-out samples', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tensorboard-'));
  const modules = { connector: { gradNorm: 0.5, updateRatio: 0.25 } };
  const measured = { ...stepEvent(1), dataWait: 0.125, memory: { rssMb: 64, anonymousMb: 32 }, modules } as MetricEvent;
  const board = openTensorboard(folder, [measured]);
  board.write({ type: 'held-out', stage: 'finetune', step: 1, time: 1.75e9, seconds: 1, loss: 1.5, samples: 3, imageGain: 0.5 });
  board.write({ type: 'warning', stage: 'finetune', step: 1, time: 1.75e9, sign: 'loss-spike', message: 'no number' });
  board.close();
  const [, step, heldOut, ...rest] = parseFile(join(folder, readdirSync(folder)[0]));
  expect(step.scalars).toMatchObject({
    'finetune/data_wait': 0.125,
    'finetune/rss_mb': 64,
    'finetune/anonymous_mb': 32,
    'finetune/grad_norm/connector': 0.5,
    'finetune/update_ratio/connector': 0.25,
  });
  expect(heldOut.scalars).toEqual({ 'finetune/held_out_loss': 1.5, 'finetune/image_gain': 0.5 });
  expect(rest).toEqual([]);
});

it('leaves one file when a run is resumed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tensorboard-'));
  openTensorboard(folder, []).close();
  openTensorboard(folder, [stepEvent(1), stepEvent(2)]).close();
  const names = readdirSync(folder);
  expect(names).toHaveLength(1);
  expect(names[0]).toMatch(/^events\.out\.tfevents\.1750000001\./);
  expect(parseFile(join(folder, names[0]))).toHaveLength(3);
});
