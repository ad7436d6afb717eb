// Writes recipes/llava-gemma/*.yaml: the variants of the paper, and what its readers try next. One place says what all of them share.
//
//   node tools/recipes/make.mjs
//
// and any other combination on stdout:
//
//   node tools/recipes/make.mjs --language gemma2-9b --encoder siglip --adapters qlora --skip > mine.yaml

import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const folder = join(dirname(fileURLToPath(import.meta.url)), '../../recipes/llava-gemma');

/** Language models: the hub's name, what to call it, and how many samples are computed at a time. */
export const LANGUAGE = {
  '2b': { hub: 'google/gemma-2b-it', title: 'Gemma 2B', batch: 4 },
  '7b': { hub: 'google/gemma-7b-it', title: 'Gemma 7B', batch: 1 },
  'gemma2-9b': { hub: 'google/gemma-2-9b-it', title: 'Gemma 2 9B', batch: 1 },
  'gemma3-1b': { hub: 'google/gemma-3-1b-it', title: 'Gemma 3 1B', batch: 8, scales: false },
  'gemma3-4b': {
    hub: 'google/gemma-3-4b-it',
    title: 'Gemma 3 4B, its text part',
    batch: 2,
    note: 'the text part by itself: in transformers, model.language_model of the pulled folder, written with save_pretrained',
    path: 'models/gemma-3-4b-it-text',
    // which save_pretrained of a model does not write
    tokenizer: 'models/gemma-3-4b-it',
    scales: false,
  },
};
export const ENCODER = {
  clip: { hub: 'openai/clip-vit-large-patch14-336', title: 'CLIP ViT-L/14-336', rows: 576 },
  'clip-l14': { hub: 'openai/clip-vit-large-patch14', title: 'CLIP ViT-L/14', rows: 256 },
  'clip-b16': { hub: 'openai/clip-vit-base-patch16', title: 'CLIP ViT-B/16', rows: 196 },
  dinov2: {
    hub: 'facebook/dinov2-large',
    title: 'DINOv2 ViT-L/14',
    rows: 256,
    note: 'pictures of 224; the paper names no size for it, and 336 (576 tokens) is likelier: then image_size in its config.json and size and crop_size in its preprocessor_config.json',
  },
  siglip: { hub: 'google/siglip-so400m-patch14-384', title: 'SigLIP So400m/14-384', rows: 729 },
};
export const PRETRAIN = {
  lcs: {
    title: 'LCS-558K',
    hub: 'liuhaotian/LLaVA-Pretrain',
    data: 'data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json',
    images: 'data/LLaVA-Pretrain',
    why: "the script's and the model card's; the paper's text says CC3M-595K (llava-gemma-2b-cc3m.yaml)",
  },
  cc3m: {
    title: 'CC3M-595K',
    hub: 'liuhaotian/LLaVA-CC3M-Pretrain-595K',
    data: 'data/LLaVA-CC3M-Pretrain-595K/chat.json',
    images: 'data/LLaVA-CC3M-Pretrain-595K/images',
    why: "the paper's text; script and model card say LCS-558K (llava-gemma-2b.yaml)",
  },
};

/** Every file: language model, encoder, and what is special. */
const VARIANTS = [
  { name: '2b', of: 'paper' },
  { name: '2b-no-pretraining', of: 'paper', skips: true },
  { name: '2b-dinov2', of: 'paper', encoder: 'dinov2' },
  { name: '2b-dinov2-no-pretraining', of: 'paper', encoder: 'dinov2', skips: true },
  { name: '7b', of: 'paper' },
  { name: '7b-no-pretraining', of: 'paper', skips: true },
  { name: '7b-dinov2', of: 'paper', encoder: 'dinov2' },
  { name: '7b-dinov2-no-pretraining', of: 'paper', encoder: 'dinov2', skips: true },
  { name: '2b-cc3m', of: 'paper', pretrain: 'cc3m' },
  { name: '2b-clip-l14', encoder: 'clip-l14' },
  { name: '2b-clip-b16', encoder: 'clip-b16' },
  { name: '2b-siglip', encoder: 'siglip' },
  { name: '2b-linear', connector: 'linear' },
  { name: '2b-mlp4x', connector: 'mlp4x_gelu' },
  { name: '2b-lora', adapters: 'lora' },
  { name: '7b-lora', adapters: 'lora' },
  { name: '7b-qlora', adapters: 'qlora' },
  { name: 'gemma2-9b', encoder: 'clip' },
  { name: 'gemma2-9b-qlora', adapters: 'qlora' },
  { name: 'gemma3-1b' },
  { name: 'gemma3-4b' },
];

