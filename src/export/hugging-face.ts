// A checkpoint as a folder to give away: what `convert` writes, with a model card; and the adapters of a
// run as a folder of peft.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { floatSource, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapterFiles, readAdapter } from '../pretrained/adapter.ts';
import { convertCheckpoint } from '../pretrained/convert.ts';
import { type FloatType, storedFloats } from '../weights/dtype.ts';
import { modelCard } from './model-card.ts';
import { newFolder } from './new-folder.ts';
import type { ExportSource } from './source.ts';

export interface HuggingFaceOptions {
  dtype: FloatType;
  maxShardSize: number;
  /** An adapter that is put into the weights. */
  adapter?: { folder: string; engine: Engine };
}

/**
 * Writes the folder `out` in another float type, in shards, with README.md. UserErrors as of
 * `convertCheckpoint`.
 */
export async function exportHuggingFace(
  source: ExportSource,
  out: string,
  { dtype, maxShardSize, adapter }: HuggingFaceOptions,
): Promise<void> {
  const card = modelCard({ config: source.config, parameters: source.parameters, dtype, dir: source.dir });
  await convertCheckpoint(source.dir, newFolder(out), { dtype, maxShardSize, adapter, files: { 'README.md': card } });
}

/** The folder of the adapters that a stage with `lora` leaves in its checkpoint, or the folder itself. */
export function adapterFolder(dir: string): string {
  const found = [dir, join(dir, 'adapter')].find((folder) => existsSync(join(folder, ADAPTER_CONFIG)));
  if (!found) throw new UserError(`${dir} has no adapters: they are those of a stage with lora, in its checkpoint, or a folder of peft`);
  return found;
}

/**
 * Writes the adapters of a run, or of a folder of peft, as a folder of peft in `dtype`. `base` is the name of
 * the model that they go with, by which peft finds it. UserError for what is no adapter that is read here.
 */
export async function exportPeft(dir: string, out: string, { dtype, base }: { dtype: FloatType; base?: string }): Promise<void> {
  const place = newFolder(out);
  const from = adapterFolder(dir);
  const adapter = await readAdapter(from);
  const stored = JSON.parse(readFileSync(join(from, ADAPTER_CONFIG), 'utf8')) as {
    base_model_name_or_path?: string | null;
    modules_to_save?: string[] | null;
  };
  const tensors = new Map(
    [...adapter.tensors].map(([name, { dims, data }]) => [name, floatSource(dims, data, storedFloats[dtype], `${out}: ${name}`)] as const),
  );
  const { config, tensors: named } = adapterFiles({
    ...adapter,
    base: base ?? stored.base_model_name_or_path ?? undefined,
    tensors,
    wholeModules: stored.modules_to_save ?? [],
  });
  await saveCheckpoint(place, { files: { [ADAPTER_CONFIG]: config }, tensorFiles: { [ADAPTER_WEIGHTS]: named } });
}
