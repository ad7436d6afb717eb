// The two-stage recipe of LLaVA on a Gemma (recipe task `llava`; Liu et al. 2023, Hinck et al. 2024): stage 1
// fits the connector to captions, stage 2 connector and language model to questions. A frozen encoder runs
// once an image; its features are cached.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type DataFile, type DataIndex, subset } from '../../data/data-set.ts';
import { buildEmojiDataset, type EmojiDataset, emojiDataset } from '../../data/emoji/build.ts';
import { encoderFingerprint, type FeatureType, featureBytes } from '../../data/feature-cache.ts';
import type { SampleFault } from '../../data/llava-json.ts';
import { batchesPerEpoch } from '../../data/sample-order.ts';
import { UserError } from '../../errors.ts';
import type { Sample } from '../../evaluate/samples.ts';
import { imageSize, imageTokenCount, type LlavaConfig, visionFeatureSize } from '../../models/llava.ts';
import { compileGraph, encoderGraph, type GraphProgram, llavaLoss } from '../../models/programs.ts';
import { whyMissing } from '../../paths.ts';
import { runFolder } from '../../runs/folder.ts';
import { formatDuration, type Status } from '../../runs/status.ts';
import { adapterGraph, adaptersOf, dropoutInputs, type StageAdapters, withDropout } from '../adapters.ts';
import type { BatchSource, PictureBatch } from '../batch.ts';
import { type CheckedData, checkData } from '../checks.ts';
import type { HeldOutData } from '../held-out.ts';
import { prefetchedBatches } from '../prefetch.ts';
import { batchShare, type EncodedPictures, gatherFeatures, requireShared, threadsOf } from '../processes.ts';
import type { LlavaRecipe, LlavaStage } from '../recipe.ts';
import { scenesOf } from '../scenes.ts';
import { skippedSamples } from '../skipped-samples.ts';
import { openSource } from '../source.ts';
import type { FeatureSource, LlavaSource } from '../sources/llava.ts';
import type { StageData } from '../stage.ts';
import type { PreparedStage, Task, TaskContext } from '../task.ts';
import { ModelWeights } from '../weights.ts';
import { assemble, inStage, type Model, moduleOf } from './llava-model.ts';
import { modalityGroups, outlineLlavaStage, pictureCount, stepsOfStage } from './llava-outline.ts';
import { scoreSplits } from './llava-scores.ts';

/** Whether a stage trains the encoder, or adapters in it. */
const changesEncoder = ({ train }: LlavaStage, adapters: StageAdapters | undefined): boolean =>
  train.includes('vision_tower') || [...(adapters?.layers.keys() ?? [])].some((layer) => layer.startsWith('vision_tower.'));

/**
 * How features are kept; not at all where the encoder is trained, and they change. UserError for a stage that
 * needs them all the same.
 */
function keptFeatures(stage: LlavaStage, adapters: StageAdapters | undefined, data: DataIndex, config: LlavaConfig, status: Status) {
  if (!changesEncoder(stage, adapters)) return featureType(stage, data, config, status);
  if (stage.feature_mixup > 0)
    throw new UserError(`stage ${stage.name}: feature_mixup needs a frozen encoder, but lora adapts vision_tower`);
  return undefined;
}

/**
 * How the features of a stage's pictures are kept; undefined where they are computed at each step. What
 * `auto` takes depends on the data alone, so that a resumed run takes the same.
 */
function featureType(
  { name, feature_cache: asked, feature_cache_gb: budget, feature_mixup: mixup }: LlavaStage,
  data: DataIndex,
  config: LlavaConfig,
  status: Status,
): FeatureType | undefined {
  if (asked === 'none') return undefined;
  if (asked !== 'auto') return asked;
  const pictures = pictureCount(data);
  const size = imageTokenCount(config) * visionFeatureSize(config);
  const gigabytes = (dtype: FeatureType) => (pictures * featureBytes(size, dtype)) / 1e9;
  const fits = (['float32', 'float16'] as const).find((dtype) => gigabytes(dtype) <= budget);
  if (fits === 'float32') return fits;
  const needed = `stage ${name}: features of up to ${pictures} pictures would take ${gigabytes('float32').toFixed(0)} GB on disk, and feature_cache_gb is ${budget}`;
  if (!fits && mixup > 0) throw new UserError(`${needed}: feature_mixup needs them kept; raise feature_cache_gb`);
  status.note(`${needed}: ${fits ? 'they are kept in float16' : 'the encoder runs at each step'}`);
  return fits;
}

