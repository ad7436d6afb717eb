// How far a run has moved the weights of each module from where they began: ||W - W0|| / ||W0||.

import { existsSync } from 'node:fs';
import { openCheckpoint } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { type LlavaConfig, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { initialize, type Parameter } from '../nn/parameters.ts';
import { resolvePath } from '../paths.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { createRandom } from '../random.ts';
import type { LlavaRecipe } from '../train/recipe.ts';
import { type Finding, findingOf, percent, type Verdict } from './findings.ts';

/** A module that is trained moves by more than this, whatever its rate: less is rounding. */
const LEAST = 1e-5;

const MODULES = ['multi_modal_projector', 'language_model', 'vision_tower'] as const;
type Module = (typeof MODULES)[number];

/**
 * Values that a parameter began with; undefined where there are none any more, or they are of another form.
 */
type Beginning = (parameter: Parameter) => Promise<Float32Array | undefined>;

export interface ModuleMovement {
  module: Module;
  isTrained: boolean;
  /** ||W - W0|| / ||W0||, over all parameters of the module. */
  moved: number;
}

/**
 * How far each module was moved from `beginning` to the model in `dir`. Modules without a beginning are left
 * out.
 */
async function movements(recipe: LlavaRecipe, dir: string, beginning: Beginning): Promise<ModuleMovement[]> {
  return withCheckpoint(dir, llavaConfigSchema, async (config: LlavaConfig, checkpoint) => {
    const found: ModuleMovement[] = [];
    for (const module of MODULES) {
      const parameters = llavaParameters(config).filter(({ name }) => name.startsWith(`${module}.`) && checkpoint.names.includes(name));
      const sums = { change: 0, begun: 0, known: 0 };
      for (const parameter of parameters) {
        const before = await beginning(parameter);
        const after = await checkpoint.float32(parameter.name);
        // a table of embeddings may have got rows behind its own
        if (before === undefined || before.length > after.length) continue;
        sums.known++;
        for (let i = 0; i < before.length; i++) {
          sums.change += (after[i] - before[i]) ** 2;
          sums.begun += before[i] ** 2;
        }
      }
      if (sums.known === 0 || sums.known < parameters.length) continue;
      const isTrained = recipe.stages.some(({ train }) => (train as string[]).includes(module));
      found.push({ module, isTrained, moved: sums.begun > 0 ? Math.sqrt(sums.change / sums.begun) : Math.sqrt(sums.change) });
    }
    return found;
  });
}

/** Runs `work` with what the parameters of a recipe began with: values of its models, and drawn ones. */
async function withBeginning<T>({ model, seed }: LlavaRecipe, work: (beginning: Beginning) => Promise<T>): Promise<T> {
  const folders: Partial<Record<Module, string>> =
    'llava' in model
      ? { multi_modal_projector: model.new_connector ? undefined : model.llava, language_model: model.llava, vision_tower: model.llava }
      : { language_model: model.language_model, vision_tower: model.vision_tower };
  const paths = [...new Set(Object.values(folders))].map((path) => [path, resolvePath(path, 'model')] as const);
  const opened = new Map<string, Awaited<ReturnType<typeof openCheckpoint>>>();
  try {
    for (const [path, dir] of paths) if (existsSync(dir)) opened.set(path, await openCheckpoint(dir));
    return await work(async (parameter) => {
      const module = parameter.name.slice(0, parameter.name.indexOf('.')) as Module;
      const path = folders[module];
      // as a run draws them
      if (path === undefined) return initialize(parameter, createRandom(seed, parameter.name));
      const checkpoint = opened.get(path);
      const name = 'llava' in model ? parameter.name : parameter.name.slice(module.length + 1);
      return checkpoint?.names.includes(name) ? checkpoint.float32(name) : undefined;
    });
  } finally {
    for (const checkpoint of opened.values()) await checkpoint.close();
  }
}

export function movementVerdict(moved: readonly ModuleMovement[]): Verdict {
  if (moved.length === 0) return { level: 'unknown', found: 'the weights that the run began with are not there any more' };
  const isWrong = (each: ModuleMovement) => each.isTrained && each.moved < LEAST;
  const words = moved.map(({ module, isTrained, moved: by }) => `${module} ${percent(by)}${isTrained ? '' : ' (frozen)'}`);
  return {
    level: moved.some(isWrong) ? 'red' : 'green',
    numbers: Object.fromEntries(moved.map(({ module, moved: by }) => [module, by])),
    found: `||W - W0|| / ||W0||: ${words.join(', ')}`,
  };
}

/** Of the model that a run has made. With adapters, the weights themselves stay: nothing is said of them. */
export async function movementFinding(recipe: LlavaRecipe, dir: string): Promise<Finding> {
  const about = {
    sign: 'unmoved-weights',
    healthy: `more than ${LEAST} of its norm for every module that is trained`,
    source: 'ours',
    advice: 'the rate is 0 or too small for float32, or no gradient comes through: look at lr, lr_by_module and the dead-gradient sign',
  };
  if (recipe.stages.some(({ lora }) => lora))
    return findingOf(about, { level: 'unknown', found: 'adapters were trained beside the weights' });
  try {
    return findingOf(about, movementVerdict(await withBeginning(recipe, (beginning) => movements(recipe, dir, beginning))));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    const found = `the weights that the run began with cannot be read: ${error.message}`;
    return findingOf(about, { level: 'unknown', found });
  }
}
