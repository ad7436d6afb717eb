// llava-gemma info: what a checkpoint is, how large it is, and what it takes to run and to train it. Read from the headers of its files; no
// weight is read without --check.
import type { Command } from 'commander';
import type { Layout } from '../checkpoint/layouts.ts';
import { formatBytes, formatCount } from './format.ts';
import { alignColumns } from './table.ts';

/** Families by `model_type`. */
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

const LAYOUTS: Record<Layout, string> = {
  huggingface: 'Hugging Face hub files',
  'transformers-5': 'transformers 5 in memory',
  native: 'original LLaVA',
  single: 'one model',
};

/** What stands in the table for each part. */
const PARTS = {
  visionTower: 'vision tower',
  connector: 'connector',
  languageModel: 'language model',
  textTower: 'text tower',
  other: 'other',
} as const;
type Part = keyof typeof PARTS;

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
  /** Bytes of the weights as the engine runs them: float32, or packed; in float32 all; and in the types that they are stored in. */
  run: number;
  float32: number;
  stored: number;
  /** Of a LLaVA's two stages. */
  trainStage1?: number;
  trainStage2?: number;
}

/**
 * Bytes of the weights, and what training adds to them. All weights lie in float32: 4 bytes each. Each trained one takes 4 more for its
 * gradient and 8 for AdamW's two moments, so that
 *
 *     stage 1 (connector)                    4 total + 12 connector
 *     stage 2 (connector and language model) 4 total + 12 (connector + language model)
 *
 * Activations and the engine's buffers come on top; they depend on batch and length.
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
  // a bare DINOv2 has no module around it
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

/** Sizes of the files in a folder, not of those in folders below it. */
async function folderBytes(dir: string): Promise<number> {
  const [{ readdir, stat }, { join }] = await Promise.all([import('node:fs/promises'), import('node:path')]);
  const stats = await Promise.all((await readdir(dir)).map((name) => stat(join(dir, name))));
  return stats.reduce((sum, file) => sum + (file.isFile() ? file.size : 0), 0);
}

/** Describes the checkpoint in `dir`. `check` also reads every weight. Throws UserError where there is no readable checkpoint. */
export async function describeCheckpoint(dir: string, { check = false }: { check?: boolean } = {}): Promise<CheckpointInfo> {
  const [
    { openCheckpoint, readJsonFile },
    { elementCount },
    { bytesPerElement },
    { fromHubConfig, isNativeConfig },
    { UserError },
    { storedFormat },
    fs,
    { join },
  ] = await Promise.all([
    import('../checkpoint/checkpoint.ts'),
    import('../weights/safetensors.ts'),
    import('../weights/dtype.ts'),
    import('../models/hub-config.ts'),
    import('../errors.ts'),
    import('../pretrained/run-weights.ts'),
    import('node:fs'),
    import('node:path'),
  ]);
  const checkpoint = await openCheckpoint(dir);
  try {
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
        // the vision tower is not all that is strange
      }
    }
    if (missingVisionTower !== undefined)
      problems.push(`the vision tower is in another folder, ${missingVisionTower}: join both with llava-gemma convert --vision-tower`);

    const parameters: CheckpointInfo['parameters'] = { total: 0 };
    const dtypes: Record<string, number> = {};
    const wanted = await wantedOf(config);
    const packed = new Map(
      (Array.isArray(wanted) ? wanted : []).flatMap(({ name, dims }) => {
        const format = storedFormat(checkpoint, name, dims);
        return format ? [[name, { ...format, count: elementCount(dims) }] as const] : [];
      }),
    );
    const packedBytes = { parameters: 0, bytes: 0 };
    let storedBytes = 0;
    for (const name of checkpoint.names) {
      const { dtype, shape } = checkpoint.info(name);
      const bytes = elementCount(shape) * bytesPerElement[dtype];
      storedBytes += bytes;
      const weight = packed.get(name.replace(/_(packed|scale)$/, ''));
      if (weight) packedBytes.bytes += bytes;
      // the scales are no parameters of their own
      if (weight && name.endsWith('_scale')) continue;
      const count = weight?.count ?? elementCount(shape);
      const type = weight ? `int${weight.bits}` : dtype;
      if (weight) packedBytes.parameters += count;
      const part = partOf(name, familyOf(config));
      parameters[part] = (parameters[part] ?? 0) + count;
      parameters.total += count;
      dtypes[type] = (dtypes[type] ?? 0) + count;
    }
    problems.push(...tensorProblems(checkpoint, config, wanted, packed, missingVisionTower !== undefined));
    if (check) problems.push(...(await valueProblems(checkpoint)));

    const files = fs.readdirSync(dir);
    const configFile = 'tokenizer_config.json';
    const tokenizerConfig = (files.includes(configFile) ? await readJsonFile(join(dir, configFile)) : {}) as { chat_template?: unknown };
    return {
      folder: dir,
      architecture: architectureOf(config),
      ...(missingVisionTower === undefined ? {} : { missingVisionTower }),
      layout: checkpoint.layout,
      parameters,
      dtypes,
      bytes: { weights: checkpoint.files.reduce((sum, { bytes }) => sum + bytes, 0), folder: await folderBytes(dir) },
      memory: memoryOf(parameters, storedBytes, packed.size > 0 ? packedBytes : undefined),
      tokenizer: files.includes('tokenizer.json'),
      chatTemplate: files.includes('chat_template.jinja') || Boolean(tokenizerConfig.chat_template),
      imageProcessor: files.includes('preprocessor_config.json'),
      licence: files.find((name) => /^(licen[cs]e|copying)/i.test(name)) ?? null,
      problems,
    };
  } finally {
    await checkpoint.close();
  }
}

