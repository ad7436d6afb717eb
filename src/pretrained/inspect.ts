// What a checkpoint is, how large it is, and what it takes to run and to train it. Read from the headers of
// its files; weights are read only where their values are to be checked.

import { readdirSync } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readChatTemplate } from '../checkpoint/chat-template-files.ts';
import { type Checkpoint, openCheckpoint } from '../checkpoint/checkpoint.ts';
import type { Layout } from '../checkpoint/layouts.ts';
import { UserError } from '../errors.ts';
import { fromHubConfig, isNativeConfig } from '../models/hub-config.ts';
import { languageFamily } from '../models/language.ts';
import { modelParameters } from '../models/model-parameters.ts';
import { VISION_MODEL_TYPES, visionFamilyName } from '../models/vision.ts';
import { bytesPerElement } from '../weights/dtype.ts';
import { elementCount } from '../weights/safetensors.ts';
import { readImageProcessor } from './processor.ts';
import { storedFormat } from './stored.ts';
import { notFinite, notFiniteText } from './values.ts';

/** Models that are no single encoder or language model, by `model_type`. */
const WHOLE_MODELS: Record<string, string> = { llava: 'LLaVA', clip: 'CLIP', siglip: 'SigLIP' };

/** The models that a checkpoint may hold, one or several. */
export type Part = 'visionTower' | 'connector' | 'languageModel' | 'textTower' | 'other';

export interface CheckpointInfo {
  folder: string;
  /** Names of the families, or the `model_type` of one that is not known here. */
  architecture: string;
  /** The vision tower that an original LLaVA folder names and does not hold. */
  missingVisionTower?: string;
  layout: Layout;
  /** Parts that are there, and their sum. A second copy of the embedding as output head is not counted. */
  parameters: Partial<Record<Part, number>> & { total: number };
  /** Parameters stored in each type, by its name in safetensors files. */
  dtypes: Record<string, number>;
  /** Of the weights' files, and of everything in the folder. */
  bytes: { weights: number; folder: number };
  memory: Memory;
  tokenizer: boolean;
  chatTemplate: boolean;
  imageProcessor: boolean;
  licence: string | null;
  /** What would keep it from being loaded or make it answer nonsense. */
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
  /** Of a LLaVA's two stages. */
  trainStage1?: number;
  trainStage2?: number;
}

/**
 * Bytes of the weights, and what training needs. A frozen weight lies there as it is stored (`storedBytes` of
 * all, 2 bytes per parameter in 16 bits). A trained one takes 16 bytes: its value in float32, its gradient,
 * and AdamW's two moments. Frozen 16-bit weights are cast where they are used, one matrix at a time: the
 * largest has `largestCast` bytes in float32.
 *
 *     stage 1 (connector)                    stored without connector + 16 connector + cast
 *     stage 2 (connector and language model) stored encoder + 16 (connector + language model)
 *
 * Activations and the engine's buffers come on top; they depend on batch and length.
 */
export function memoryOf(
  { total, connector, languageModel }: CheckpointInfo['parameters'],
  storedBytes: number,
  packed?: { parameters: number; bytes: number },
  largestCast = 0,
): Memory {
  const run = packed ? packed.bytes + 4 * (total - packed.parameters) : 4 * total;
  const memory = { run, float32: 4 * total, stored: storedBytes };
  // packed weights are not trained
  if (packed || connector === undefined || languageModel === undefined) return memory;
  const training = (trained: number) => Math.round((storedBytes * (total - trained)) / total) + 16 * trained;
  return { ...memory, trainStage1: training(connector) + largestCast, trainStage2: training(connector + languageModel) };
}

function partOf(name: string, isEncoder: boolean): Part {
  if (/^(vision_tower|vision_model)\./.test(name)) return 'visionTower';
  if (name.startsWith('multi_modal_projector.')) return 'connector';
  if (/^(language_model|model)\./.test(name)) return 'languageModel';
  if (name.startsWith('text_model.')) return 'textTower';
  // some encoders have no module around them
  return isEncoder ? 'visionTower' : 'other';
}

interface ConfigLike {
  model_type?: unknown;
  vision_config?: ConfigLike;
  text_config?: ConfigLike;
  mm_vision_tower?: unknown;
  architectures?: unknown;
}

function familyOf(config: ConfigLike | undefined): string | undefined {
  const type = String(config?.model_type);
  return WHOLE_MODELS[type] ?? visionFamilyName(type) ?? languageFamily(type)?.name;
}
const nameOf = (config: ConfigLike) => familyOf(config) ?? `unknown (model_type ${JSON.stringify(config.model_type)})`;

