// Adapters from recipe to folder: what is frozen stays, what is merged is what was applied, and a run that is
// killed goes on with the same bits.
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { openCheckpoint } from '../src/checkpoint/checkpoint.ts';
import { readAdapter } from '../src/pretrained/adapter.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli, enterToyFolder, recipes, spawnCli, tensorsOf, train } from './toy.ts';

const first = join('first', 'checkpoints', 'pretrain');
const lora = { rank: 4, alpha: 8, dropout: 0 };
const { evaluate: _, model: __, ...rest } = recipes.llava;
const stage = { ...rest.stages[1], name: 'lora', train: ['multi_modal_projector'], warmup_ratio: 0, lora };

function writeRecipe(file: string, changes: object, model: object = { llava: first }): void {
  writeFileSync(file, stringify({ ...rest, model, stages: [{ ...stage, ...changes }] }));
}

const checkpointOf = (run: string) => join(run, 'checkpoints', 'lora');
const losses = (run: string) => readMetrics(join(run, 'metrics.jsonl')).flatMap((event) => (event.type === 'step' ? [event.loss] : []));

beforeAll(async () => {
  const leave = await enterToyFolder();
  writeFileSync('first.yaml', stringify({ ...rest, model: recipes.llava.model, stages: [rest.stages[0]] }));
  await train('first.yaml', '--out', 'first');
  writeRecipe('lora.yaml', {});
  await train('lora.yaml', '--out', 'lora');
  return leave;
}, 180_000);

const isLinear = (name: string) => /language_model\.model\.layers\.\d+\.(self_attn|mlp)\.\w+\.weight$/.test(name);

async function refused(...words: string[]): Promise<string> {
  const { code, stderr } = await cli(...words);
  expect(code).toBe(1);
  return stderr.trimEnd();
}

