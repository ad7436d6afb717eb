// Hugging Face model folders: config.json with model.safetensors, or with shards listed in
// model.safetensors.index.json. Shards are found through the index only, never by pattern:
// Intel/llava-gemma-2b holds two shard sets in one folder. Tensors have our names here, whatever the files
// call them (layouts.ts).
import { existsSync } from 'node:fs';
import { open, readFile, rename, rm } from 'node:fs/promises';
import { basename, isAbsolute, join, relative, resolve } from 'node:path';
import { makeFolder } from '../disk.ts';
import { reasonOf, UserError } from '../errors.ts';
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from '../floats.ts';
import { refusePointer } from '../git-lfs.ts';
import { hubAdvice, whyMissing } from '../paths.ts';
import { decodeUtf8 } from '../utf8.ts';
import { bytesPerElement } from '../weights/dtype.ts';
import {
  elementCount,
  openSafetensors,
  pieceBytes,
  type SafetensorsFile,
  type StoredTensor,
  type TensorInfo,
  type TensorSource,
  writeFileAtomically,
  writeSafetensors,
} from '../weights/safetensors.ts';
import { type Layout, mapNames } from './layouts.ts';
import { adapterBeside, foreignQuantization, otherFolder } from './other-folders.ts';

const utf8 = new TextEncoder();

export interface Checkpoint {
  dir: string;
  /** config.json, parsed but not validated: the model family does that. */
  config: unknown;
  /** How the files name their tensors. All names below are ours; one that is missing is a UserError. */
  layout: Layout;
  names: string[];
  has(name: string): boolean;
  shape(name: string): number[];
  info(name: string): TensorInfo;
  /** The file that holds a tensor, where it begins in bytes, and what the file was when it was opened. */
  place(name: string): { path: string; offset: number; stamp: string };
  /** One tensor's bytes as stored. */
  bytes(name: string): Promise<Uint8Array>;
  /** A tensor's name in the files. */
  storedName(name: string): string;
  /** One tensor's values as float32, row-major. UserError if it is not stored as floats. */
  float32(name: string): Promise<Float32Array>;
  /**
   * The same values in order, one or two million at a time, each piece overwritten by the next: for tensors
   * that need not be in memory as a whole.
   */
  float32Pieces(name: string): AsyncGenerator<Float32Array>;
  /**
   * The output head, if the files hold one in addition to the embedding. It is not among `names`: Gemma ties
   * the two.
   */
  head?: { stored: string; embedding: string };
  /**
   * Throws UserError if the output head differs from the embedding, because models here have only one matrix
   * for both. Reads both, piece by piece.
   */
  checkHead(): Promise<void>;
  /** The safetensors files that hold the tensors, and their sizes in bytes. */
  files: { path: string; bytes: number }[];
  close(): Promise<void>;
}

/** The text of a file. UserError if it is missing or cannot be read. */
export async function readTextFile(path: string): Promise<string> {
  try {
    const text = decodeUtf8(await readFile(path), path);
    refusePointer(text, path);
    return text;
  } catch (error) {
    if (error instanceof UserError) throw error;
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new UserError(`${path}: ${missing ? (whyMissing(path) ?? 'no such file') : `cannot read it: ${reasonOf(error)}`}`);
  }
}

/** Parses a JSON file. UserError if it is missing or not JSON. */
export async function readJsonFile(path: string): Promise<unknown> {
  const text = await readTextFile(path);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(`${path}: not valid JSON: ${(error as Error).message.replaceAll('\n', ' ')}`);
  }
}

/**
 * The values of a stored float tensor. A float32 tensor is not copied; 16-bit values are written into
 * `values` if given. UserError, beginning with `where`, for a tensor that is not of floats.
 */
export function storedToFloat32(tensor: Pick<StoredTensor, 'dtype' | 'data'>, where: string, values?: Float32Array): Float32Array {
  const { buffer, byteOffset, byteLength } = tensor.data;
  switch (tensor.dtype) {
    case 'F32':
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case 'F16':
      return float16ToFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2), values);
    case 'BF16':
      return bfloat16ToFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2), values);
    case 'F64':
      return narrowed(new Float64Array(buffer, byteOffset, byteLength / 8), where);
    default:
      throw new UserError(`${where}: expected a float tensor, found ${tensor.dtype}`);
  }
}

