// The command line from end to end on a toy model: what works, and what bad input leads to: one sentence that
// names the culprit, an exit code, and nothing damaged.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { readSamples } from '../src/evaluate/samples.ts';
import { bin, cli, enterToyFolder, type Outcome, recipes, spawnCli, withChangedJson } from './toy.ts';

const model = 'run/checkpoints/finetune';
const clip = 'clip/checkpoints/clip';
const gemma = 'gemma/checkpoints/gemma';
const picture = 'pictures/images/train/000000.png';
const questions = 'pictures/eval_unseen-artist.json';

interface Entry {
  id: string;
  image?: string | string[];
  conversations: { from: string; value: string }[];
}

let entries: Entry[] = [];

beforeAll(async () => {
  const leave = await enterToyFolder();
  for (const words of [
    ['train', 'llava.yaml', '--out', 'run'],
    ['data', '--out', 'pictures', '--train-scenes', '4', '--evaluation-scenes', '2', '--size', '32'],
  ]) {
    const { code, stderr } = await cli(...words);
    expect(code, stderr).toBe(0);
  }
  entries = JSON.parse(readFileSync('pictures/train_questions.json', 'utf8'));
  const stages = [{ ...recipes.llava.stages[1], steps: 2, data: { data_path: 'mine.json', image_folder: 'pictures/images' } }];
  writeFileSync('mine.yaml', stringify({ task: 'llava', model: recipes.llava.model, stages }));
  writeFileSync('broken.png', readFileSync(picture).subarray(0, 60));
  cpSync('broken.png', 'pictures/images/broken.png');
  writeFileSync('words.png', 'this is no picture');
  return leave;
}, 60_000);

/**
 * Expects one line on stderr besides the status, which begins with `error:` and contains all of `names`; no
 * stack trace, no unexpected-error message.
 */
function expectFailure({ code, stderr }: Outcome, ...names: string[]): void {
  expect(code, stderr).toBe(1);
  const lines = stderr
    .split('\n')
    .filter(
      (line) =>
        line !== '' && !/^( |(drawing|encoding|evaluating|answering|stage \w+ (ends after|trains)|(\d\/\d )?\w+ {2}step) )/.test(line),
    );
  expect(lines, stderr).toHaveLength(1);
  expect(lines[0]).toMatch(/^error: /);
  for (const name of names) expect(lines[0]).toContain(name);
}

const trainMine = (...words: string[]) => cli('train', 'mine.yaml', '--out', 'bad', ...words);
const chat = (...words: string[]) => cli('chat', '--prompt', 'what is it?', '--max-new-tokens', '4', ...words);

