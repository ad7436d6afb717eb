// Where the runtime finds the constants of a program, those in files included: it maps these.

import { realpathSync, statSync } from 'node:fs';
import { dirname, relative, sep } from 'node:path';
import { checkStamp } from '../file-stamp.ts';
import { type Constant, elementBytes, type StoredValue, sizeOf, type Value } from './engine.ts';
import { type ConstantLayout, isStored, layOutInMemory } from './onnx/constants.ts';

/** Bytes of a constant in memory that is written into the model where others lie in files. */
const INLINE_BYTES = 2 ** 20;

/**
 * Says where the runtime finds the constants. Those in files stay there: the runtime maps them. All files
 * must be below one folder, which it is told, and their paths must have no links: it follows none that lead
 * out of the folder. Those in memory are handed over beside the model. The runtime takes buffers or files,
 * not both for one model: where there are files, small constants in memory are written into the model, and
 * large ones are fed at each run. UserError for a file that is not the one that was looked at.
 */
export function layOutConstants(constants: ReadonlyMap<string, Constant>): ConstantLayout {
  const stored = new Map<string, StoredValue>();
  const inMemory = new Map<string, Value>();
  for (const [name, value] of constants)
    if (isStored(value)) stored.set(name, value);
    else inMemory.set(name, value);
  if (stored.size === 0) return layOutInMemory(inMemory);

  const layout: ConstantLayout = { externalInputs: new Map(), inlineInputs: new Map(), fed: new Map(), buffers: [] };
  for (const [name, value] of inMemory) {
    const canBeFed = value.dtype !== 'bfloat16';
    if (canBeFed && value.data.byteLength > INLINE_BYTES) layout.fed.set(name, value);
    else layout.inlineInputs.set(name, value);
  }
  // files hold hundreds of tensors: each is looked at once
  const files = [...new Set([...stored.values()].map(({ path }) => path))];
  const paths = new Map(files.map((path) => [path, realpathSync(path)]));
  const stats = new Map(files.map((path) => [path, statSync(path)]));
  for (const { path, stamp } of stored.values()) checkStamp(path, stats.get(path)!, stamp);
  layout.folder = commonFolder([...paths.values()]);
  for (const [name, { path, offset, dtype, dims }] of stored)
    layout.externalInputs.set(name, {
      location: relative(layout.folder, paths.get(path)!).split(sep).join('/'),
      offset,
      length: sizeOf(dims) * elementBytes[dtype],
    });
  return layout;
}

function commonFolder(paths: readonly string[]): string {
  let folder = dirname(paths[0]);
  while (!paths.every((path) => path.startsWith(folder.endsWith(sep) ? folder : folder + sep))) {
    if (dirname(folder) === folder) throw new Error(`${paths[0]} and ${paths.at(-1)} are on different disks; put them on one`);
    folder = dirname(folder);
  }
  return folder;
}
