// What a model in the tab needs of the server beside the page: the files of onnxruntime-web, and those of the
// models. They are looked for when the server starts; a request can name nothing else.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { MODEL_FILES, WEIGHTS_FILE, WEIGHTS_INDEX } from '../checkpoint/model-files.ts';
import type { DiskFile } from './disk-files.ts';
import { mediaTypeOf } from './media-types.ts';

export interface TabFiles {
  /** By their names. */
  runtime: ReadonlyMap<string, DiskFile>;
  /** By the names of the models, and in each by their own. */
  models: ReadonlyMap<string, ReadonlyMap<string, DiskFile>>;
}

/**
 * What the engine of a tab (engine/web.ts) loads, without and with WebGPU: the package's module, and its
 * WebAssembly with the module that starts it, which threads start from too.
 */
const RUNTIME_FILES = [
  'ort.wasm.bundle.min.mjs',
  'ort-wasm-simd-threaded.mjs',
  'ort-wasm-simd-threaded.wasm',
  'ort.webgpu.bundle.min.mjs',
  'ort-wasm-simd-threaded.asyncify.mjs',
  'ort-wasm-simd-threaded.asyncify.wasm',
];

function filesIn(folder: string, names: readonly string[]): ReadonlyMap<string, DiskFile> {
  const there = new Set(existsSync(folder) ? readdirSync(folder) : []);
  return new Map(
    names
      .filter((name) => there.has(name))
      .map((name) => [name, { path: join(folder, name), type: mediaTypeOf(name) ?? 'application/octet-stream' }]),
  );
}

/** Files of weights: those that an index names, where there is one. */
function weightsIn(folder: string): string[] {
  try {
    const { weight_map } = JSON.parse(readFileSync(join(folder, WEIGHTS_INDEX), 'utf8')) as { weight_map: Record<string, string> };
    return [WEIGHTS_INDEX, ...new Set(Object.values(weight_map))].filter((name) => /^[\w.-]+$/.test(name));
  } catch {
    return [WEIGHTS_FILE];
  }
}

function runtimeFolder(): string | undefined {
  try {
    return dirname(createRequire(import.meta.url).resolve('onnxruntime-web'));
  } catch {
    return undefined;
  }
}

/** `folders` by the names of their models. Undefined where onnxruntime-web is not installed. */
export function findTabFiles(folders: ReadonlyMap<string, string>): TabFiles | undefined {
  const folder = runtimeFolder();
  if (folder === undefined) return undefined;
  const models = Array.from(folders, ([id, path]) => [id, filesIn(path, [...MODEL_FILES, ...weightsIn(path)])] as const);
  return { runtime: filesIn(folder, RUNTIME_FILES), models: new Map(models) };
}