describe('training data', () => {
  const first = () => structuredClone(entries[0]);
  const text = (value: string) => [
    { from: 'human', value },
    { from: 'gpt', value: 'a cat' },
  ];
  it.each<[string, () => unknown, string[]]>([
    [
      'an image file that is missing',
      () => [entries[1], { ...first(), image: 'train/nowhere.png' }],
      ['train/nowhere.png', 'there is no such file'],
    ],
    ['fewer tokens than images', () => [{ ...first(), image: Array(2).fill(first().image) }], ['2 images', '1 <image> tokens']],
    ['an image without a token', () => [{ ...first(), conversations: text('what?') }], ['train/000000.png', 'no <image> token']],
    ['an unknown role', () => [{ ...first(), conversations: [{ from: 'robot', value: '<image>' }] }], ['unknown role "robot"']],
    ['no answer to learn', () => [{ ...first(), conversations: text('<image>').slice(0, 1) }], ['nothing of it would be trained', 'gpt']],
    ['an answer that is cut off', () => [{ ...first(), conversations: text(`<image>\n${'what? '.repeat(300)}`) }], ['maximum length 160']],
    ['a broken picture', () => [{ ...first(), image: 'broken.png' }], ['pictures/images/broken.png', 'cannot be read as an image']],
  ])('with %s names the sample', async (_, data, names) => {
    writeFileSync('mine.json', JSON.stringify(data()));
    const isPicture = names[0].includes('broken');
    expectFailure(await trainMine('--overwrite'), ...(isPicture ? [] : [entries[0].id]), ...names);
    expect(existsSync('bad/summary.json')).toBe(false);
    expect(existsSync('bad/checkpoints')).toBe(false);
  });

  it.each([
    ['that is not JSON', '[{"id": ', 'is not JSON'],
    ['that is no list', '{"id": 1}', 'must be a JSON array'],
    ['that is empty', '[]', 'there are no samples in it'],
  ])('%s names the file', async (_, content, message) => {
    writeFileSync('mine.json', content);
    expectFailure(await trainMine('--overwrite'), 'mine.json', message);
  });

  it('that is missing names the file, and costs nobody the earlier run', async () => {
    cpSync('run', 'earlier', { recursive: true });
    rmSync('mine.json', { force: true });
    expectFailure(await cli('train', 'mine.yaml', '--out', 'earlier', '--overwrite'), 'data.data_path', 'there is nothing at mine.json');
    expect(readFileSync('earlier/summary.json')).toEqual(readFileSync('run/summary.json'));
    expect(readdirSync('earlier')).toEqual(readdirSync('run'));
  });

  it("of one's own is trained on when it is right", async () => {
    const { id: _, ...anonymous } = first();
    const others = [
      { id: 'words only', conversations: text('what?') },
      { ...first(), image: null },
      { ...first(), conversations: text('what <image> <image> is it?') },
      { ...first(), image: resolve('pictures/images', String(first().image)) },
    ];
    writeFileSync('mine.json', JSON.stringify([...entries.slice(1), anonymous, ...others]));
    const { code, stderr } = await cli('train', 'mine.yaml', '--out', 'mine');
    expect(code, stderr).toBe(0);
    expect(existsSync('mine/checkpoints/finetune/model.safetensors')).toBe(true);
  });
});

describe('a recipe', () => {
  const train = (...words: string[]) => cli('train', 'llava.yaml', '--out', 'never', ...words);

  it.each([
    ['stages.0.learning_rat=1', 'unknown field stages.0.learning_rat'],
    ['stages.0.templat=plain', 'did you mean template?'],
    ['stages.7.lr=1', 'stages is a list of 2'],
    ['stages.0.lr=fast', 'stages.0.lr'],
    ['model.vision_tower=nowhere', 'model.vision_tower: there is nothing at nowhere'],
    ['model.connector=mlp', 'model.connector'],
    ['model.vision_feature_layer=9', 'vision_feature_layer 9'],
    [`model.vision_tower=${gemma}`, `${join(gemma, 'config.json')}: model_type: must be one of clip_vision_model, `],
    [`model.language_model=${clip}`, join(clip, 'config.json')],
    ['data.held_out_artist=rembrandt', 'rembrandt'],
  ])('with --set %s says what is wrong', async (set, message) => {
    expectFailure(await train('--set', set), message);
    expect(existsSync('never')).toBe(false);
  });

  it('does not write over a run', async () => {
    const before = readFileSync('run/metrics.jsonl');
    expectFailure(await cli('train', 'llava.yaml', '--out', 'run'), 'run is not empty', '--resume', '--overwrite');
    expect(readFileSync('run/metrics.jsonl')).toEqual(before);
  });

  it('that makes the loss explode ends with advice', async () => {
    const { code, stderr } = await train('--set', 'stages.1.lr=1e30', '--set', 'stages.1.max_grad_norm=0');
    expectFailure({ code, stderr, stdout: '' }, 'lower the learning rate');
  });
});

