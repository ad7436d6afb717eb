// What trains in memory is what a run with the same recipe trains.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { openCheckpoint } from '../checkpoint/checkpoint.ts';
import { buildEmojiDataset } from '../data/emoji/build.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { bundledModel, resolvePath } from '../paths.ts';
import { loadModel } from '../pretrained/load.ts';
import { runFolder } from '../runs/folder.ts';
import { silentStatus } from '../runs/status.ts';
import type { Turn } from '../text/chat.ts';
import { createConnectorTrainer } from './connector.ts';
import { parseRecipe } from './recipe.ts';
import { train } from './run.ts';

const folder = mkdtempSync(join(tmpdir(), 'connector-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const dir = resolvePath(bundledModel, 'the model');
const engine = createOrtEngine({ threads: 1 });

test('a trainer in memory takes the steps of a run', async () => {
  const scenes = await buildEmojiDataset({ seed: 3, out: join(folder, 'scenes'), trainScenes: 6, splits: [], evaluationScenes: 1 });
  const recipe = parseRecipe(
    {
      task: 'llava',
      seed: 9,
      model: { llava: dir, new_connector: 'mlp2x_gelu' },
      stages: [
        {
          name: 'connector',
          train: ['multi_modal_projector'],
          data: { data_path: scenes.captions, image_folder: scenes.imageFolder },
          template: 'gemma',
          steps: 4,
          batch_size: 4,
          lr: 3e-3,
          log_every: 1,
        },
      ],
    },
    'the recipe',
  );
  const out = join(folder, 'run');
  const { signal } = new AbortController();
  await train({ recipe, title: 'connector', out, mode: 'new', signal, engine, status: silentStatus });
  const lines = readFileSync(runFolder(out).metrics, 'utf8').trim().split('\n');
  const inRun = lines.map((line) => JSON.parse(line)).flatMap(({ type, loss }) => (type === 'step' ? [loss as number] : []));

  const model = await loadModel(dir, { engine });
  const trainer = await createConnectorTrainer(engine, model, dir, { fresh: 9 });
  const samples = JSON.parse(readFileSync(scenes.captions, 'utf8')) as { image: string; conversations: Turn[] }[];
  const examples = samples.map(({ image, conversations }) => ({ picture: join(scenes.imageFolder, image), turns: conversations }));
  const inMemory: number[] = [];
  const onStep = ({ loss }: { loss: number }) => void inMemory.push(loss);
  await trainer.train(examples, { steps: 4, batchSize: 4, learningRate: 3e-3, seed: 9, onStep });
  expect(inMemory).toEqual(inRun);

  const saved = await openCheckpoint(runFolder(out).checkpoint('connector'));
  const { stored } = await trainer.contents();
  for (const name of saved.names.filter((each) => each.startsWith('multi_modal_projector.')))
    expect(Buffer.from(stored.get(name)!.data as Uint8Array).equals(Buffer.from(await saved.bytes(name))), name).toBe(true);
  await saved.close();
  await expect(trainer.train([], { steps: 1 })).rejects.toThrow('there is nothing to train on: give pictures with texts');
  await trainer.dispose();
  await model.generator.dispose();
}, 120_000);
