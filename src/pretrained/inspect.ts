// Reports what a checkpoint is, how large it is, and what it takes to run and to train it, from the headers
// of its files; weights are read only if their values are to be checked.

import { readdirSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Checkpoint, openCheckpoint, readJsonFile } from '../checkpoint/checkpoint.ts';
import type { Layout } from '../checkpoint/layouts.ts';
import { UserError } from '../errors.ts';
import { fromHubConfig, isNativeConfig } from '../models/hub-config.ts';
import { modelParameters } from '../models/model-parameters.ts';
import { bytesPerElement } from '../weights/dtype.ts';
import { elementCount } from '../weights/safetensors.ts';
import { storedFormat } from './run-weights.ts';
import { allFinite, notFiniteText } from './values.ts';

/** Names of families by `model_type`. */
const FAMILIES: Record<string, string> = {
  llava: 'LLaVA',
  gemma: 'Gemma 1',
  gemma2: 'Gemma 2',
  gemma3_text: 'Gemma 3',
  clip: 'CLIP',
  clip_vision_model: 'CLIP',
  siglip: 'SigLIP',
  siglip_vision_model: 'SigLIP',
  dinov2: 'DINOv2',
};

/** The parts that a checkpoint may hold, one or several. */
export type Part = 'visionTower' | 'connector' | 'languageModel' | 'textTower' | 'other';

export interface CheckpointInfo {
  folder: string;
  /** Names of the families, or the `model_type` of an unknown one. */
  architecture: string;
  /** The vision tower that an original LLaVA folder names but does not hold. */
  missingVisionTower?: string;
  layout: Layout;
  /**
   * Numbers of parameters in the parts that are there, and their sum. An output head that is a second copy of
   * the embedding is not counted.
   */
  parameters: Partial<Record<Part, number>> & { total: number };
  /** Number of parameters stored in each type, by its name in safetensors files. */
  dtypes: Record<string, number>;
  /** Bytes of the weights files, and of everything in the folder. */
  bytes: { weights: number; folder: number };
  memory: Memory;
  tokenizer: boolean;
  chatTemplate: boolean;
  imageProcessor: boolean;
  licence: string | null;
  /** Whatever would keep it from loading or make it answer nonsense. */
  problems: string[];
}

export interface Memory {
  /**
   * Bytes of the weights: as the engine runs them (float32 or packed), with all in float32, and as they are
   * stored.
   */
  run: number;
  float32: number;
  stored: number;
  /** Bytes for each of a LLaVA's two training stages. */
  trainStage1?: number;
  trainStage2?: number;
}

/**
 * Bytes of the weights, and what training adds to them. All weights are in float32: 4 bytes each. Each
 * trained one takes 4 more for its gradient and 8 for AdamW's two moments, so that
 *
 *     stage 1 (connector)                    4 total + 12 connector
 *     stage 2 (connector and language model) 4 total + 12 (connector + language model)
 *
 * Activations and the engine's buffers come on top; they depend on batch size and length.
 */
export function memoryOf(
  { total, connector, languageModel }: CheckpointInfo['parameters'],
  storedBytes: number,
  packed?: { parameters: number; bytes: number },
): Memory {
  const run = packed ? packed.bytes + 4 * (total - packed.parameters) : 4 * total;
  const memory = { run, float32: 4 * total, stored: storedBytes };
  // packed weights are not trained
  if (packed || connector === undefined || languageModel === undefined) return memory;
  return { ...memory, trainStage1: 4 * total + 12 * connector, trainStage2: 4 * total + 12 * (connector + languageModel) };
}

function partOf(name: string, family: string | undefined): Part {
  if (/^(vision_tower|vision_model)\./.test(name)) return 'visionTower';
  if (name.startsWith('multi_modal_projector.')) return 'connector';
  if (/^(language_model|model)\./.test(name)) return 'languageModel';
  if (name.startsWith('text_model.')) return 'textTower';
  // a bare DINOv2 has no enclosing module
  return family === 'DINOv2' ? 'visionTower' : 'other';
}

