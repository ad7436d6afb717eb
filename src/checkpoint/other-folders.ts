// Folders and files that people take for a model and that are none that is read here: what each is, and what
// to do about it.

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

const isFolder = (path: string) => statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;

const ADAPTER = 'adapter_config.json';

/** What a folder is in which config.json or the weights are missing; undefined for nothing known. */
export function otherFolder(dir: string): string | undefined {
  if (!isFolder(dir)) {
    const isGguf = dir.endsWith('.gguf');
    return isGguf ? `${dir} is GGUF, llama.cpp's format, ${NOT_READ}` : `${dir} is a file: give the folder of the model`;
  }
  const names = readdirSync(dir);
  if (names.includes(ADAPTER)) return adapter(dir);
  if (names.includes('snapshots')) return hubCache(dir);
  if (names.includes('trainer_state.json') && !names.includes('config.json'))
    return `${dir} is a stage with adapters that has not ended, and they are merged into a model at its end: go on with the run (train --resume)`;
  if (names.includes('model.safetensors') || names.includes('model.safetensors.index.json')) return undefined;
  for (const [pattern, what] of WEIGHTS) {
    const found = names.find((name) => pattern.test(name));
    if (found !== undefined) return `${dir} has ${found}, ${what}`;
  }
  const below = names.includes('config.json') ? [] : modelsBelow(dir);
  return below.length === 0 ? undefined : `${dir} is no model, but ${below.slice(0, 3).join(', ')} may be: give that folder`;
}

const NOT_READ = "which is not read: take the model's folder in the format of Hugging Face, with config.json and safetensors";
const PICKLED =
  'which is not read, and no safetensors: convert it once in Python (load it with transformers, then save_pretrained), or see ' +
  'whether the hub has it converted: llava-gemma pull NAME --revision refs/pr/NUMBER';

/** Files of weights by name, the telling ones first. */
const WEIGHTS: readonly [RegExp, string][] = [
  [/^model-\d+-of-\d+\.safetensors$/, 'but not model.safetensors.index.json, which says where each tensor is: download that too'],
  [/^mm_projector\.(bin|safetensors)$/, 'which is the connector of an original LLaVA alone, not a whole model'],
  [/^pytorch_model(-\d+-of-\d+)?\.bin(\.index\.json)?$/, PICKLED],
  [/^consolidated.*\.(pth|safetensors)$/, `the weights in their makers' own format, ${NOT_READ}`],
  [/\.gguf$/, `llama.cpp's format, ${NOT_READ}`],
  [/^(tf_model\.h5|flax_model\.msgpack|model\.ckpt.*|.*\.onnx)$/, `the format of other software, ${NOT_READ}`],
  [/^(?!optimizer|trained).*\.safetensors$/, 'but no model.safetensors and no model.safetensors.index.json, which are what is read'],
];

/** What is wrong with a whole model that has an adapter beside it; undefined where there is none. */
export function adapterBeside(dir: string): string | undefined {
  const has = (name: string) => existsSync(join(dir, name));
  if (!has(ADAPTER) || !(has('model.safetensors') || has('model.safetensors.index.json'))) return undefined;
  return `${dir} has an adapter (${ADAPTER}) beside the model, which transformers adds to it and which is not read: move the adapter's files to a folder of their own, ADAPTER; llava-gemma merge ${dir} ADAPTER MERGED puts the two together`;
}

function adapter(dir: string): string {
  let base = 'its base model';
  try {
    const { base_model_name_or_path: name } = JSON.parse(readFileSync(join(dir, ADAPTER), 'utf8'));
    if (typeof name === 'string') base = name;
  } catch {
    // the sentence holds without the name
  }
  return `${dir} is an adapter (LoRA) of ${base}, not a model: llava-gemma merge BASE ${dir} MERGED puts the two together`;
}

/** `models--owner--name` in the cache of huggingface_hub: the commit that refs/main names, or any. */
function hubCache(dir: string): string {
  const snapshots = join(dir, 'snapshots');
  const main = join(dir, 'refs', 'main');
  const commit = existsSync(main) ? readFileSync(main, 'utf8').trim() : readdirSync(snapshots)[0];
  if (commit === undefined || !isFolder(join(snapshots, commit))) return `${dir} is a folder of the hub's cache without a model in it`;
  return `${dir} is a folder of the hub's cache: the model is in ${join(snapshots, commit)}`;
}

/** Folders with a config.json, one or two steps down. */
function modelsBelow(dir: string): string[] {
  const folders = (path: string) =>
    readdirSync(path)
      .map((name) => join(path, name))
      .filter(isFolder);
  const near = folders(dir);
  return [...near, ...near.flatMap(folders)].filter((path) => existsSync(join(path, 'config.json')));
}

/** Who packed the weights of a config.json to few bits, if it was other software. */
export function foreignQuantization(config: unknown): string | undefined {
  const { quantization_config: own, text_config } = (config ?? {}) as { quantization_config?: unknown; text_config?: object | null };
  const found = (own ?? (text_config as { quantization_config?: unknown } | null | undefined)?.quantization_config) as
    | { quant_method?: unknown }
    | null
    | undefined;
  if (typeof found !== 'object' || found === null || found.quant_method === 'llava-gemma') return undefined;
  // the first versions of bitsandbytes did not say
  return String(found.quant_method ?? 'bitsandbytes');
}