describe('a stage with adapters', () => {
  it('changes what has one and what is trained beside it, and nothing else', async () => {
    const [before, after] = [await tensorsOf(first), await tensorsOf(checkpointOf('lora'))];
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort());
    for (const [name, values] of after) {
      const isChanged = isLinear(name) || name.startsWith('multi_modal_projector.');
      if (isChanged) expect(values, name).not.toEqual(before.get(name));
      else expect(values, name).toEqual(before.get(name));
    }
    const [start, , , end] = losses('lora');
    expect(end).toBeLessThan(start);
  });

  it('says what it trains, and at which rates', async () => {
    const { code, stderr } = await cli('train', 'lora.yaml', '--out', 'said', '--set', 'stages.0.steps=1');
    expect(code, stderr).toBe(0);
    // the recipe scores nothing
    expect(stderr).not.toContain('evaluating');
    // A and B of rank 4: q [16, 16], k and v [8, 16], o [16, 16], gate and up [32, 16], down [16, 32]
    const numbers = 4 * (32 + 24 + 24 + 32 + 48 + 48 + 48);
    expect(stderr).toContain(`stage lora trains ${(544 + numbers).toLocaleString('en')} numbers; `);
    const table = (stderr.split('\n') as string[]).map((line) => line.trim().split(/ {2,}/));
    expect(table).toContainEqual(['tensors', 'numbers', 'peak lr', 'weight decay']);
    expect(table).toContainEqual(['multi_modal_projector', '4', '544', '0.00002', '0']);
    expect(table).toContainEqual(['language_model (adapters)', '14', numbers.toLocaleString('en'), '0.01', '0']);
  });

  it('leaves an adapter folder that makes its model of the one before', async () => {
    const dir = join(checkpointOf('lora'), 'adapter');
    const { layers, tensors, isRankStabilized } = await readAdapter(dir);
    expect([...new Set([...layers.values()].map(({ rank, alpha }) => `${rank} ${alpha}`))]).toEqual(['4 8']);
    expect(layers.size).toBe(7);
    expect(isRankStabilized).toBe(false);
    expect(tensors.size).toBe(2 * 7 + 4);
    const config = JSON.parse(readFileSync(join(dir, 'adapter_config.json'), 'utf8'));
    expect(config).toMatchObject({ peft_type: 'LORA', base_model_name_or_path: first, modules_to_save: ['multi_modal_projector'] });
    expect(config.target_modules).toContain('model.language_model.layers.0.mlp.down_proj');
    const { code, stderr } = await cli('merge', first, dir, 'merged');
    expect(code, stderr).toBe(0);
    expect(await tensorsOf('merged')).toEqual(await tensorsOf(checkpointOf('lora')));
  });

  it('goes on to the same bits when it is killed, and when the stage after it is', async () => {
    const stages = [
      { ...stage, save_every: 1, steps: 4, lora: { ...lora, dropout: 0.2, targets: ['language_model.*_proj', '*.linear_2'] }, train: [] },
      { ...stage, name: 'more', lora: undefined, train: ['language_model'], save_every: 1, steps: 3 },
    ];
    writeFileSync('two.yaml', stringify({ ...rest, model: recipes.llava.model, stages: [rest.stages[0], ...stages] }));
    await train('two.yaml', '--out', 'straight');
    for (const [i, moment] of [/lora {2}step 2\//, /lora {2}step 3\//, /more {2}step 1\//].entries()) {
      const words = i === 0 ? ['two.yaml', '--out', 'killed'] : ['--resume', '--out', 'killed'];
      const { child, outcome } = spawnCli(['train', ...words]);
      let seen = '';
      child.stderr!.on('data', (text: string) => {
        seen += text;
        if (moment.test(seen)) child.kill('SIGKILL');
      });
      expect((await outcome).code).toBeNull();
      if (i === 0) expect(await refused('info', 'killed/checkpoints/lora')).toContain('is a stage with adapters that has not ended');
    }
    await train('--resume', '--out', 'killed');
    expect(losses('killed')).toEqual(losses('straight'));
    for (const file of ['lora/model.safetensors', 'lora/adapter/adapter_model.safetensors', 'more/model.safetensors'])
      expect(readFileSync(join('killed/checkpoints', file)).equals(readFileSync(join('straight/checkpoints', file))), file).toBe(true);
    // a connector with an adapter is folded as one without
    await cli('merge', join('straight/checkpoints/pretrain'), join('straight/checkpoints/lora/adapter'), 'merged-two');
    const [merged, trained] = [await tensorsOf('merged-two'), await tensorsOf('straight/checkpoints/lora')];
    for (const [name, values] of trained)
      values.forEach((value, i) => {
        if (Math.abs(value - merged.get(name)![i]) > 1e-5 * (1 + Math.abs(value))) expect.unreachable(`${name} ${i}: ${value}`);
      });
  }, 120_000);

  it('trains the encoder with the pictures themselves, as any trained encoder is', async () => {
    writeRecipe('encoder.yaml', {
      train: [],
      lora: { ...lora, dropout: 0.1, targets: ['vision_tower.*.q_proj', 'multi_modal_projector.*'] },
    });
    await train('encoder.yaml', '--out', 'encoder');
    const [before, after] = [await tensorsOf(first), await tensorsOf(checkpointOf('encoder'))];
    const changed = [...after].filter(([name, values]) => values.some((value, i) => value !== before.get(name)![i])).map(([name]) => name);
    expect(changed.sort()).toEqual([
      'multi_modal_projector.linear_1.weight',
      'multi_modal_projector.linear_2.weight',
      'vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight',
    ]);
  });

  it('has the rates and the batch of finetune_lora.sh, unless the recipe says others', async () => {
    const { recipe } = { recipe: join('lora', 'recipe.yaml') };
    const own = readFileSync(recipe, 'utf8');
    expect(own).toContain('lr: 0.01');
    expect(own).toMatch(/lr_by_module:\n\s+multi_modal_projector: 0.00002/);
    writeRecipe('defaults.yaml', { lr: undefined, batch_size: undefined, lora: {}, steps: 1 });
    await train('defaults.yaml', '--out', 'defaults');
    const text = readFileSync('defaults/recipe.yaml', 'utf8');
    for (const line of ['lr: 0.0002', 'batch_size: 128', 'rank: 128', 'alpha: 256', 'dropout: 0.05']) expect(text).toContain(line);
  });
});

describe('bad recipes', () => {
  it.each<[object, string]>([
    [
      { lora: { ...lora, targets: ['language_model.*.query'] } },
      'stage lora: lora.targets: no linear layer is called language_model.*.query: there are language_model.*.',
    ],
    [
      { lora: { ...lora, targets: ['*'] } },
      'multi_modal_projector is trained whole: take it out of `train`, or the layer out of `lora.targets`',
    ],
    [{ lora: { ...lora, rank: 0 } }, 'stages.0.lora.rank'],
    [{ lora: { ...lora, dropout: 1 } }, 'stages.0.lora.dropout'],
    [{ lora: { ...lora, ranks: 4 } }, 'ranks'],
    [{ lora: undefined, train: [] }, 'nothing would be trained'],
    [{ lora: { adapter: 'nowhere' } }, 'nowhere'],
    [{ lora: { adapter: first } }, 'is no adapter folder of peft: it has no adapter_config.json'],
  ])('%o', async (changes, message) => {
    writeRecipe('bad.yaml', changes);
    const said = await refused('train', 'bad.yaml', '--out', 'bad');
    expect(said).toContain(message);
    expect(said.split('\n').filter((line) => line.startsWith('error: '))).toHaveLength(1);
    expect(existsSync('bad')).toBe(false);
  });
});