const base = (hub) => hub.slice(hub.indexOf('/') + 1);

/** The text of a recipe. */
export function recipeText({
  name,
  language: languageName = Object.keys(LANGUAGE).find((key) => name === key || name.startsWith(`${key}-`)),
  of,
  encoder: encoderName = 'clip',
  pretrain = 'lcs',
  connector = 'mlp2x_gelu',
  skips = false,
  adapters,
}) {
  const language = LANGUAGE[languageName];
  const encoder = ENCODER[encoderName];
  const first = PRETRAIN[pretrain];
  const folderOf = (hub) => `models/${base(hub)}`;
  const plainPath = language.path ?? folderOf(language.hub);
  const languagePath = adapters === 'qlora' ? `${plainPath}-int4` : plainPath;
  const title = [
    language.title,
    encoder.title,
    ...(connector === 'mlp2x_gelu' ? [] : [`connector ${connector}`]),
    ...(skips ? ['no connector pretraining'] : []),
    ...(adapters === 'lora'
      ? ['adapters (LoRA) in stage 2']
      : adapters === 'qlora'
        ? ['adapters over 4-bit weights (QLoRA) in stage 2']
        : []),
  ].join(', ');
  const accumulation = (samples) => samples / language.batch;
  const pulls = [
    `npx llava-gemma pull ${encoder.hub} --out ${folderOf(encoder.hub)}`,
    `npx llava-gemma pull ${language.hub} --out ${folderOf(language.hub)}`,
    ...(adapters === 'qlora' ? [`npx llava-gemma convert ${plainPath} ${languagePath} --quantize int4`] : []),
    name === 'mine'
      ? 'npx llava-gemma train mine.yaml --out runs/mine'
      : `npx llava-gemma train recipes/llava-gemma/llava-gemma-${name}.yaml --out runs/llava-gemma-${name}`,
  ];
  const lines = [
    `# ${title}${of === 'paper' ? ': a variant of LLaVA-Gemma (arXiv 2404.01331)' : ''}.`,
    '#',
    ...pulls.map((line) => `#     ${line}`),
    '#',
    ...(language.note ? [`# models/gemma-3-4b-it-text is ${language.note}.`, '#'] : []),
    `# Data: ${skips ? '' : `${first.hub} and `}liuhaotian/LLaVA-Instruct-150K on the hub; the pictures of the mix as LLaVA's README lists them.`,
    '# Numbers without another source: gaudi scripts of LLaVA-Gemma (IntelLabs/multimodal_cognitive_ai, LLaVA-Gemma/scripts/v1_5).',
    '# Made by tools/recipes/make.mjs, to be copied and changed.',
    'task: llava',
    'seed: 42',
    'model:',
    `  vision_tower: ${folderOf(encoder.hub)}`,
    `  language_model: ${languagePath}`,
    ...(language.tokenizer ? [`  tokenizer: ${language.tokenizer}`] : []),
    `  connector: ${connector} # linear, mlp2x_gelu (the paper), mlp3x_gelu, mlp4x_gelu; it begins with rows as large as those of words (docs/decisions.md, 14)`,
    `  vision_feature_layer: -2 # mm_vision_select_layer; ${encoder.rows} image tokens`,
    ...(encoder.note ? [`  # ${encoder.note}`] : []),
    language.scales === false
      ? '  scale_image_features: false # Gemma 3 in transformers has always scaled the embedding of words alone'
      : '  scale_image_features: true # as transformers before 5, with which the paper was trained',
    'stages:',
  ];
  if (!skips)
    lines.push(
      '  - name: pretrain # pretrain_gaudi.sh',
      '    train: [multi_modal_projector]',
      `    data: { data_path: ${first.data}, image_folder: ${first.images} } # ${first.title}: ${first.why}`,
      "    template: gemma # --version gemma; LLaVA's own stage 1 has plain",
      '    image_aspect_ratio: square # the script names none, and this is what LLaVA then does: the sides are cut off',
      '    epochs: 1',
      `    batch_size: ${language.batch} # times accumulation: 256 samples a step`,
      `    accumulation: ${accumulation(256)}`,
      '    lr: 1e-3',
      ...shared(),
    );
  lines.push(
    `  - name: finetune # ${adapters ? 'finetune_lora.sh of LLaVA 1.5' : 'finetune_gaudi.sh'}`,
    `    train: [multi_modal_projector${adapters ? '' : ', language_model'}]`,
    ...(adapters
      ? [
          "    lora: { rank: 128, alpha: 256, dropout: 0.05, targets: ['language_model.*'] } # --lora_r, --lora_alpha, the default of LLaVA's train.py, all linear layers",
        ]
      : []),
    '    data: { data_path: data/LLaVA-Instruct-150K/llava_v1_5_mix665k.json, image_folder: data/LLaVA-Instruct-150K }',
    '    template: gemma',
    '    image_aspect_ratio: pad # --image_aspect_ratio pad',
    '    epochs: 1',
    `    batch_size: ${language.batch} # times accumulation: 128 samples a step`,
    `    accumulation: ${accumulation(128)}`,
    `    lr: ${adapters ? '2e-4' : '2e-5'}`,
    ...(adapters ? ['    lr_by_module: { multi_modal_projector: 2e-5 } # --mm_projector_lr'] : []),
    ...shared(),
    '    group_by_modality: true # --group_by_modality_length True; lengths are what packing evens out',
    '    on_bad_sample: skip # LLaVA masks a sample that it cannot encode and goes on',
  );
  return `${lines.join('\n')}\n`;
}

