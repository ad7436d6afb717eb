import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test, vi } from 'vitest';
import { UserError } from '../errors.ts';
import { bytesPerElement, type StoredDType } from './dtype.ts';
import { openSafetensors, pieceBytes, type StoredTensor, writeSafetensors } from './safetensors.ts';

const dir = mkdtempSync(join(tmpdir(), 'safetensors-'));
afterAll(() => rmSync(dir, { recursive: true }));
const path = join(dir, 'model.safetensors');

/** A file with this header text (or object) and `dataBytes` zeros. */
function fileOf(header: unknown, dataBytes = 0, headerLength?: bigint): void {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(headerLength ?? BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, json, Buffer.alloc(dataBytes)]));
}

async function openError(): Promise<string> {
  const outcome = await openSafetensors(path).then(
    () => 'opened',
    (error) => error,
  );
  expect(outcome).toBeInstanceOf(UserError);
  expect((outcome as UserError).message).toContain(path);
  return (outcome as UserError).message;
}

const dtypes = Object.keys(bytesPerElement) as StoredDType[];
const tensor = fc
  .record({ dtype: fc.constantFrom(...dtypes), shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }) })
  .chain(({ dtype, shape }) => {
    const bytes = shape.reduce((a, b) => a * b, 1) * bytesPerElement[dtype];
    return fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((data): StoredTensor => ({ dtype, shape, data }));
  });
const name = fc.oneof(fc.string({ unit: 'grapheme' }), fc.constantFrom('model.embed_tokens.weight', '0', '__proto__', 'constructor', '"'));
const tensors = fc.array(fc.tuple(name, tensor), { maxLength: 8 }).map((list) => new Map(list.filter(([key]) => key !== '__metadata__')));

test('what is written is read back, each tensor alone and in any order', async () => {
  await fc.assert(
    fc.asyncProperty(tensors, fc.dictionary(fc.string(), fc.string()), async (map, metadata) => {
      await writeSafetensors(path, map, metadata);
      const file = await openSafetensors(path);
      expect(new Set(file.names)).toEqual(new Set(map.keys()));
      expect({ ...file.metadata }).toEqual({ ...metadata });
      for (const [key, value] of [...map].reverse()) {
        expect(file.info(key)).toEqual({ dtype: value.dtype, shape: value.shape });
        const stored = await file.read(key);
        expect(stored.shape).toEqual(value.shape);
        expect(Buffer.compare(stored.data, value.data)).toBe(0);
        expect(stored.data.byteOffset % 8).toBe(0);
      }
      await file.close();
    }),
    { numRuns: 60 },
  );
});

test('the header is 8-byte aligned, every tensor starts aligned, and the order of insertion does not matter', async () => {
  await fc.assert(
    fc.asyncProperty(tensors, async (map) => {
      await writeSafetensors(path, map);
      const bytes = readFileSync(path);
      const headerLength = Number(bytes.readBigUInt64LE());
      expect(headerLength % 8).toBe(0);
      const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerLength));
      for (const { dtype, data_offsets } of Object.values(header) as { dtype: StoredDType; data_offsets: number[] }[]) {
        expect(data_offsets[0] % bytesPerElement[dtype]).toBe(0);
      }
      await writeSafetensors(path, new Map([...map].reverse()));
      expect(readFileSync(path).equals(bytes)).toBe(true);
    }),
    { numRuns: 30 },
  );
});

test('spaces, line breaks, escapes and braces in texts are part of JSON', async () => {
  const name = 'a"}{\\\u00e9\n';
  const header = { __metadata__: { note: '{"}\\' }, [name]: { dtype: 'U8', shape: [2], data_offsets: [0, 2] } };
  fileOf(`${JSON.stringify(header, null, 2)}\n\t `, 2);
  const file = await openSafetensors(path);
  expect(file.names).toEqual([name]);
  expect(file.metadata).toEqual(header.__metadata__);
  await file.close();
  fileOf({});
  await (await openSafetensors(path)).close();
});

const f32 = (begin: number, end: number, shape = [(end - begin) / 4]) => ({ dtype: 'F32', shape, data_offsets: [begin, end] });