/** Where the features of the frozen encoder are, whether or not they are there yet. */
async function featureSource({ config, processor, weights }: Model, dtype: FeatureType, mixup: number): Promise<FeatureSource> {
  const { vision_feature_layer, vision_feature_select_strategy, vision_config } = config;
  const description = { vision_config, vision_feature_layer, vision_feature_select_strategy, processor };
  const encoder = weights.bytes((name) => name.startsWith('vision_tower.'));
  const fingerprint = await encoderFingerprint(description, encoder);
  return { folder: '.cache/features', fingerprint, dtype, width: visionFeatureSize(config), mixup };
}

/**
 * Runs the frozen encoder over the pictures whose features are not cached; the next ones are read while it
 * computes. Each process encodes its share, and the first one keeps all.
 */
async function cacheFeatures(source: BatchSource, { config, weights }: Model, context: TaskContext): Promise<void> {
  const { engine, status, signal, communicator } = context;
  let program: GraphProgram<'pixel_values', 'features'> | undefined;
  const began = performance.now();
  const encode = async ({ keys, pixels }: PictureBatch): Promise<EncodedPictures> => {
    if (!program) {
      const graph = encoderGraph(config, { storage: weights.storageOf() });
      program = await compileGraph(engine, graph, await weights.constants(graph));
    }
    const { features } = await program.run({ pixel_values: pixels });
    return { keys, features: features.data as Float32Array };
  };
  const anyLeft = async (own: PictureBatch | undefined) => (await communicator.share([own ? 1 : 0])).some(([left]) => left === 1);
  try {
    let pictures = await source.pictures();
    for (let isFirst = true; await anyLeft(pictures); isFirst = false) {
      signal.throwIfAborted();
      if (isFirst) status.note('encoding pictures with the frozen encoder');
      const next = pictures && source.pictures();
      const own = pictures ? await encode(pictures) : { keys: [], features: new Float32Array(0) };
      for (const { keys, features } of await gatherFeatures(communicator, own)) if (keys.length > 0) await source.keep(keys, features);
      if (pictures) {
        const left = ((performance.now() - began) / 1000) * (1 / pictures.done - 1);
        status.progress(`encoding pictures: ${Math.floor(100 * pictures.done)} %  ETA ${formatDuration(left)}`);
      }
      pictures = await next;
    }
    // the others read from now on what the first has kept
    await communicator.barrier();
  } finally {
    await program?.dispose();
  }
}

/** The scenes that the recipe asks for, drawn if need be. */
async function drawScenes(
  { seed, data }: LlavaRecipe,
  { status, communicator, scenesAreDrawn }: TaskContext,
): Promise<EmojiDataset | undefined> {
  if (!data) return undefined;
  const { folder, train_scenes, evaluation_scenes } = data;
  if (scenesAreDrawn) return emojiDataset(folder);
  status.note(`drawing ${train_scenes} training scenes and ${evaluation_scenes} of each held-out split into ${folder}`);
  await communicator.lead(async () => {
    await buildEmojiDataset(scenesOf(data, seed));
  });
  await requireShared(communicator, folder);
  return emojiDataset(folder);
}