describe('a checkpoint', () => {
  const copy = (from: string, to: string) => {
    cpSync(from, to, { recursive: true });
    return to;
  };
  const weightsOf = (dir: string) => join(dir, 'model.safetensors');
  const damage = {
    'of another shape': (from: string, to: string) =>
      withChangedJson(from, to, 'config.json', (json) => {
        const text: { intermediate_size: number } = json.text_config ?? json;
        text.intermediate_size = 48;
      }),
    'cut short': (from: string, to: string) => {
      truncateSync(weightsOf(copy(from, to)), 50_000);
      return to;
    },
    'without weights': (from: string, to: string) => {
      rmSync(weightsOf(copy(from, to)));
      return to;
    },
    'without a tokenizer': (from: string, to: string) => {
      rmSync(join(copy(from, to), 'tokenizer.json'));
      return to;
    },
  };
  const withNaN = (from: string, to: string) => {
    const bytes = readFileSync(weightsOf(copy(from, to)));
    bytes.writeFloatLE(Number.NaN, bytes.length - 4);
    writeFileSync(weightsOf(to), bytes);
    return to;
  };
  const messages = {
    'of another shape': ['.weight has shape', '48'],
    'cut short': ['model.safetensors', 'the file is cut short'],
    'without weights': ['neither model.safetensors'],
    'without a tokenizer': ['tokenizer.json: no such file'],
  };
  const kinds = Object.keys(damage) as (keyof typeof damage)[];

  it('of NaN is told by chat and eval, which may not need the value, and refused by a recipe', async () => {
    const bad = withNaN(model, 'model with NaN');
    for (const { code, stderr } of [
      await chat('--model', bad),
      await cli('eval', '--model', bad, '--data', questions, '--image-folder', 'pictures/images', '--max-new-tokens', '2'),
    ]) {
      expect(code, stderr).toBe(0);
      expect(stderr).toMatch(/^warning: model with NaN: \S+ holds NaN or infinity/m);
    }
    const backbone = withNaN(gemma, 'gemma with NaN');
    expectFailure(
      await cli('train', 'llava.yaml', '--out', 'bad', '--overwrite', '--set', `model.language_model=${backbone}`),
      backbone,
      'holds NaN or infinity',
    );
  });

  it.each(kinds)('%s is refused by chat, eval and a recipe', async (kind) => {
    const bad = damage[kind](model, `model ${kind}`);
    expectFailure(await chat('--model', bad), bad, ...messages[kind]);
    expectFailure(await cli('eval', '--model', bad, '--data', questions, '--image-folder', 'pictures/images'), bad, ...messages[kind]);
    const backbone = damage[kind](gemma, `gemma ${kind}`);
    expectFailure(
      await cli('train', 'llava.yaml', '--out', 'bad', '--overwrite', '--set', `model.language_model=${backbone}`),
      backbone,
      ...messages[kind],
    );
  });

  it('whose tokenizer is another one is refused', async () => {
    const other = withChangedJson(model, 'other image token', 'config.json', (json) => {
      json.image_token_index = 7;
    });
    expectFailure(await chat('--model', other), other, '<image> is 7 in config.json');
    const longer = withChangedJson(gemma, 'longer tokenizer', 'tokenizer.json', (json) => {
      json.model.vocab.zzz = 5000;
    });
    expectFailure(
      await cli('train', 'llava.yaml', '--out', 'bad', '--overwrite', '--set', `model.language_model=${longer}`),
      longer,
      'the tokenizer has 5001',
    );
  });

  it('that is not there is named', async () => {
    expectFailure(await chat('--model', 'nowhere'), '--model: there is nothing at nowhere');
  });
});

