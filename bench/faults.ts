// Whether a diagnosis names what was done wrong: models trained with a planted fault, and what is said of
// them.

import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command } from 'commander';
import { buildEmojiDataset } from '../src/data/emoji/build.ts';
import { diagnose } from '../src/diagnose/diagnose.ts';
import type { Engine, Value } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { bundledModel } from '../src/paths.ts';
import { silentStatus } from '../src/runs/status.ts';
import { parseRecipe } from '../src/train/recipe.ts';
import { train } from '../src/train/run.ts';

interface Fault {
  name: string;
  /** The sign that must come first. */
  sign: string;
  recipe: object;
  /** Changes what the trainer feeds its programs. */
  feed?: (inputs: Record<string, Value>) => Record<string, Value>;
}

const DATA = '.cache/faults/scenes';

export function register(program: Command): void {
  program
    .command('faults')
    .description('train models with planted faults, and see whether each is named first by a diagnosis')
    .option('--only <name>', 'this fault alone')
    .action(benchFaults);
}

const parts = {
  vision_tower: 'assets/models/tiny-clip',
  language_model: 'assets/models/tiny-gemma',
  vision_feature_layer: -1,
};
const data = { generate: 'emoji', folder: DATA, train_scenes: 800, evaluation_scenes: 10 };
const common = { template: 'gemma', batch_size: 16, betas: [0.9, 0.98], max_length: 256 };
const connector = { ...common, name: 'pretrain', train: ['multi_modal_projector'], data: 'captions', steps: 80, lr: 3e-3 };
const both = ['multi_modal_projector', 'language_model'];
const finetune = { ...common, name: 'finetune', train: both, data: 'questions', steps: 60, batch_size: 32, lr: 7e-4 };
const further = { llava: bundledModel };

/** Every picture in the place of another one. */
function rolled({ image_features: features, ...inputs }: Record<string, Value>): Record<string, Value> {
  const values = features.data as Float32Array;
  const size = values.length / features.dims[0];
  const moved = new Float32Array(values.length);
  moved.set(values.subarray(size));
  moved.set(values.subarray(0, size), values.length - size);
  return { ...inputs, image_features: { ...features, data: moved } };
}

/** Each label is predicted from one position earlier. */
function shifted({ label_rows: rows, ...inputs }: Record<string, Value>): Record<string, Value> {
  return { ...inputs, label_rows: { ...rows, data: (rows.data as Int32Array).map((row) => Math.max(0, row - 1)) } };
}

function faults(own: { data_path: string; image_folder: string }): Fault[] {
  return [
    { name: 'stage 1 skipped', sign: 'stage-1-skipped', recipe: { model: parts, data, stages: [finetune] } },
    { name: 'pictures exchanged', sign: 'image-ignored', recipe: { model: parts, data, stages: [connector, finetune] }, feed: rolled },
    {
      name: '50 epochs on 100 samples',
      sign: 'overfitting',
      recipe: {
        model: further,
        data: { ...data, folder: `${DATA}-100`, train_scenes: 120 },
        stages: [
          {
            ...connector,
            name: 'memorize',
            batch_size: 50,
            train: both,
            steps: undefined,
            epochs: 50,
            held_out: { samples: 20, every: 20 },
            lr: 1e-3,
          },
        ],
      },
    },
    {
      name: 'labels off by one',
      sign: 'label-shift',
      recipe: { model: further, data, stages: [{ ...connector, name: 'shifted', train: both, steps: 80, lr: 1e-3 }] },
      feed: shifted,
    },
    { name: 'always yes', sign: 'yes-bias', recipe: { model: further, stages: [{ ...finetune, data: own, steps: 30, lr: 3e-4 }] } },
  ];
}

/** Questions of which those about existence have the answer yes. */
async function yesData(): Promise<{ data_path: string; image_folder: string }> {
  const { questions, imageFolder } = await buildEmojiDataset({
    seed: 42,
    out: DATA,
    trainScenes: data.train_scenes,
    evaluationScenes: data.evaluation_scenes,
  });
  const entries = JSON.parse(readFileSync(questions, 'utf8')) as { conversations: { from: string; value: string }[] }[];
  const yes = entries.map((entry) => ({
    ...entry,
    conversations: entry.conversations.map((turn) =>
      turn.from === 'gpt' && /^no$/i.test(turn.value) ? { ...turn, value: turn.value === 'No' ? 'Yes' : 'yes' } : turn,
    ),
  }));
  const path = join(DATA, 'yes.json');
  writeFileSync(path, JSON.stringify(yes));
  return { data_path: path, image_folder: imageFolder };
}

function feeding(engine: Engine, feed: Fault['feed']): Engine {
  if (!feed) return engine;
  return {
    ...engine,
    async compile(outputs, options) {
      const program = await engine.compile(outputs, options);
      return {
        ...program,
        run: (inputs, more) => program.run('label_rows' in inputs ? feed(inputs) : inputs, more),
        dispose: () => program.dispose(),
      };
    },
  };
}

async function benchFaults({ only }: { only?: string }): Promise<void> {
  mkdirSync(DATA, { recursive: true });
  const signal = new AbortController().signal;
  for (const { name, sign, recipe, feed } of faults(await yesData())) {
    if (only !== undefined && only !== name) continue;
    const out = join('.cache/faults', name.replaceAll(' ', '-'));
    if (existsSync(out)) rmSync(out, { recursive: true });
    const parsed = parseRecipe(JSON.parse(JSON.stringify({ task: 'llava', ...recipe })), name);
    const began = performance.now();
    await train({ recipe: parsed, title: name, out, mode: 'new', signal, status: silentStatus, engine: feeding(createOrtEngine(), feed) });
    const { findings } = await diagnose({ path: out, signal });
    const isFirst = findings[0].sign === sign;
    const verdict = isFirst ? 'named first' : 'NOT NAMED FIRST';
    if (!isFirst) process.exitCode = 1;
    console.log(`${name} (${((performance.now() - began) / 1000).toFixed(0)} s): ${verdict}`);
    for (const { level, sign: found, found: words } of findings)
      if (level === 'red' || level === 'amber') console.log(`  ${level} ${found}: ${words}`);
  }
}