type Opened = Awaited<ReturnType<typeof import('../checkpoint/checkpoint.ts').openCheckpoint>>;

/** What the model of this config holds; a UserError for a config of another kind. */
async function wantedOf(config: ConfigLike) {
  const [{ modelParameters }, { UserError }] = await Promise.all([import('../models/model-parameters.ts'), import('../errors.ts')]);
  try {
    return modelParameters(config);
  } catch (error) {
    if (error instanceof UserError) return error;
    throw error;
  }
}
type Wanted = Awaited<ReturnType<typeof wantedOf>>;

/** Tensors that the config asks for and that are not there, or of another shape. */
function tensorProblems(
  checkpoint: Opened,
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

/** What is wrong with the values: NaN, infinity, an output head that is not the embedding. Reads every weight, some million at a time. */
async function valueProblems(checkpoint: Opened): Promise<string[]> {
  const [{ allFinite, notFiniteText }, { UserError }] = await Promise.all([import('../pretrained/values.ts'), import('../errors.ts')]);
  const problems: string[] = [];
  for (const name of checkpoint.names) {
    // the whole numbers of packed weights are all finite
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

/** The description as lines of text. */
export function formatInfo(info: CheckpointInfo): string {
  const { parameters, memory } = info;
  const share = (count: number) => `${((100 * count) / parameters.total).toFixed(1)} %`;
  const parts = (Object.keys(PARTS) as Part[]).filter((part) => parameters[part] !== undefined);
  const table = alignColumns(
    [
      ['', 'parameters', ''],
      ...parts.map((part) => [PARTS[part], formatCount(parameters[part]!), share(parameters[part]!)]),
      ['total', formatCount(parameters.total), ''],
    ],
    (text) => text,
  );
  const rows: [string, string][] = [
    ['architecture', info.architecture],
    ['layout', LAYOUTS[info.layout]],
    [
      'stored as',
      Object.entries(info.dtypes)
        .map(([dtype, count]) => (Object.keys(info.dtypes).length === 1 ? dtype : `${dtype} (${share(count)})`))
        .join(', '),
    ],
    ['on disk', `${formatBytes(info.bytes.weights)} of weights, ${formatBytes(info.bytes.folder)} in all`],
    [
      'weights in memory',
      memory.run === memory.float32
        ? `${formatBytes(memory.float32)} in float32, ${formatBytes(memory.stored)} as stored`
        : `${formatBytes(memory.run)} as they are run, ${formatBytes(memory.float32)} were they float32`,
    ],
  ];
  if (memory.trainStage1 !== undefined && memory.trainStage2 !== undefined)
    rows.push(['to train', `stage 1 ${formatBytes(memory.trainStage1)}, stage 2 ${formatBytes(memory.trainStage2)}, without activations`]);
  const has = (present: boolean) => (present ? 'yes' : 'no');
  rows.push(
    ['tokenizer', has(info.tokenizer)],
    ['chat template', has(info.chatTemplate)],
    ['image processor', has(info.imageProcessor)],
    ['licence', info.licence ?? 'no file'],
  );
  const width = Math.max(...rows.map(([label]) => label.length));
  return [info.folder, '', ...rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`), '', ...table].join('\n');
}

export function register(program: Command): void {
  program
    .command('info')
    .summary('say what a checkpoint is, and what it takes to run and train it')
    .description(
      `Say what a checkpoint is: its parts and their sizes, float types, the layout of its names, and the memory to run and train it. Only
the headers of its files are read. What is wrong with it is told on stderr.`,
    )
    .argument('<folder>', 'Hugging Face or original LLaVA folder')
    .option('--check', 'also read every weight, and name tensors that hold NaN or infinity')
    .option('--json', 'print one JSON object')
    .addHelpText('after', '\nExample:\n  $ llava-gemma info assets/models/tiny-llava')
    .action(async (folder: string, { check, json }: { check?: boolean; json?: boolean }) => {
      const { resolvePath } = await import('../paths.ts');
      const info = await describeCheckpoint(resolvePath(folder, 'info'), { check });
      console.log(json ? JSON.stringify(info, null, 2) : formatInfo(info));
      for (const problem of info.problems) console.error(`warning: ${problem}`);
    });
}