describe('chat', () => {
  it('says what is wrong with a picture', async () => {
    expectFailure(await chat('--model', model, '--image', 'broken.png'), 'broken.png', 'cannot be read as an image');
    expectFailure(await chat('--model', model, '--image', 'words.png'), 'words.png', 'cannot be read as an image');
    expectFailure(await chat('--model', model, '--image', 'nowhere.png'), 'nowhere.png: there is no such image file');
    expectFailure(await chat('--model', model, '--image', 'pictures'), 'pictures');
  });

  it.each(['png', 'jpeg', 'webp', 'svg'])('takes a %s', async (format) => {
    const file = `picture.${format}`;
    if (format === 'svg')
      writeFileSync(file, '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4" cx="4" cy="4"/></svg>');
    else await sharp(picture).toFile(file);
    const { code, stderr } = await chat('--model', model, '--image', file);
    expect(code, stderr).toBe(0);
  });

  it('answers what is piped in, each question before the next one comes', async () => {
    const { child, outcome } = spawnCli(['chat', '--model', model, '--image', picture, '--max-new-tokens', '4'], null);
    const answer = () => new Promise<string>((resolve) => child.stdout!.once('data', resolve));
    const first = answer();
    child.stdin!.write('how many things are there?\n');
    await first;
    child.stdin!.end('is there a cat?\n/image nowhere.png\nis there a dog?\n');
    const { code, stdout, stderr } = await outcome;
    expect([code, stderr]).toEqual([1, 'error: nowhere.png: there is no such image file.\n']);
    expect(stdout.split('\n')).toHaveLength(3);
  });
});

describe('eval', () => {
  const words = ['eval', '--model', model, '--max-new-tokens', '4'];

  it('scores questions of a file beside their baselines, and keeps the samples', async () => {
    const { code, stdout, stderr } = await cli(
      ...words,
      '--data',
      questions,
      '--image-folder',
      'pictures/images',
      '--json',
      '--out',
      's.jsonl',
    );
    expect(code, stderr).toBe(0);
    const scores = JSON.parse(stdout)['eval_unseen-artist'];
    expect(scores.existence).toMatchObject({ n: 4, majority: 0.5, random: 0.5 });
    expect(scores.existence.blind).toBeTypeOf('number');
    const asked: Entry[] = JSON.parse(readFileSync(questions, 'utf8'));
    expect(readSamples('s.jsonl').map(({ id }) => id)).toEqual(asked.map(({ id }) => id));
  });

  it('draws scenes to score, and prints a table', async () => {
    const { code, stdout, stderr } = await cli(...words, '--split', 'unseen-scenes', '--scenes', '2', '--limit', '1', '--no-blind');
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^unseen-scenes\n {2}existence .* 1$/m);
  });

  const ask = (file: string, ...more: string[]) =>
    cli(...words, '--data', file, '--image-folder', 'pictures/images', '--no-blind', ...more);

  it('counts what cannot be asked as wrong, and says so', async () => {
    const broken = entries.slice(0, 3).map((entry, i) => ({ ...entry, image: [entry.image, 'nowhere.png', 'broken.png'][i] }));
    writeFileSync('partly.json', JSON.stringify(broken));
    const { code, stderr } = await ask('partly.json', '--out', 'partly.jsonl');
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/2 of 3 questions could not be asked and count as wrong:\n.*nowhere\.png: .*\n.*broken\.png: /);
    const samples = readSamples('partly.jsonl');
    expect(samples.map(({ problem }) => problem === undefined)).toEqual([true, false, false]);
    writeFileSync('none.json', JSON.stringify(broken.slice(1)));
    expectFailure({ ...(await ask('none.json')) }, 'none of the 2 questions could be asked', 'nowhere.png');
  });

  it('writes the answers of a question.jsonl, or prints them', async () => {
    writeFileSync('question.jsonl', '{"question_id":5,"image":"train/000000.png","text":"what is it?","category":"conv"}\n');
    const printed = await ask('question.jsonl');
    const [line] = printed.stdout.trim().split('\n');
    expect(JSON.parse(line)).toMatchObject({ question_id: 5, prompt: 'what is it?', model_id: 'finetune', metadata: {} });
    expect((await ask('question.jsonl', '--out', 'answers.jsonl')).code).toBe(0);
    expect(readFileSync('answers.jsonl', 'utf8')).toBe(`${line}\n`);
    expectFailure(await ask('question.jsonl', '--json'), 'question.jsonl', 'no expected answers');
    symlinkSync('question.jsonl', 'link.jsonl');
    const before = readFileSync('question.jsonl');
    for (const out of ['question.jsonl', 'link.jsonl'])
      expectFailure(await ask('question.jsonl', '--out', out), `--out ${out}: it would replace the questions of --data`);
    expect(readFileSync('question.jsonl')).toEqual(before);
  });

  it('notes questions whose text shows a picture that they do not name', async () => {
    const blind = entries.slice(0, 2).map(({ image: path, ...entry }) => ({ ...entry, image_path: path }));
    writeFileSync('blind.json', JSON.stringify([...blind, entries[0]]));
    expect((await ask('blind.json')).stderr).toContain('blind.json: 2 questions have <image> in their text and name no picture');
    writeFileSync('seen.json', JSON.stringify(entries.slice(0, 1)));
    expect((await ask('seen.json')).stderr).not.toContain('name no picture');
  });

  it('tries its output before anything else', async () => {
    expectFailure(await cli('eval', '--model', model, '--out', 'pictures'), 'pictures: it is a folder');
    expectFailure(await cli('eval', '--model', 'broken.png', '--out', 'broken.png/a.jsonl'), 'broken.png/a.jsonl');
  });

  it.each([
    [['--image-folder', 'pictures'], '--image-folder goes with --data'],
    [['--judge-model', 'x'], '--judge-model goes with --benchmarks'],
    [['--judge-runs', '2'], '--judge-runs goes with --benchmarks'],
  ])('%j is not passed over', async (flags, message) => {
    expectFailure(await cli(...words, ...flags), message);
  });

  it('names the question that has no answer', async () => {
    writeFileSync('unanswered.json', JSON.stringify([{ id: 'q7', conversations: [{ from: 'human', value: 'what?' }] }]));
    expectFailure(await cli(...words, '--data', 'unanswered.json', '--image-folder', '.'), 'unanswered.json', 'q7');
  });
});