function architectureOf(config: ConfigLike): string {
  if (familyOf(config) !== 'LLaVA') return nameOf(config);
  return `LLaVA: ${nameOf(config.vision_config ?? {})} and ${nameOf(config.text_config ?? {})}`;
}

/**
 * Describes the checkpoint in `dir`. `check` also reads every weight. Throws UserError where there is no
 * readable checkpoint.
 */
export async function describeCheckpoint(dir: string, { check = false }: { check?: boolean } = {}): Promise<CheckpointInfo> {
  const checkpoint = await openCheckpoint(dir);
  try {
    const { config, missingVisionTower, problems } = readConfig(checkpoint);
    const wanted = wantedOf(config);
    const packed = packedWeights(checkpoint, wanted);
    const { parameters, dtypes, storedBytes, packedSize } = countWeights(
      checkpoint,
      VISION_MODEL_TYPES.includes(String(config.model_type)),
      packed,
    );
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
      memory: memoryOf(parameters, storedBytes, packed.size > 0 ? packedSize : undefined, largestCast(checkpoint)),
      ...(await filesBeside(dir)),
      problems,
    };
  } finally {
    await checkpoint.close();
  }
}

/** Bytes in float32 of the largest tensor that is stored in 16 bits. */
function largestCast(checkpoint: Checkpoint): number {
  const halves = checkpoint.names.map((name) => checkpoint.info(name)).filter(({ dtype }) => dtype === 'F16' || dtype === 'BF16');
  return halves.reduce((largest, { shape }) => Math.max(largest, 4 * elementCount(shape)), 0);
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
      // more than the vision tower is strange
    }
  }
  if (missingVisionTower !== undefined)
    problems.push(`the vision tower is in another folder, ${missingVisionTower}: join both with llava-gemma convert --vision-tower`);
  return { config, missingVisionTower, problems };
}

/** Bits and number of values of the weights that are packed, by name. */
type PackedWeights = ReadonlyMap<string, { bits: number; count: number }>;

function packedWeights(checkpoint: Checkpoint, wanted: Wanted): PackedWeights {
  return new Map(
    (Array.isArray(wanted) ? wanted : []).flatMap(({ name, dims }) => {
      const format = storedFormat(checkpoint, name, dims);
      return format ? [[name, { bits: format.bits, count: elementCount(dims) }] as const] : [];
    }),
  );
}

/** Parameters by part and by stored type, and bytes: of everything, and of what is packed. */
function countWeights(checkpoint: Checkpoint, isEncoder: boolean, packed: PackedWeights) {
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
    const part = partOf(name, isEncoder);
    parameters[part] = (parameters[part] ?? 0) + count;
    parameters.total += count;
    dtypes[type] = (dtypes[type] ?? 0) + count;
  }
  return { parameters, dtypes, storedBytes, packedSize };
}

/** Sizes of the files in a folder, not of those in folders below it. */
async function folderBytes(dir: string): Promise<number> {
  const stats = await Promise.all((await readdir(dir)).map((name) => stat(join(dir, name))));
  return stats.reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0);
}

/** What comes with the weights. */
async function filesBeside(dir: string) {
  const files = readdirSync(dir);
  return {
    tokenizer: files.includes('tokenizer.json'),
    chatTemplate: (await readChatTemplate(dir)) !== undefined,
    imageProcessor: (await readImageProcessor(dir, undefined)) !== undefined,
    licence: files.find((name) => /^(licen[cs]e|copying)/i.test(name)) ?? null,
  };
}

type Wanted = ReturnType<typeof modelParameters> | UserError;

/** What the model of this config holds; a UserError for a config of another kind. */
function wantedOf(config: ConfigLike): Wanted {
  try {
    return modelParameters(config);
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
}

/** Tensors that the config asks for and that are not there, or of another shape. */
function tensorProblems(
  checkpoint: Checkpoint,
  config: ConfigLike,
  wanted: Wanted,
  packed: ReadonlyMap<string, unknown>,
  towerIsElsewhere: boolean,
): string[] {
  // with a text tower it is no part of a LLaVA
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
 * What is wrong with the values: NaN, infinity, an output head that is not the embedding. Reads every weight,
 * a few million at a time.
 */
async function valueProblems(checkpoint: Checkpoint): Promise<string[]> {
  const problems: string[] = [];
  for (const name of checkpoint.names) {
    // the whole numbers of packed weights are all finite
    if (checkpoint.info(name).dtype === 'U8') continue;
    for await (const values of checkpoint.float32Pieces(name)) {
      const problem = notFinite(checkpoint, name, values);
      if (!problem) continue;
      problems.push(notFiniteText([problem]));
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