function narrowed(doubles: Float64Array, where: string): Float32Array {
  const values = Float32Array.from(doubles);
  const lost = values.findIndex((value, i) => !Number.isFinite(value) && Number.isFinite(doubles[i]));
  if (lost >= 0) throw new UserError(`${where}: ${doubles[lost]} is beyond float32, in which models are computed`);
  return values;
}

/** File names by tensor name, from model.safetensors.index.json. UserError if it is malformed. */
export async function readShardIndex(path: string): Promise<Map<string, string>> {
  const index = await readJsonFile(path);
  const weightMap = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof weightMap !== 'object' || weightMap === null) throw new UserError(`${path}: it has no "weight_map" object`);
  const files = new Map<string, string>();
  for (const [name, file] of Object.entries(weightMap)) {
    // Only a plain file name: a downloaded index must not point out of its folder.
    if (typeof file !== 'string' || file !== basename(file) || file === '..' || file.includes('\\')) {
      throw new UserError(`${path}: weight_map sends ${JSON.stringify(name)} to ${JSON.stringify(file)}, which is not a file name`);
    }
    files.set(name, file);
  }
  return files;
}

async function openShards(dir: string): Promise<{ shards: SafetensorsFile[]; home: Map<string, SafetensorsFile> }> {
  const single = join(dir, 'model.safetensors');
  if (existsSync(single)) {
    const file = await openSafetensors(single);
    return { shards: [file], home: new Map(file.names.map((name) => [name, file])) };
  }
  const index = join(dir, 'model.safetensors.index.json');
  if (!existsSync(index)) {
    const dead = [single, index].map((path) => [path, whyMissing(path)]).find(([, problem]) => problem !== undefined);
    if (dead) throw new UserError(dead.join(': '));
    throw new UserError(otherFolder(dir) ?? `${dir}: neither model.safetensors nor model.safetensors.index.json is there`);
  }
  const shards = new Map<string, SafetensorsFile>();
  const home = new Map<string, SafetensorsFile>();
  try {
    for (const [name, fileName] of await readShardIndex(index)) {
      const path = join(dir, fileName);
      if (!shards.has(fileName) && !existsSync(path))
        throw new UserError(`${path}: ${whyMissing(path) ?? 'no such file'}, but ${index} names it; copy or download it again`);
      const shard = shards.get(fileName) ?? (await openSafetensors(path));
      shards.set(fileName, shard);
      shard.info(name);
      home.set(name, shard);
    }
  } catch (error) {
    for (const shard of shards.values()) await shard.close();
    throw error;
  }
  return { shards: [...shards.values()], home };
}

