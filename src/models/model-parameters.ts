// The parameters of a whole model from its config alone, be it a LLaVA, a language model or a vision tower:
// what a checkpoint of it holds.

import { UserError } from '../errors.ts';
import type { Parameter } from '../nn/parameters.ts';
import { llavaConfigSchema, llavaParameters } from './llava.ts';
import { shapes } from './shapes.ts';

const { vision_config: anyVision, text_config: anyText } = shapes['llava-gemma-tiny'].config;

/** The parameters of one part, under the names that they have in a folder of its own. */
function partParameters(config: unknown, module: string): Omit<Parameter, 'tensor'>[] {
  const prefix = `${module}.`;
  return llavaParameters(llavaConfigSchema.parse(config))
    .filter(({ name }) => name.startsWith(prefix))
    .map(({ tensor: _, name, ...rest }) => ({ ...rest, name: name.slice(prefix.length) }));
}

/**
 * Names, dims and initializers of every parameter of the model with this config.json. A single encoder or
 * language model may be any that a LLaVA can be made of: it is treated as part of one. No weights are
 * allocated. Throws a UserError for a config of another kind.
 */
export function modelParameters(config: unknown): Omit<Parameter, 'tensor'>[] {
  if ((config as { model_type?: unknown } | null)?.model_type === 'llava') {
    const parsed = llavaConfigSchema.safeParse(config);
    if (!parsed.success) {
      const [{ path, message }] = parsed.error.issues;
      throw new UserError(`${path.join('.') || 'the config'}: ${message}`);
    }
    return llavaParameters(parsed.data);
  }
  const parts = {
    language_model: { vision_config: anyVision, text_config: config, image_token_index: 0 },
    // all of its blocks are read
    vision_tower: { vision_config: config, text_config: anyText, image_token_index: 0, vision_feature_layer: -1 },
  };
  const type = (config as { model_type?: unknown } | null)?.model_type;
  for (const [module, llava] of Object.entries(parts))
    if (type !== undefined && llavaConfigSchema.safeParse(llava).success) return partParameters(llava, module);
  throw new UserError(`models of model_type ${JSON.stringify(type)} are not known here, or a field of the config is wrong`);
}
