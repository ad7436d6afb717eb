import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { float16ToFloat32 } from '../floats.ts';
import { createRandom } from '../random.ts';
import { encodeGguf, type GgufScalar, type GgufTensor, type GgufValue, ggufBytes, writeGguf } from './gguf.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gguf-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/**
 * A reader written independently from the format's description, so that the writer is not checked against
 * itself.
 */
function readGguf(path: string) {
  const file = readFileSync(path);
  let end = 0;
  /** Offset of the next so many bytes. */
  const next = (bytes: number) => {
    end += bytes;
    return end - bytes;
  };
  const uint32 = () => file.readUInt32LE(next(4));
  const uint64 = () => Number(file.readBigUInt64LE(next(8)));
  const string = () => {
    const length = uint64();
    return file.toString('utf8', next(length), end);
  };
  const readers: Record<number, () => GgufScalar> = {
    0: () => file.readUInt8(next(1)),
    1: () => file.readInt8(next(1)),
    2: () => file.readUInt16LE(next(2)),
    3: () => file.readInt16LE(next(2)),
    4: uint32,
    5: () => file.readInt32LE(next(4)),
    6: () => file.readFloatLE(next(4)),
    7: () => file.readUInt8(next(1)) === 1,
    8: string,
    10: uint64,
    11: () => Number(file.readBigInt64LE(next(8))),
    12: () => file.readDoubleLE(next(8)),
  };
  const scalar = (type: number) => readers[type]();
  const magic = file.toString('latin1', next(4), end);
  const version = uint32();
  const [tensorCount, valueCount] = [uint64(), uint64()];
  const metadata: Record<string, GgufScalar | GgufScalar[]> = {};
  for (let i = 0; i < valueCount; i++) {
    const key = string();
    const type = uint32();
    if (type !== 9) metadata[key] = scalar(type);
    else {
      const [element, length] = [uint32(), uint64()];
      metadata[key] = Array.from({ length }, () => scalar(element));
    }
  }
  const infos = Array.from({ length: tensorCount }, () => {
    const name = string();
    const shape = Array.from({ length: uint32() }, uint64);
    return { name, shape, type: uint32(), offset: uint64() };
  });
  const start = Math.ceil(end / 32) * 32;
  return {
    magic,
    version,
    metadata,
    infos,
    data: (offset: number, bytes: number) => file.subarray(start + offset, start + offset + bytes),
    bytes: file.length,
  };
}

/** The weights of Q4_0 and Q8_0 blocks, as in ggml's dequantize_row_q4_0 and _q8_0. */
function decode(type: 'Q4_0' | 'Q8_0', bytes: Uint8Array): number[] {
  const size = type === 'Q4_0' ? 18 : 34;
  const values: number[] = [];
  for (let at = 0; at < bytes.length; at += size) {
    const step = float16ToFloat32(Uint16Array.of(bytes[at] | (bytes[at + 1] << 8)))[0];
    const codes = bytes.subarray(at + 2, at + size);
    if (type === 'Q8_0') values.push(...Array.from(new Int8Array(codes), (code) => code * step));
    else values.push(...Array.from(codes, (code) => ((code & 15) - 8) * step), ...Array.from(codes, (code) => ((code >> 4) - 8) * step));
  }
  return values;
}

const normals = (count: number) => {
  const random = createRandom(1, 'weights');
  return Float32Array.from({ length: count }, () => random.normal());
};

