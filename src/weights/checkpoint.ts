// Hugging Face model folders: config.json beside model.safetensors, or beside shards named by model.safetensors.index.json.
// Shards are found through the index only, never by pattern: Intel/llava-gemma-2b holds two shard sets in one folder.
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { UserError } from '../errors.ts';
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from './dtype.ts';
import { openSafetensors, type SafetensorsFile, type StoredTensor, writeFileAtomically, writeSafetensors } from './safetensors.ts';

export interface Checkpoint {
  dir: string;
  /** config.json, parsed but not validated: that is the model family's part. */
  config: unknown;
  names: string[];
  has(name: string): boolean;
  shape(name: string): number[];
  /** One tensor's values as float32, whatever float type it is stored in; row-major. */
  float32(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/** Parses a JSON file; UserError when it is missing or not JSON. */
export async function readJsonFile(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    throw new UserError(`${path}: ${missing ? 'no such file' : `cannot read it: ${(error as Error).message}`}`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(`${path}: not valid JSON: ${(error as Error).message}`);
  }
}

/** The values of a stored float tensor. A float32 tensor is not copied. */
export function storedToFloat32(tensor: StoredTensor, where: string): Float32Array {
  const { buffer, byteOffset, byteLength } = tensor.data;
  switch (tensor.dtype) {
    case 'F32':
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case 'F16':
      return float16ToFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case 'BF16':
      return bfloat16ToFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case 'F64':
      return Float32Array.from(new Float64Array(buffer, byteOffset, byteLength / 8));
    default:
      throw new UserError(`${where}: expected a float tensor, found ${tensor.dtype}`);
  }
}

async function readShardIndex(path: string): Promise<Map<string, string>> {
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

/** Opens a Hugging Face folder and reads its headers; tensors are read by name. Throws UserError naming the file at fault. */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  if (!existsSync(dir)) throw new UserError(`${dir}: no such folder`);
  const config = await readJsonFile(join(dir, 'config.json'));
  const shards = new Map<string, SafetensorsFile>();
  const home = new Map<string, SafetensorsFile>();
  const close = async () => {
    for (const shard of shards.values()) await shard.close();
  };
  try {
    const single = join(dir, 'model.safetensors');
    const index = join(dir, 'model.safetensors.index.json');
    if (existsSync(single)) {
      const file = await openSafetensors(single);
      shards.set(single, file);
      for (const name of file.names) home.set(name, file);
    } else if (existsSync(index)) {
      for (const [name, fileName] of await readShardIndex(index)) {
        const shard = shards.get(fileName) ?? (await openSafetensors(join(dir, fileName)));
        shards.set(fileName, shard);
        shard.info(name);
        home.set(name, shard);
      }
    } else {
      const pickled = existsSync(join(dir, 'pytorch_model.bin')) ? ' (pytorch_model.bin is not read; save it as safetensors)' : '';
      throw new UserError(`${dir}: neither model.safetensors nor model.safetensors.index.json is there${pickled}`);
    }
  } catch (error) {
    await close();
    throw error;
  }
  const find = (name: string) => {
    const shard = home.get(name);
    if (!shard) throw new UserError(`${dir}: the checkpoint has no tensor ${JSON.stringify(name)}`);
    return shard;
  };
  return {
    dir,
    config,
    names: [...home.keys()],
    has: (name) => home.has(name),
    shape: (name) => find(name).info(name).shape,
    float32: async (name) => storedToFloat32(await find(name).read(name), `${find(name).path}: tensor ${JSON.stringify(name)}`),
    close,
  };
}

export interface CheckpointContents {
  /** Written to config.json. */
  config: unknown;
  /** By Hugging Face name; row-major. */
  tensors: ReadonlyMap<string, { shape: number[]; data: Float32Array }>;
  dtype: 'F32' | 'F16' | 'BF16';
  /** Further files of the folder (tokenizer.json, optimiser state ...) by plain file name. */
  files?: Record<string, string | Uint8Array>;
  /** Further safetensors files by plain file name, such as the moments of the optimiser. */
  tensorFiles?: Record<string, ReadonlyMap<string, StoredTensor>>;
}

function bytesOf(data: Float32Array, dtype: CheckpointContents['dtype']): Uint8Array {
  const stored = dtype === 'F32' ? data : dtype === 'F16' ? float32ToFloat16(data) : float32ToBfloat16(data);
  return new Uint8Array(stored.buffer, stored.byteOffset, stored.byteLength);
}

/** Makes a rename durable. Windows cannot open folders, and needs no such call. */
async function syncFolder(dir: string): Promise<void> {
  try {
    const handle = await open(dir, 'r');
    await handle.sync().finally(() => handle.close());
  } catch {
    // Not every file system allows it; the rename itself has happened.
  }
}

/**
 * Sets right what a killed `saveCheckpoint(dir)` left: between its two renames the older folder is put back, and what is no longer
 * needed is removed.
 */
export async function recoverCheckpoint(dir: string): Promise<void> {
  const replaced = `${dir}.replaced`;
  if (existsSync(replaced) && !existsSync(dir)) await rename(replaced, dir);
  for (const leftover of [replaced, `${dir}.incomplete`]) await rm(leftover, { recursive: true, force: true });
}

/**
 * Saves a Hugging Face folder. It is written under `<dir>.incomplete` and renamed at the end, so a run killed half-way never leaves a
 * folder that looks complete; an older folder of that name is replaced.
 */
export async function saveCheckpoint(
  dir: string,
  { config, tensors, dtype, files = {}, tensorFiles = {} }: CheckpointContents,
): Promise<void> {
  for (const name of [...Object.keys(files), ...Object.keys(tensorFiles)]) {
    if (name !== basename(name) || name === '..' || name === 'config.json' || name === 'model.safetensors') {
      throw new UserError(`${dir}: ${JSON.stringify(name)} cannot be saved as a further file of a checkpoint`);
    }
  }
  const stored = new Map<string, StoredTensor>();
  for (const [name, { shape, data }] of tensors) {
    // Converted when its turn to be written comes, so that a 16-bit copy of the whole model never exists.
    stored.set(name, {
      dtype,
      shape,
      get data() {
        return bytesOf(data, dtype);
      },
    });
  }
  const incomplete = `${dir}.incomplete`;
  const replaced = `${dir}.replaced`;
  await rm(incomplete, { recursive: true, force: true });
  try {
    await mkdir(incomplete, { recursive: true });
    // `format` is what transformers insists on finding.
    await writeSafetensors(join(incomplete, 'model.safetensors'), stored, { format: 'pt' });
    for (const [name, contents] of Object.entries(tensorFiles)) await writeSafetensors(join(incomplete, name), contents);
    const all = { ...files, 'config.json': `${JSON.stringify(config, null, 2)}\n` };
    for (const [name, content] of Object.entries(all)) {
      await writeFileAtomically(join(incomplete, name), [typeof content === 'string' ? Buffer.from(content, 'utf8') : content]);
    }
    await syncFolder(incomplete);
    await rm(replaced, { recursive: true, force: true });
    if (existsSync(dir)) await rename(dir, replaced);
    await rename(incomplete, dir);
    await syncFolder(join(dir, '..'));
    await rm(replaced, { recursive: true, force: true });
  } catch (error) {
    await rm(incomplete, { recursive: true, force: true });
    if (error instanceof UserError || (error as NodeJS.ErrnoException).code === undefined) throw error;
    throw new UserError(`${dir}: cannot save the checkpoint: ${(error as Error).message}`);
  }
}