describe('in a process of its own', () => {
  it('the command line helps, tells its version, and fails like any program', async () => {
    const [help, version, wrong, broken] = await Promise.all(
      [
        ['--help'],
        ['--version'],
        ['train', 'llava.yaml', '--set', 'sed=1'],
        ['chat', '--model', model, '--image', 'broken.png', '--prompt', 'x'],
      ].map((words) => spawnCli(words).outcome),
    );
    expect(help).toMatchObject({ code: 0, stderr: '' });
    expect(help.stdout).toContain('Usage: llava-gemma');
    expect(version).toMatchObject({ code: 0, stderr: '' });
    expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
    expectFailure(wrong, 'llava.yaml: unknown field sed; did you mean seed?');
    expectFailure(broken, 'broken.png');
    expect(wrong.stdout + broken.stdout).toBe('');
  });

  it.skipIf(process.platform === 'win32')('a disk that is full ends training with a sentence, and resuming makes good for it', async () => {
    // a limit on file size makes a write fail as a full disk does
    mkdirSync('full', { recursive: true });
    const limited = ['-c', 'ulimit -f 100; exec "$@"', 'sh', process.execPath, bin, 'train', 'llava.yaml', '--out', 'full'];
    const { status, stdout, stderr } = spawnSync('bash', limited, { encoding: 'utf8', env: { ...process.env, DEBUG: '' } });
    expectFailure({ code: status, stdout, stderr }, 'full/checkpoints/pretrain');
    expect(readdirSync('full/checkpoints')).toEqual([]);
    expect((await cli('train', '--resume', '--out', 'full')).code).toBe(0);
    expect(readFileSync('full/checkpoints/finetune/model.safetensors')).toEqual(readFileSync(`${model}/model.safetensors`));
  });
});
