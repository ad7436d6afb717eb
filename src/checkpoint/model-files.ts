// Names of the files of a model's folder, for those who cannot list it.

/** What is read beside the weights; most models lack some. */
export const MODEL_FILES = [
  'config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'generation_config.json',
  'processor_config.json',
  'preprocessor_config.json',
  'chat_template.jinja',
  'chat_template.json',
] as const;

/** The weights in one file, or the list of the files that they are in. */
export const WEIGHTS_FILE = 'model.safetensors';
export const WEIGHTS_INDEX = 'model.safetensors.index.json';