/** The task of a `llava` recipe. */
export async function llavaTask(recipe: LlavaRecipe, context: TaskContext): Promise<Task> {
  const weights = new ModelWeights(context.engine, { unread: context.isPlan });
  const model = await assemble(recipe, { weights, warn: context.status.note });
  const dataset = await drawScenes(recipe, context);
  const filesOf = ({ data }: LlavaStage): DataFile[] => {
    if (typeof data === 'string') return [{ path: dataset![data], imageFolder: dataset!.imageFolder, share: 1 }];
    return [data].flat().map(({ data_path, image_folder, share, samples }) => ({
      path: data_path,
      imageFolder: image_folder,
      share,
      perEpoch: samples,
    }));
  };
  for (const { name, data } of recipe.stages) if (typeof data !== 'string') for (const file of [data].flat()) checkPaths(name, file);
  // of all stages before the first begins: what is wrong with the last one's data shows now, not after hours
  const checked: CheckedData[] = [];
  for (const stage of recipe.stages) {
    const { tokenizer, config } = model;
    checked.push(
      await checkData({
        stage: stage.name,
        files: filesOf(stage),
        // scenes were drawn by us
        checksPictures: typeof stage.data !== 'string',
        onBadSample: stage.on_bad_sample,
        ...(stage.held_out ? { heldOut: { ...stage.held_out, seed: recipe.seed } } : {}),
        tokenizer,
        imageTokens: imageTokenCount(config),
        template: stage.template,
        maxLength: Math.min(stage.max_length, config.text_config.max_position_embeddings),
        status: context.status,
        signal: context.signal,
      }),
    );
  }
  const adapters = await stageAdapters(recipe, model.config, context.out);
  for (const { train } of recipe.stages) model.weights.checkTrainable((name) => (train as string[]).includes(moduleOf(name)));
  let answered: Sample[] = [];
  return {
    weights: model.weights,
    saved: { config: model.config, files: model.files },
    savedIn: (index) => ({ config: model.config, files: inStage(model, recipe.stages[index]).files }),
    stages: recipe.stages,
    moduleOf,
    adapters: (index) => adapters[index],
    dataFiles: (index) => checked[index].index.files.map(({ path }) => path),
    async prepareStage(index) {
      const settings = recipe.stages[index];
      const staged = inStage(model, settings);
      const prepared = await prepareStage(recipe, staged, checked[index], settings, adapters[index], context);
      const { every = 0, questions } = recipe.evaluate ?? {};
      if (every === 0) return prepared;
      const scores = () => scoreSplits(recipe.evaluate!, dataset!, staged, context, { questions, adapters: adapters[index] });
      return { ...prepared, evaluation: { every, scores: async () => (await scores()).scores } };
    },
    async outline(index, changed) {
      const settings = changed as LlavaStage;
      const data = trainingData(checked[index]);
      const given = await adaptersOf({ stage: settings, config: model.config, seed: recipe.seed, base: undefined });
      const kept = keptFeatures(settings, given, checked[index].index, model.config, context.status);
      const before = recipe.stages.slice(0, index).filter((stage, i) => changesEncoder(stage, adapters[i])).length;
      // captions and questions are about the same scenes
      const sources = typeof settings.data === 'string' ? ['scenes'] : data.files.map(({ path }) => path);
      const encoder = `the encoder after ${before} changes, pictures ${settings.image_aspect_ratio ?? 'as it says'}`;
      const pictures = pictureCount(checked[index].index);
      return outlineLlavaStage({ ...model, settings, seed: recipe.seed, data, pictures, adapters: given, kept, encoder, sources });
    },
    evaluate:
      recipe.evaluate &&
      (async () => {
        const result = await scoreSplits(recipe.evaluate!, dataset!, inStage(model, recipe.stages.at(-1)!), context);
        answered = result.samples;
        return result.scores;
      }),
    async gallery() {
      const { chooseGallery } = await import('../../runs/report.ts');
      return dataset ? chooseGallery(answered, ({ image }) => join(dataset.imageFolder, image)) : [];
    },
  };
}

/** UserError, naming the field, where a stage's data are not there. */
function checkPaths(stage: string, paths: { data_path: string; image_folder: string }): void {
  for (const field of ['data_path', 'image_folder'] as const)
    if (!existsSync(paths[field]))
      throw new UserError(
        `stage ${stage}: data.${field}: ${whyMissing(paths[field]) ?? `there is nothing at ${paths[field]}; paths are those from ${process.cwd()}, or absolute`}`,
      );
}

/** The adapters of each stage. */
async function stageAdapters(
  { stages, model, seed }: LlavaRecipe,
  config: LlavaConfig,
  out: string,
): Promise<(StageAdapters | undefined)[]> {
  const adapters: (StageAdapters | undefined)[] = [];
  for (const [i, stage] of stages.entries()) {
    const before = i > 0 ? runFolder(out).checkpoint(stages[i - 1].name) : 'llava' in model ? model.llava : undefined;
    adapters.push(await adaptersOf({ stage, config, seed, base: before }));
  }
  return adapters;
}

/** The samples that a stage trains on. */
const trainingData = ({ index, isHeldOut }: Pick<CheckedData, 'index' | 'isHeldOut'>): DataIndex =>
  isHeldOut ? subset(index, (number) => !isHeldOut[number]) : index;

/** libvips decodes no more pictures at once: so many threads has the pool of Node that it runs in. */
const MOST_PICTURE_THREADS = 4;