function shared() {
  return [
    '    schedule: cosine',
    '    warmup_ratio: 0.03',
    '    weight_decay: 0',
    '    betas: [0.9, 0.999] # of AdamW in PyTorch',
    '    eps: 1e-8',
    '    max_grad_norm: 1 # of the Trainer of transformers; where DeepSpeed trains, its configuration says, and those of LLaVA say nothing',
    '    # held_out: { share: 0.002, every: 200 } # no script has it: a loss that says whether pictures are looked at, and lets keep_best judge',
    '    max_length: 2048 # image tokens included',
    '    row_length: 2048',
    '    feature_cache: auto # features of all pictures in float32 would take up to 1.3 TB: the encoder then runs at each step',
  ];
}

/** Texts by file name. */
export const recipeFiles = Object.fromEntries(VARIANTS.map((variant) => [`llava-gemma-${variant.name}.yaml`, recipeText(variant)]));

/** The recipe that options on the command line ask for. */
function chosen(values) {
  const { language, encoder, connector, pretrain, adapters, skip: skips } = values;
  for (const [option, value, known] of [
    ['language', language, LANGUAGE],
    ['encoder', encoder, ENCODER],
    ['pretrain', pretrain, PRETRAIN],
  ])
    if (!Object.hasOwn(known, value)) throw new Error(`--${option} ${value}: there are ${Object.keys(known).join(', ')}`);
  const connectors = ['linear', 'mlp2x_gelu', 'mlp3x_gelu', 'mlp4x_gelu'];
  if (!connectors.includes(connector)) throw new Error(`--connector ${connector}: there are ${connectors.join(', ')}`);
  if (adapters !== undefined && !['lora', 'qlora'].includes(adapters)) throw new Error(`--adapters ${adapters}: there are lora, qlora`);
  return recipeText({ name: 'mine', language, encoder, connector, pretrain, adapters, skips });
}

const options = {
  language: { type: 'string', default: '2b' },
  encoder: { type: 'string', default: 'clip' },
  connector: { type: 'string', default: 'mlp2x_gelu' },
  pretrain: { type: 'string', default: 'lcs' },
  adapters: { type: 'string' },
  skip: { type: 'boolean', default: false },
};

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv.length > 2) {
  try {
    process.stdout.write(chosen(parseArgs({ options }).values));
  } catch (error) {
    console.error(`error: ${error.message}`);
    process.exitCode = 1;
  }
} else if (process.argv[1] === fileURLToPath(import.meta.url)) {
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(recipeFiles)) writeFileSync(join(folder, file), text);
  console.log(`wrote ${Object.keys(recipeFiles).length} recipes`);
}