interface ConfigLike {
  model_type?: unknown;
  vision_config?: ConfigLike;
  text_config?: ConfigLike;
  mm_vision_tower?: unknown;
  architectures?: unknown;
}

const familyOf = (config: ConfigLike | undefined) => FAMILIES[String(config?.model_type)];
const nameOf = (config: ConfigLike) => familyOf(config) ?? `unknown (model_type ${JSON.stringify(config.model_type)})`;

function architectureOf(config: ConfigLike): string {
  if (familyOf(config) !== 'LLaVA') return nameOf(config);
  return `LLaVA: ${nameOf(config.vision_config ?? {})} and ${nameOf(config.text_config ?? {})}`;
}

/**
 * Describes the checkpoint in `dir`. `check` also reads every weight. Throws UserError if there is no
 * readable checkpoint.
 */
export async function describeCheckpoint(dir: string, { check = false }: { check?: boolean } = {}): Promise<CheckpointInfo> {
  const checkpoint = await openCheckpoint(dir);
  try {
    const { config, missingVisionTower, problems } = readConfig(checkpoint);
    const wanted = wantedOf(config);
    const packed = packedWeights(checkpoint, wanted);
    const { parameters, dtypes, storedBytes, packedSize } = countWeights(checkpoint, familyOf(config), packed);
    problems.push(...tensorProblems(checkpoint, config, wanted, packed, missingVisionTower !== undefined));
    if (check) problems.push(...(await valueProblems(checkpoint)));
    return {
      folder: dir,
      architecture: architectureOf(config),
      ...(missingVisionTower === undefined ? {} : { missingVisionTower }),
      layout: checkpoint.layout,
      parameters,
      dtypes,
      bytes: { weights: checkpoint.files.reduce((sum, { bytes }) => sum + bytes, 0), folder: await folderBytes(dir) },
      memory: memoryOf(parameters, storedBytes, packed.size > 0 ? packedSize : undefined),
      ...(await filesBeside(dir)),
      problems,
    };
  } finally {
    await checkpoint.close();
  }
}

/** The config in Hugging Face's form, as far as possible, and what is wrong with it. */
function readConfig(checkpoint: Checkpoint): { config: ConfigLike; missingVisionTower?: string; problems: string[] } {
  const problems: string[] = [];
  const stored = (checkpoint.config ?? {}) as ConfigLike;
  const holdsTower = checkpoint.names.some((name) => name.startsWith('vision_tower.'));
  const missingVisionTower = isNativeConfig(stored) && !holdsTower ? String(stored.mm_vision_tower) : undefined;
  let config = stored;
  try {
    config = fromHubConfig(stored) as ConfigLike;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    problems.push(`config.json: ${error.message}`);
    try {
      config = fromHubConfig(stored, { visionConfig: { model_type: String(stored.mm_vision_tower) } }) as ConfigLike;
    } catch {
      // more than the vision tower is wrong
    }
  }
  if (missingVisionTower !== undefined)
    problems.push(`the vision tower is in another folder, ${missingVisionTower}: join both with llava-gemma convert --vision-tower`);
  return { config, missingVisionTower, problems };
}

/** Bits and number of values of the packed weights, by name. */
type PackedWeights = ReadonlyMap<string, { bits: number; count: number }>;

function packedWeights(checkpoint: Checkpoint, wanted: Wanted): PackedWeights {
  return new Map(
    (Array.isArray(wanted) ? wanted : []).flatMap(({ name, dims }) => {
      const format = storedFormat(checkpoint, name, dims);
      return format ? [[name, { bits: format.bits, count: elementCount(dims) }] as const] : [];
    }),
  );
}