async function prepareStage(
  { seed }: LlavaRecipe,
  model: Model,
  { index, bad, isHeldOut }: CheckedData,
  settings: LlavaStage,
  adapters: StageAdapters | undefined,
  context: TaskContext,
): Promise<PreparedStage> {
  const { config, tokenizerFolder, processor } = model;
  const data = trainingData({ index, isHeldOut });
  const { batch_size: batchSize, accumulation, template, max_length: maxLength, name } = settings;
  const { stepsPerEpoch, totalSteps } = stepsOfStage(settings, data);
  const kept = keptFeatures(settings, adapters, index, config, context.status);
  const pictureThreads = settings.picture_threads ?? Math.max(1, Math.min(MOST_PICTURE_THREADS, threadsOf(context.communicator) - 1));
  const features = kept && (await featureSource(model, kept, settings.feature_mixup));
  if (features) await requireShared(context.communicator, features.folder);
  const description: LlavaSource = {
    task: 'llava',
    seed,
    stage: name,
    tokenizer: tokenizerFolder,
    data,
    template,
    maxLength,
    rowLength: settings.row_length,
    positions: config.text_config.max_position_embeddings,
    batchSize,
    groupByModality: modalityGroups(settings),
    imageTokens: imageTokenCount(config),
    processor,
    imageSize: imageSize(config),
    pictureThreads,
    features,
    encodes: { rank: context.communicator.rank, size: context.communicator.size },
    onBadSample: settings.on_bad_sample,
    badPictures: new Map(bad.flatMap(({ image, reason }) => (image === undefined ? [] : [[image, reason.replace(/\.$/, '')]]))),
  };
  const source = context.thread.open(description);
  const { leaveOut, skipped } = skippedSamples(name, context);
  let heldOut: HeldOutData | undefined;
  try {
    leaveOut(bad);
    await cacheFeatures(source, model, context);
    if (isHeldOut && settings.held_out) heldOut = await heldOutOf(description, index, isHeldOut, model, adapters, context);
  } catch (error) {
    await source.close();
    throw error;
  }
  const share = batchShare(context.communicator, accumulation);
  const graphOptions = { fromPixels: !kept, ...(adapters ? { adapters: adapterGraph(adapters) } : {}) };
  // where batches bring pictures, small ones keep all threads busy only together
  const ahead = kept ? 1 : Math.ceil(pictureThreads / batchSize);
  const batches = reportingSkipped(prefetchedBatches(source, { accumulation, totalSteps, share, ahead }), leaveOut);
  return {
    settings,
    loss: (storage) => llavaLoss(config, { ...graphOptions, storage }),
    totalSteps,
    data: {
      stepsPerEpoch,
      batches: adapters ? withDropout(batches, dropoutInputs(llavaLoss(config, graphOptions)), seed, name, share.first) : batches,
    },
    skipped,
    ...(heldOut && settings.held_out ? { heldOut: { ...heldOut, every: settings.held_out.every } } : {}),
    async dispose() {
      await source.close();
      await heldOut?.dispose();
    },
  };
}

/**
 * The samples that a stage holds out, each once, in batches as it trains on. They are measured seldom, and
 * prepared in this thread.
 */
async function heldOutOf(
  description: LlavaSource,
  index: DataIndex,
  isHeldOut: readonly boolean[],
  model: Model,
  adapters: StageAdapters | undefined,
  context: TaskContext,
): Promise<HeldOutData> {
  const all = subset(index, (number) => isHeldOut[number]);
  const data = {
    ...all,
    files: all.files.filter(({ samples }) => samples > 0).map((file) => ({ ...file, share: 1, perEpoch: undefined })),
  };
  const { features } = description;
  const source = await openSource({
    ...description,
    data,
    groupByModality: undefined,
    ...(features ? { features: { ...features, mixup: 0 } } : {}),
  });
  await cacheFeatures(source, model, context);
  const samples = data.offsets.length;
  const count = batchesPerEpoch(samples, description.batchSize);
  const graphOptions = { fromPixels: !features, ...(adapters ? { adapters: adapterGraph({ ...adapters, dropout: 0 }) } : {}) };
  return {
    samples,
    loss: (storage) => llavaLoss(model.config, { ...graphOptions, storage }),
    async *batches() {
      for (let number = 0; number < count; number++) yield await source.batch(number);
    },
    dispose: source.close,
  };
}

/** The same batches; what was left out of each is told when it is taken. */
function reportingSkipped(batches: StageData['batches'], tell: (faults: readonly SampleFault[]) => void): StageData['batches'] {
  return async function* reported(step) {
    for await (const batch of batches(step)) {
      if (batch.skipped) tell(batch.skipped);
      yield batch;
    }
  };
}