test.each([
  ['a header length beyond 100 MB', () => fileOf({}, 0, 2n ** 63n), /over the limit of 100 MB/],
  ['a header length beyond the file', () => fileOf({}, 0, 99n), /ends inside the header/],
  ['an empty file', () => writeFileSync(path, ''), /too few/],
  ['text that is not JSON', () => fileOf('{"a":'), /not valid JSON/],
  ['bytes that are not UTF-8', () => writeFileSync(path, Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe])), /not valid JSON/],
  ['a JSON array', () => fileOf([]), /not a JSON object/],
  ['an unknown dtype', () => fileOf({ w: { ...f32(0, 4), dtype: 'F8_E4M3' } }, 4), /tensor "w": dtype "F8_E4M3" is not supported/],
  ['a negative size', () => fileOf({ w: f32(0, 4, [-1]) }, 4), /tensor "w": its shape/],
  ['a fractional size', () => fileOf({ w: f32(0, 4, [0.5]) }, 4), /tensor "w": its shape/],
  ['a shape that overflows', () => fileOf({ w: f32(0, 4, [2 ** 40, 2 ** 40]) }, 4), /tensor "w": F32 of shape/],
  ['offsets in reverse', () => fileOf({ w: { ...f32(4, 0, [0]) } }, 4), /tensor "w": data_offsets/],
  ['a size that does not match its shape', () => fileOf({ w: f32(0, 8, [3]) }, 8), /needs 12 bytes, but data_offsets span 8/],
  ['a file that is cut short', () => fileOf({ v: f32(0, 8), w: f32(8, 16) }, 12), /tensor "w" ends at byte 16 of 12/],
  ['two tensors that overlap', () => fileOf({ v: f32(0, 8), w: f32(4, 12) }, 12), /tensor "w" overlaps/],
  ['a gap between tensors', () => fileOf({ v: f32(0, 4), w: f32(8, 12) }, 12), /tensor "w" leaves a gap of 4 bytes/],
  ['bytes after the last tensor', () => fileOf({ v: f32(0, 4) }, 5), /1 bytes at the end belong to no tensor/],
  [
    'a name that is there twice',
    () => fileOf('{"v":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"v":{}}'),
    /"v" is in the header twice/,
  ],
  ['an entry without an end', () => fileOf(`{"v":{"dtype":"${'x'.repeat(20_000)}`), /not valid JSON/],
  ['an entry that is pages long', () => fileOf({ v: { ...f32(0, 4), note: ['x'.repeat(9000), 'x'.repeat(9000)] } }, 4), /not valid JSON/],
  ['something behind the header', () => fileOf('{} {}'), /not valid JSON/],
  ['a header of brackets', () => fileOf('['.repeat(100_000)), /not a JSON object/],
  ['entries of brackets', () => fileOf(`{"v":${'['.repeat(100_000)}`), /tensor "v": its header entry is not an object/],
  ['metadata that is not text', () => fileOf({ __metadata__: { a: 1 } }), /__metadata__/],
])('%s is refused in one sentence', async (_, make, pattern) => {
  make();
  const message = await openError();
  expect(message).toMatch(pattern);
  expect(message).not.toContain('\n');
});

test('a missing file, a folder and a missing tensor are named', async () => {
  writeFileSync(join(dir, 'page.safetensors'), '<!DOCTYPE html><html>not found</html>');
  await expect(openSafetensors(join(dir, 'page.safetensors'))).rejects.toThrow(/page\.safetensors: it is a page of the web/);
  rmSync(join(dir, 'page.safetensors'));
  await expect(openSafetensors(join(dir, 'none.safetensors'))).rejects.toThrow(/none\.safetensors: cannot open it: no such file/);
  await expect(openSafetensors(dir)).rejects.toThrow(/it is a folder/);
  fileOf({ v: f32(0, 4) }, 4);
  const file = await openSafetensors(path);
  expect(() => file.info('w')).toThrow(/it has no tensor "w"/);
  await expect(file.read('w')).rejects.toThrow(UserError);
  await file.close();
});

test('a damaged file is a UserError or reads to tensors of the promised size, and never takes more memory than the file', async () => {
  const map = new Map<string, StoredTensor>([
    ['a', { dtype: 'F32', shape: [2, 3], data: new Uint8Array(24) }],
    ['b', { dtype: 'I8', shape: [5], data: new Uint8Array(5) }],
  ]);
  await writeSafetensors(path, map, { format: 'pt' });
  const whole = readFileSync(path);
  const alloc = vi.spyOn(Buffer, 'allocUnsafeSlow');
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.option(fc.nat(whole.length), { nil: whole.length }),
      async (edits, length) => {
        const damaged = Buffer.from(whole);
        for (const [at, byte] of edits) damaged[at] = byte;
        writeFileSync(path, damaged.subarray(0, length));
        alloc.mockClear();
        try {
          const file = await openSafetensors(path);
          for (const key of file.names) {
            const { shape, dtype } = file.info(key);
            expect((await file.read(key)).data.length).toBe(shape.reduce((a, b) => a * b, 1) * bytesPerElement[dtype]);
          }
          await file.close();
        } catch (error) {
          expect(error).toBeInstanceOf(UserError);
        }
        for (const [size] of alloc.mock.calls) expect(size).toBeLessThanOrEqual(Math.max(8, length));
      },
    ),
    { numRuns: 400 },
  );
  alloc.mockRestore();
});