function mapNamesOf(dir: string, names: readonly string[]) {
  try {
    return mapNames(names);
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${dir}: ${error.message}`) : error;
  }
}

/**
 * Opens a Hugging Face folder and reads the headers of its files; tensors are read by name. Throws UserError
 * naming the file at fault.
 */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  if (!existsSync(dir)) throw new UserError(`${dir}: ${whyMissing(dir) ?? `no such folder${hubAdvice(dir)}`}`);
  const configFile = join(dir, 'config.json');
  const other = existsSync(configFile) ? undefined : otherFolder(dir);
  if (other !== undefined) throw new UserError(other);
  const config = await readJsonFile(configFile);
  const quantizer = foreignQuantization(config);
  if (quantizer !== undefined)
    throw new UserError(
      `${dir}: its weights are packed by ${quantizer}, which is not read: take the model before that; --quantize packs it here`,
    );
  const adapter = adapterBeside(dir);
  if (adapter !== undefined) throw new UserError(adapter);
  const { shards, home } = await openShards(dir);
  const close = async () => {
    for (const shard of shards) await shard.close();
  };
  let map: ReturnType<typeof mapNames>;
  try {
    map = mapNamesOf(dir, [...home.keys()]);
  } catch (error) {
    await close();
    throw error;
  }
  const { layout, stored, head } = map;
  const storedName = (name: string) => {
    const inFile = stored.get(name);
    if (inFile === undefined) throw new UserError(`${dir}: the checkpoint has no tensor ${JSON.stringify(name)}`);
    return inFile;
  };
  const whereIs = (inFile: string) => `${home.get(inFile)!.path}: tensor ${JSON.stringify(inFile)}`;
  const info = (name: string) => home.get(storedName(name))!.info(storedName(name));
  async function* storedPieces(inFile: string) {
    const shard = home.get(inFile)!;
    const { dtype } = shard.info(inFile);
    let converted: Float32Array | undefined;
    for await (const data of shard.pieces(inFile)) {
      const count = data.length / bytesPerElement[dtype];
      // the first piece is the longest
      converted ??= new Float32Array(count);
      yield storedToFloat32({ dtype, data }, whereIs(inFile), converted.subarray(0, count));
    }
  }
  return {
    dir,
    config,
    layout,
    names: [...stored.keys()],
    has: (name) => stored.has(name),
    shape: (name) => info(name).shape,
    info,
    place: (name) => {
      const file = home.get(storedName(name))!;
      return { path: file.path, offset: file.offset(storedName(name)), stamp: file.stamp };
    },
    bytes: async (name) => (await home.get(storedName(name))!.read(storedName(name))).data,
    storedName,
    float32: async (name) => {
      const inFile = storedName(name);
      return storedToFloat32(await home.get(inFile)!.read(inFile), whereIs(inFile));
    },
    float32Pieces: (name) => storedPieces(storedName(name)),
    head,
    async checkHead() {
      if (!head) return;
      const shape = home.get(head.stored)!.info(head.stored).shape;
      const isTied = shape.join() === info(head.embedding).shape.join();
      if (!isTied || !(await equalPieces(storedPieces(head.stored), storedPieces(storedName(head.embedding)))))
        throw new UserError(
          `${dir}: ${head.stored} differs from ${storedName(head.embedding)}: a language model whose output head is not its embedding is not supported`,
        );
    },
    files: shards.map(({ path, bytes }) => ({ path, bytes })),
    close,
  };
}

/** Whether two tensors hold the same values; their pieces may be of different lengths. */
async function equalPieces(a: AsyncGenerator<Float32Array>, b: AsyncGenerator<Float32Array>): Promise<boolean> {
  let rest = new Float32Array(0);
  for await (let left of a) {
    while (left.length > 0) {
      if (rest.length === 0) {
        const next = await b.next();
        if (next.done) return false;
        rest = next.value as Float32Array<ArrayBuffer>;
      }
      const length = Math.min(left.length, rest.length);
      for (let i = 0; i < length; i++) if (!Object.is(left[i], rest[i])) return false;
      left = left.subarray(length);
      rest = rest.subarray(length);
    }
  }
  return rest.length === 0;
}

export type FloatDType = 'F32' | 'F16' | 'BF16';

export interface CheckpointContents {
  /** Written to config.json, with the weights. Without it, the folder holds further files alone. */
  config?: unknown;
  /**
   * By Hugging Face name; row-major. A function yields the values piece by piece when their turn comes, so
   * that they need not be in memory as a whole.
   */
  tensors?: ReadonlyMap<string, { shape: number[]; data: Float32Array | (() => Iterable<Float32Array> | AsyncIterable<Float32Array>) }>;
  /** The type that `tensors` are written in. Default: F32. */
  dtype?: FloatDType;
  /** Tensors that are written in the type they have: frozen or packed weights. */
  stored?: ReadonlyMap<string, TensorSource>;
  /** Bytes of tensors per weights file; more go into shards. A tensor is never split. Default: one file. */
  maxShardSize?: number;
  /**
   * Additional files of the folder (tokenizer.json, optimizer state ...) by plain file name, or as
   * `folder/name`.
   */
  files?: Record<string, string | Uint8Array>;
  /** Additional safetensors files, such as the moments of the optimizer; named in the same way. */
  tensorFiles?: Record<string, ReadonlyMap<string, TensorSource>>;
}

/** Weights files that `saveCheckpoint` writes itself, under any name that they may have. */
const weightFile = /^model(-\d+-of-\d+)?\.safetensors(\.index\.json)?$/;

function bytesOf(data: Float32Array, dtype: FloatDType): Uint8Array {
  const stored = dtype === 'F32' ? data : dtype === 'F16' ? float32ToFloat16(data) : float32ToBfloat16(data);
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

/**
 * Floats as a tensor to be written, converted piece by piece: a 16-bit copy never exists as a whole.
 * UserError, beginning with `where`, for a number that the type does not hold.
 */
export function floatSource(
  shape: number[],
  data: Float32Array | (() => Iterable<Float32Array> | AsyncIterable<Float32Array>),
  dtype: FloatDType,
  where: string,
): TensorSource {
  return { dtype, shape, data: () => bytePieces(data instanceof Float32Array ? [data] : data(), dtype, where) };
}

/** The largest number of each type, and the least one that is rounded to infinity. */
const RANGES: Partial<Record<FloatDType, { type: string; largest: number; limit: number }>> = {
  F16: { type: 'float16', largest: 65504, limit: (2 - 2 ** -11) * 2 ** 15 },
  BF16: { type: 'bfloat16', largest: (2 - 2 ** -7) * 2 ** 127, limit: (2 - 2 ** -8) * 2 ** 127 },
};

/** The largest finite magnitude of `values` that is not below `limit`; 0 where there is none. */
function largestFrom(limit: number, values: Float32Array): number {
  let largest = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]);
    if (magnitude >= limit && magnitude > largest && magnitude < Number.POSITIVE_INFINITY) largest = magnitude;
  }
  return largest;
}

/**
 * Converts piece by piece, so that a 16-bit copy of a tensor never exists as a whole. UserError, beginning
 * with `where`, after the last piece, for a number that the type does not hold; infinity and NaN stay what
 * they are.
 */
async function* bytePieces(data: Iterable<Float32Array> | AsyncIterable<Float32Array>, dtype: FloatDType, where: string) {
  const range = RANGES[dtype];
  let beyond = 0;
  for await (const piece of data) {
    if (range) beyond = Math.max(beyond, largestFrom(range.limit, piece));
    for (let at = 0; at < piece.length; at += pieceBytes / 4) yield bytesOf(piece.subarray(at, at + pieceBytes / 4), dtype);
  }
  if (!range || beyond === 0) return;
  const other = dtype === 'F16' ? 'bfloat16 or float32' : 'float32';
  throw new UserError(`${where} holds ${beyond}, but ${range.type} ends at ${range.largest}: write ${other} instead`);
}

/** Tensors in their order, as many per shard as fit. */
function planShards(sources: ReadonlyMap<string, TensorSource>, maxShardSize: number): Map<string, TensorSource>[] {
  const shards = [new Map<string, TensorSource>()];
  let filled = 0;
  for (const [name, source] of sources) {
    const bytes = elementCount(source.shape) * bytesPerElement[source.dtype];
    if (filled > 0 && filled + bytes > maxShardSize) {
      shards.push(new Map());
      filled = 0;
    }
    shards.at(-1)!.set(name, source);
    filled += bytes;
  }
  return shards;
}

/** model.safetensors, or shards with the index that transformers reads. */
async function writeWeights(dir: string, sources: ReadonlyMap<string, TensorSource>, maxShardSize: number): Promise<void> {
  // `format` is what transformers insists on finding
  const metadata = { format: 'pt' };
  const shards = planShards(sources, maxShardSize);
  if (shards.length === 1) return writeSafetensors(join(dir, 'model.safetensors'), sources, metadata);
  const five = (value: number) => String(value).padStart(5, '0');
  const weightMap = new Map<string, string>();
  let total = 0;
  for (const [i, shard] of shards.entries()) {
    const fileName = `model-${five(i + 1)}-of-${five(shards.length)}.safetensors`;
    await writeSafetensors(join(dir, fileName), shard, metadata);
    for (const [name, { shape, dtype }] of shard) {
      weightMap.set(name, fileName);
      total += elementCount(shape) * bytesPerElement[dtype];
    }
  }
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(weightMap) };
  await writeFileAtomically(join(dir, 'model.safetensors.index.json'), [utf8.encode(`${JSON.stringify(index, null, 2)}\n`)]);
}

/**
 * Config fields that transformers 5 accepts only as floats: an integer, which is how JavaScript writes 1.0,
 * would be refused.
 */
const floatFields =
  /"(attn_logit_softcapping|final_logit_softcapping|initializer_factor|initializer_range|layer_norm_eps|layerscale_value|rms_norm_eps)": -?\d+(?=[,\n])/g;

function configText(config: unknown): string {
  return `${JSON.stringify(config, null, 2).replace(floatFields, '$&.0')}\n`;
}

/** Makes a rename durable. Windows cannot open folders, and needs no such call. */
export async function syncFolder(dir: string): Promise<void> {
  try {
    const handle = await open(dir, 'r');
    await handle.sync().finally(() => handle.close());
  } catch {
    // Not every file system allows it; the rename itself has happened.
  }
}

const isNoFileName = (name: string) => name !== basename(name) || name === '' || name === '..' || name.includes('\\');

/**
 * Where a folder is written, and where an older one waits until it is: beside it, also where its path ends in
 * a slash or leads through itself (`a/../a`).
 */
function placesBeside(dir: string): { place: string; incomplete: string; replaced: string } {
  const path = resolve(dir);
  // errors name it as it was given, as far as that can be
  const place = isAbsolute(dir) ? path : relative('', path) || path;
  return { place, incomplete: `${place}.incomplete`, replaced: `${place}.replaced` };
}

/** Where `replaceFolder(dir)` writes until all is there. */
export const incompleteOf = (dir: string): string => placesBeside(dir).incomplete;

/**
 * Repairs what a killed `saveCheckpoint(dir)` left: if it was between its two renames, the older folder is
 * put back; leftovers are removed.
 */
export async function recoverCheckpoint(dir: string): Promise<void> {
  const { replaced, incomplete } = placesBeside(dir);
  if (existsSync(replaced) && !existsSync(dir)) await rename(replaced, dir);
  for (const leftover of [replaced, incomplete]) await rm(leftover, { recursive: true, force: true });
}

/**
 * Writes a folder with `write`, which is given the place for it, beside `dir`, and renames it at the end; an
 * older folder of that name is replaced. Whenever it is killed, `recoverCheckpoint` finds one of the two.
 * UserError if the disk is full or not writable.
 */
export async function replaceFolder(dir: string, write: (folder: string) => Promise<void>): Promise<void> {
  const { place, incomplete, replaced } = placesBeside(dir);
  try {
    await rm(incomplete, { recursive: true, force: true });
    makeFolder(incomplete);
    await write(incomplete);
    await syncFolder(incomplete);
    await rm(replaced, { recursive: true, force: true });
    if (existsSync(place)) await rename(place, replaced);
    await rename(incomplete, place);
    await syncFolder(join(place, '..'));
    await rm(replaced, { recursive: true, force: true });
  } catch (error) {
    await rm(incomplete, { recursive: true, force: true }).catch(() => {});
    if (existsSync(replaced) && !existsSync(place)) await rename(replaced, place).catch(() => {});
    if (error instanceof UserError || (error as NodeJS.ErrnoException).code === undefined) throw error;
    throw new UserError(`${dir}: cannot save the checkpoint: ${reasonOf(error)}`);
  }
}

/**
 * Saves a Hugging Face folder. It is written under `<dir>.incomplete` and renamed at the end, so a run killed
 * halfway never leaves a folder that looks complete; an older folder of that name is replaced. UserError if
 * the disk is full or not writable.
 */
export async function saveCheckpoint(
  dir: string,
  {
    config,
    tensors = new Map(),
    dtype = 'F32',
    stored = new Map(),
    maxShardSize = Number.POSITIVE_INFINITY,
    files = {},
    tensorFiles = {},
  }: CheckpointContents,
): Promise<void> {
  for (const name of [...Object.keys(files), ...Object.keys(tensorFiles)]) {
    const parts = name.split('/');
    if (parts.length > 2 || parts.some(isNoFileName) || name === 'config.json' || weightFile.test(name)) {
      throw new UserError(`${dir}: ${JSON.stringify(name)} cannot be saved as a further file of a checkpoint`);
    }
  }
  const sources = new Map<string, TensorSource>();
  for (const [name, { shape, data }] of tensors) sources.set(name, floatSource(shape, data, dtype, `${dir}: ${name}`));
  for (const [name, source] of stored) sources.set(name, source);
  await replaceFolder(dir, async (incomplete) => {
    if (config !== undefined) await writeWeights(incomplete, sources, maxShardSize);
    const folders = new Set([...Object.keys(files), ...Object.keys(tensorFiles)].flatMap((name) => name.split('/').slice(0, -1)));
    for (const folder of folders) makeFolder(join(incomplete, folder));
    for (const [name, contents] of Object.entries(tensorFiles)) await writeSafetensors(join(incomplete, name), contents);
    const all = { ...files, ...(config === undefined ? {} : { 'config.json': configText(config) }) };
    for (const [name, content] of Object.entries(all)) {
      await writeFileAtomically(join(incomplete, name), [typeof content === 'string' ? utf8.encode(content) : content]);
    }
    for (const folder of folders) await syncFolder(join(incomplete, folder));
  });
}
