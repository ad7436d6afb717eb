// Which models are served: folders that are models, and those in folders that are none.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { UserError } from '../errors.ts';

const isModel = (folder: string) => existsSync(join(folder, 'config.json'));

/** Whether a folder is a model that answers: beside it may lie encoders and language models by themselves. */
function isLlava(folder: string): boolean {
  try {
    return JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')).model_type === 'llava';
  } catch {
    return false;
  }
}

/**
 * The folders of the models that `paths` name, by the names that requests call them by: those of the folders.
 * UserError for a folder without models, and for two of the same name.
 */
export function findModels(paths: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const folder of paths.flatMap(modelsIn)) {
    const name = basename(folder);
    const other = found.get(name);
    if (other !== undefined && other !== folder) throw new UserError(`--model: ${other} and ${folder} have the same name: rename one`);
    found.set(name, folder);
  }
  return found;
}

function modelsIn(path: string): string[] {
  const folder = resolve(path);
  if (isModel(folder)) return [folder];
  const inside = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
    .map(({ name }) => join(folder, name))
    .filter(isLlava)
    .sort();
  if (inside.length === 0) throw new UserError(`--model: ${path}: neither it nor a folder in it is a LLaVA`);
  return inside;
}