/** Parameters by part and by stored type, and bytes of everything and of the packed weights. */
function countWeights(checkpoint: Checkpoint, family: string | undefined, packed: PackedWeights) {
  const parameters: CheckpointInfo['parameters'] = { total: 0 };
  const dtypes: Record<string, number> = {};
  const packedSize = { parameters: 0, bytes: 0 };
  let storedBytes = 0;
  for (const name of checkpoint.names) {
    const { dtype, shape } = checkpoint.info(name);
    const bytes = elementCount(shape) * bytesPerElement[dtype];
    storedBytes += bytes;
    const weight = packed.get(name.replace(/_(packed|scale)$/, ''));
    if (weight) packedSize.bytes += bytes;
    // scales are not parameters of their own
    if (weight && name.endsWith('_scale')) continue;
    const count = weight?.count ?? elementCount(shape);
    const type = weight ? `int${weight.bits}` : dtype;
    if (weight) packedSize.parameters += count;
    const part = partOf(name, family);
    parameters[part] = (parameters[part] ?? 0) + count;
    parameters.total += count;
    dtypes[type] = (dtypes[type] ?? 0) + count;
  }
  return { parameters, dtypes, storedBytes, packedSize };
}

/** Bytes of the files in a folder, subfolders not included. */
async function folderBytes(dir: string): Promise<number> {
  const stats = await Promise.all((await readdir(dir)).map((name) => stat(join(dir, name))));
  return stats.reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0);
}

/** Which other files come with the weights. */
async function filesBeside(dir: string) {
  const files = readdirSync(dir);
  const configFile = 'tokenizer_config.json';
  const tokenizerConfig = (files.includes(configFile) ? await readJsonFile(join(dir, configFile)) : {}) as { chat_template?: unknown };
  return {
    tokenizer: files.includes('tokenizer.json'),
    chatTemplate: files.includes('chat_template.jinja') || Boolean(tokenizerConfig.chat_template),
    imageProcessor: files.includes('preprocessor_config.json'),
    licence: files.find((name) => /^(licen[cs]e|copying)/i.test(name)) ?? null,
  };
}

type Wanted = ReturnType<typeof modelParameters> | UserError;

/** The parameters of the model of this config; a UserError, returned, for a config of another kind. */
function wantedOf(config: ConfigLike): Wanted {
  try {
    return modelParameters(config);
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
}

/** Tensors that the config asks for but that are missing or of another shape. */
function tensorProblems(
  checkpoint: Checkpoint,
  config: ConfigLike,
  wanted: Wanted,
  packed: ReadonlyMap<string, unknown>,
  towerIsElsewhere: boolean,
): string[] {
  // with a text tower it is not part of a LLaVA
  if (!Array.isArray(wanted)) return ['clip', 'siglip'].includes(String(config.model_type)) ? [] : [`config.json: ${wanted.message}`];
  const here = towerIsElsewhere ? wanted.filter(({ name }) => !name.startsWith('vision_tower.')) : wanted;
  const missing = here.filter(({ name, optional }) => !optional && !checkpoint.has(name) && !packed.has(name)).map(({ name }) => name);
  const problems = here
    .filter(({ name, dims }) => checkpoint.has(name) && checkpoint.shape(name).join() !== dims.join())
    .map(
      ({ name, dims }) =>
        `${checkpoint.storedName(name)} has shape [${checkpoint.shape(name).join(', ')}], but config.json asks for [${dims.join(', ')}]`,
    );
  if (missing.length > 0) problems.unshift(`${missing.length} of ${here.length} tensors are missing, such as ${missing[0]}`);
  return problems;
}

/**
 * What is wrong with the values: NaN, infinity, an output head that differs from the embedding. Reads every
 * weight, a few million at a time.
 */
async function valueProblems(checkpoint: Checkpoint): Promise<string[]> {
  const problems: string[] = [];
  for (const name of checkpoint.names) {
    // the integers of packed weights are all finite
    if (checkpoint.info(name).dtype === 'U8') continue;
    for await (const values of checkpoint.float32Pieces(name)) {
      if (allFinite(values)) continue;
      problems.push(notFiniteText([checkpoint.storedName(name)]));
      break;
    }
  }
  try {
    await checkpoint.checkHead();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    problems.push(error.message);
  }
  return problems;
}