test('a header whose fields are changed is a UserError or fits its file, and never takes more memory than the file', async () => {
  const count = fc.oneof(fc.nat(40), fc.constantFrom(-1, 0.5, 2 ** 31, 2 ** 53, Number.MAX_VALUE));
  const field = fc.oneof(count, fc.array(count, { maxLength: 3 }), fc.constantFrom('F32', 'F64', 'I8', 'F8_E5M2', '', null, 'toString'));
  const change = fc.record({
    tensor: fc.constantFrom('a', 'b', 'c', '__metadata__', '__proto__'),
    field: fc.constantFrom('dtype', 'shape', 'data_offsets'),
    value: field,
  });
  const alloc = vi.spyOn(Buffer, 'allocUnsafeSlow');
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), fc.nat(48), async (changes, dataBytes) => {
      const header: Record<string, Record<string, unknown>> = { a: f32(0, 8), b: f32(8, 32), c: f32(32, 36) };
      for (const { tensor, field, value } of changes) {
        if (!Object.hasOwn(header, tensor)) Object.defineProperty(header, tensor, { value: {}, enumerable: true, writable: true });
        header[tensor][field] = value;
      }
      fileOf(header, dataBytes);
      const { length } = readFileSync(path);
      alloc.mockClear();
      try {
        const file = await openSafetensors(path);
        for (const name of file.names) for await (const piece of file.pieces(name)) expect(piece.length).toBeLessThanOrEqual(dataBytes);
        await file.close();
      } catch (error) {
        expect(error).toBeInstanceOf(UserError);
      }
      for (const [size] of alloc.mock.calls) expect(size).toBeLessThanOrEqual(Math.max(8, length));
    }),
    { numRuns: 400 },
  );
  alloc.mockRestore();
});

test('a large file whose header would be gigabytes is refused before anything is read', async () => {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(2n ** 31n);
  writeFileSync(path, length);
  // a sparse file takes no space
  truncateSync(path, 2 ** 32);
  const alloc = vi.spyOn(Buffer, 'allocUnsafeSlow');
  expect(await openError()).toMatch(/a header of 2147483648 bytes is over the limit of 100 MB/);
  expect(alloc.mock.calls.map(([size]) => size)).toEqual([8]);
  alloc.mockRestore();
});

test('a tensor is read and written piece by piece, each of whole elements', async () => {
  const elements = pieceBytes / 4 + 3;
  const values = Float32Array.from({ length: elements }, (_, i) => i);
  const bytes = new Uint8Array(values.buffer);
  const given: number[] = [];
  await writeSafetensors(
    path,
    new Map([
      ['a', { dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 3) }],
      [
        'w',
        {
          dtype: 'F32',
          shape: [elements],
          async *data() {
            for (let at = 0; at < bytes.length; at += 2 ** 20) {
              given.push(at);
              yield bytes.subarray(at, at + 2 ** 20);
            }
          },
        },
      ],
    ]),
  );
  expect(given.length).toBe(5);
  const file = await openSafetensors(path);
  const pieces: Uint8Array[] = [];
  for await (const piece of file.pieces('w')) pieces.push(Uint8Array.from(piece));
  expect(pieces.map(({ length }) => length)).toEqual([pieceBytes, 12]);
  expect(Buffer.compare(Buffer.concat(pieces), bytes)).toBe(0);
  expect((await file.read('a')).data).toEqual(Buffer.from([1, 2, 3]));
  await file.close();

  const short = { dtype: 'F32' as const, shape: [4], data: () => [new Uint8Array(8), new Uint8Array(4)] };
  await expect(writeSafetensors(path, new Map([['w', short]]))).rejects.toThrow(/needs 16 bytes, given 12/);
  const long = { ...short, shape: [2] };
  await expect(writeSafetensors(path, new Map([['w', long]]))).rejects.toThrow(/needs 8 bytes, given 12/);
});

test('a header of random JSON is refused or valid', async () => {
  await fc.assert(
    fc.asyncProperty(fc.json(), fc.nat(64), async (json, dataBytes) => {
      fileOf(json, dataBytes);
      try {
        await (await openSafetensors(path)).close();
      } catch (error) {
        expect(error).toBeInstanceOf(UserError);
      }
    }),
    { numRuns: 200 },
  );
});

test('a full disk is told in one sentence, leaves no half file and keeps the old one', async () => {
  await writeSafetensors(path, new Map([['a', { dtype: 'U8', shape: [1], data: Uint8Array.of(7) }]]));
  const before = readFileSync(path);
  const probe = await open(join(dir, 'probe'), 'w');
  const prototype = Object.getPrototypeOf(probe);
  await probe.close();
  rmSync(join(dir, 'probe'));
  const write = vi.spyOn(prototype, 'write').mockRejectedValueOnce(Object.assign(new Error('full'), { code: 'ENOSPC' }));
  const larger = new Map<string, StoredTensor>([['a', { dtype: 'U8', shape: [64], data: new Uint8Array(64) }]]);
  await expect(writeSafetensors(path, larger)).rejects.toThrow(/model\.safetensors: the disk is full/);
  write.mockRestore();
  expect(readdirSync(dir)).toEqual(['model.safetensors']);
  expect(readFileSync(path).equals(before)).toBe(true);
});

test('a tensor whose bytes do not match its shape is not written', async () => {
  const wrong = new Map<string, StoredTensor>([['a', { dtype: 'F32', shape: [3], data: new Uint8Array(8) }]]);
  await expect(writeSafetensors(join(dir, 'wrong.safetensors'), wrong)).rejects.toThrow(
    /tensor "a": F32 of shape \[3\] needs 12 bytes, given 8/,
  );
  expect(readdirSync(dir)).toEqual(['model.safetensors']);
  await expect(writeSafetensors(join(dir, 'no', 'x.safetensors'), new Map())).rejects.toThrow(/no folder/);
});