describe('writeGguf', () => {
  it('writes metadata of every type, arrays and text beyond ASCII', async () => {
    const metadata: Record<string, GgufValue> = {
      'general.architecture': { type: 'string', value: 'gemma' },
      a: { type: 'uint8', value: 255 },
      b: { type: 'int8', value: -128 },
      c: { type: 'uint16', value: 65535 },
      d: { type: 'int16', value: -32768 },
      e: { type: 'uint32', value: 4294967295 },
      f: { type: 'int32', value: -2147483648 },
      g: { type: 'float32', value: 0.5 },
      h: { type: 'bool', value: true },
      i: { type: 'bool', value: false },
      j: { type: 'uint64', value: 2 ** 53 - 1 },
      k: { type: 'int64', value: -(2 ** 53) + 1 },
      l: { type: 'float64', value: 0.1 },
      m: { type: 'string', value: ['▁naïve', '', '日本'] },
      n: { type: 'int32', value: [] },
      o: { type: 'float32', value: Array.from({ length: 40000 }, (_, i) => -i) },
    };
    const path = join(folder, 'a.gguf');
    await writeGguf(path, metadata, new Map());
    const file = readGguf(path);
    expect([file.magic, file.version, file.infos]).toEqual(['GGUF', 3, []]);
    expect(Object.keys(file.metadata)).toEqual(Object.keys(metadata));
    for (const [key, { value }] of Object.entries(metadata)) expect(file.metadata[key]).toEqual(value);
    expect(file.bytes % 32).toBe(0);
  });

  it('writes tensors in pieces, aligned, their dims the other way round', async () => {
    const values = normals(96);
    const halves = encodeGguf('F16', values);
    const tensors = new Map<string, GgufTensor>([
      ['bias', { shape: [3], type: 'F32', data: () => [encodeGguf('F32', values.subarray(0, 3))] }],
      [
        'weight',
        {
          shape: [3, 32],
          type: 'F16',
          async *data() {
            for (let at = 0; at < halves.length; at += 50) yield halves.subarray(at, at + 50);
          },
        },
      ],
      ['quantized', { shape: [3, 32], type: 'Q4_0', data: () => [encodeGguf('Q4_0', values)] }],
    ]);
    const path = join(folder, 'b.gguf');
    await writeGguf(path, { 'general.architecture': { type: 'string', value: 'gemma' } }, tensors);
    const file = readGguf(path);
    expect(file.infos).toEqual([
      { name: 'bias', shape: [3], type: 0, offset: 0 },
      { name: 'weight', shape: [32, 3], type: 1, offset: 32 },
      { name: 'quantized', shape: [32, 3], type: 2, offset: 224 },
    ]);
    expect([...file.data(0, 12)]).toEqual([...encodeGguf('F32', values.subarray(0, 3))]);
    expect([...file.data(32, 192)]).toEqual([...halves]);
    expect([...file.data(224, 54)]).toEqual([...encodeGguf('Q4_0', values)]);
  });

  it.each([
    ['too few', 2],
    ['too many', 4],
  ])('refuses a tensor of %s bytes and leaves no file behind', async (_, count) => {
    const tensors = new Map<string, GgufTensor>([['w', { shape: [3], type: 'F32', data: () => [new Uint8Array(4 * count)] }]]);
    await expect(writeGguf(join(folder, 'c.gguf'), {}, tensors)).rejects.toThrow(
      `tensor "w": F32 of shape [3] needs 12 bytes, given ${4 * count}`,
    );
    expect(readdirSync(folder)).toEqual([]);
  });

  it('refuses a row that is no whole number of blocks', () => {
    expect(ggufBytes('Q8_0', [2, 64])).toBe(136);
    expect(() => ggufBytes('Q4_0', [64, 48])).toThrow('a row of 48');
  });
});

describe('encodeGguf', () => {
  it('rounds as ggml does', () => {
    // the weight farthest from 0 is negative and becomes code 0; halves round up
    const block = new Float32Array(32);
    block.set([-8, 7, 3.5, 0.49, -0.5]);
    block[16] = 1;
    const bytes = encodeGguf('Q4_0', block);
    expect(float16ToFloat32(Uint16Array.of(bytes[0] | (bytes[1] << 8)))[0]).toBe(1);
    expect(Array.from(bytes.subarray(2, 7), (byte) => byte & 15)).toEqual([0, 15, 12, 8, 8]);
    expect(bytes[2] >> 4).toBe(9);

    const eight = new Float32Array(32);
    eight.set([127, -127, 0.5, -0.5, 1.4]);
    expect([...new Int8Array(encodeGguf('Q8_0', eight)).subarray(2, 7)]).toEqual([127, -127, 1, -1, 1]);
  });

  it('keeps zeros, and the farthest weight of a block', () => {
    // the step of such a block is -0, in ggml too
    expect(decode('Q4_0', encodeGguf('Q4_0', new Float32Array(64))).map(Math.abs)).toEqual(new Array(64).fill(0));
    expect(decode('Q8_0', encodeGguf('Q8_0', new Float32Array(32)))).toEqual(new Array(32).fill(0));
  });

  it('is off by half a step at most, at the end of the scale by a whole one', () => {
    fc.assert(
      fc.property(fc.array(fc.float({ min: -100, max: 100, noNaN: true }), { minLength: 32, maxLength: 32 }), (list) => {
        const values = Float32Array.from(list);
        const largest = Math.max(...values.map(Math.abs));
        // a float16 step is itself off by one part in 2,048, or by 2^-25 if it is tiny
        const slack = largest / 1000 + 1e-6;
        decode('Q4_0', encodeGguf('Q4_0', values)).forEach((value, i) => {
          expect(Math.abs(value - values[i])).toBeLessThanOrEqual(largest / 8 + slack);
        });
        decode('Q8_0', encodeGguf('Q8_0', values)).forEach((value, i) => {
          expect(Math.abs(value - values[i])).toBeLessThanOrEqual(largest / 254 + slack + 127e-6);
        });
      }),
    );
  });
});