describe('merge', () => {
  const adapter = () => join(checkpointOf('lora'), 'adapter');
  const changed = (to: string, change: (config: Record<string, unknown>) => void) => {
    cpSync(adapter(), to, { recursive: true });
    const path = join(to, 'adapter_config.json');
    const config = JSON.parse(readFileSync(path, 'utf8'));
    change(config);
    writeFileSync(path, JSON.stringify(config));
    return to;
  };

  it('refuses what it would get wrong, by name', async () => {
    const cases: [string, (config: Record<string, unknown>) => void, string][] = [
      ['dora', (config) => Object.assign(config, { use_dora: true }), 'use_dora: DoRA is not supported'],
      ['ia3', (config) => Object.assign(config, { peft_type: 'IA3' }), 'peft_type: must be LORA'],
      ['bias', (config) => Object.assign(config, { bias: 'all' }), 'trained biases are not supported'],
      ['pissa', (config) => Object.assign(config, { init_lora_weights: 'pissa' }), 'changes the base model'],
      ['rank', (config) => Object.assign(config, { r: 8 }), 'has rank 4, but adapter_config.json says 8'],
    ];
    for (const [name, change, message] of cases) expect(await refused('merge', first, changed(name, change), 'out')).toContain(message);
    expect(await refused('merge', first, first, 'out')).toContain('is no adapter folder of peft');
    expect(await refused('merge', 'clip/checkpoints/clip', adapter(), 'out')).toContain('is an adapter of language_model.model.layers.0');
    expect(await refused('merge', adapter(), first, 'out')).toContain('is an adapter (LoRA)');
    cpSync(adapter(), 'cut', { recursive: true });
    rmSync(join('cut', 'adapter_model.safetensors'));
    expect(await refused('merge', first, 'cut', 'out')).toContain('cut has no adapter_model.safetensors');
    await cli('convert', first, 'packed', '--quantize', 'int8');
    expect(await refused('merge', 'packed', adapter(), 'out')).toContain('packed is quantized');
    expect(existsSync('out')).toBe(false);
  });

  it('keeps the type of the model, or takes the one that is asked for', async () => {
    await cli('convert', first, 'half', '--dtype', 'bfloat16');
    const dtypeOf = async (dir: string) => {
      const file = await openSafetensors(join(dir, 'model.safetensors'));
      await file.close();
      return file.info('language_model.model.layers.0.mlp.up_proj.weight').dtype;
    };
    await cli('merge', 'half', adapter(), 'half-merged');
    expect(await dtypeOf('half-merged')).toBe('BF16');
    await cli('merge', 'half', adapter(), 'half-float', '--dtype', 'float32');
    expect(await dtypeOf('half-float')).toBe('F32');
  });
});

describe('adapters over packed weights', () => {
  it('train, and are merged into bfloat16', async () => {
    await cli('convert', 'gemma/checkpoints/gemma', 'int4', '--quantize', 'int4');
    writeRecipe('qlora.yaml', {}, { ...recipes.llava.model, language_model: 'int4' });
    await train('qlora.yaml', '--out', 'qlora');
    const [start, , , end] = losses('qlora');
    expect(end).toBeLessThan(start);
    const file = await openSafetensors(join(checkpointOf('qlora'), 'model.safetensors'));
    await file.close();
    expect(file.info('language_model.model.layers.0.mlp.up_proj.weight').dtype).toBe('BF16');
    expect(file.names).toContain('language_model.model.embed_tokens.weight_packed');
  });

  it('leave the connector of a packed LLaVA to be trained beside them', async () => {
    await cli('convert', first, 'int4-llava', '--quantize', 'int4');
    writeRecipe('packed.yaml', {}, { llava: 'int4-llava' });
    await train('packed.yaml', '--out', 'packed-run');
    const connectorOf = async (dir: string) => {
      const checkpoint = await openCheckpoint(dir);
      return checkpoint.float32('multi_modal_projector.linear_1.weight').finally(checkpoint.close);
    };
    expect(await connectorOf(checkpointOf('packed-run'))).not.toEqual(await connectorOf('int4-llava'));
  });

  it('cannot be trained themselves, which is said before anything is computed', async () => {
    await cli('convert', first, 'int4-whole', '--quantize', 'int4');
    writeRecipe('whole.yaml', { lora: undefined, train: ['language_model'] }, { llava: 'int4-whole' });
    const said = await refused('train', 'whole.yaml', '--out', 'whole-run');
    expect(said).toMatch(/language_model\.\S+ is quantized: it can be frozen, but not trained/);
    expect(said).not.toContain('encoding');
  });
});
