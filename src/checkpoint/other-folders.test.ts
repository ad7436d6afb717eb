import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { decodeImage } from '../images/decode.ts';
import { openCheckpoint, saveCheckpoint } from './checkpoint.ts';
import { readTokenizerFiles } from './tokenizer-files.ts';

const scratch = mkdtempSync(join(tmpdir(), 'other-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A folder with files of these contents. */
function folder(files: Record<string, string>): string {
  const dir = mkdtempSync(join(scratch, 'folder-'));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), content);
  }
  return dir;
}

const config = '{"model_type":"gemma"}';

describe('openCheckpoint says what it is instead of a model', () => {
  const cases: [string, Record<string, string>, string][] = [
    ['an adapter', { 'adapter_config.json': '{"base_model_name_or_path":"google/gemma-2b"}' }, ' is an adapter (LoRA) of google/gemma-2b'],
    ['an adapter of LLaVA', { 'config.json': config, 'adapter_config.json': '{}' }, ' is an adapter (LoRA) of its base model'],
    [
      'pickled weights',
      { 'config.json': config, 'pytorch_model.bin': '' },
      ' has pytorch_model.bin, which is not read, and no safetensors',
    ],
    [
      'pickled shards',
      { 'config.json': config, 'pytorch_model-00001-of-00002.bin': '' },
      ' has pytorch_model-00001-of-00002.bin, which is not read, and no safetensors',
    ],
    ['a connector', { 'config.json': config, 'mm_projector.bin': '' }, ' has mm_projector.bin, which is the connector'],
    [
      'original weights',
      { 'consolidated.00.pth': '', 'params.json': '{}' },
      " has consolidated.00.pth, the weights in their makers' own format",
    ],
    ['GGUF', { 'model-q4.gguf': '' }, " has model-q4.gguf, llama.cpp's format, which is not read"],
    [
      'shards without an index',
      { 'config.json': config, 'model-00001-of-00002.safetensors': '' },
      ' has model-00001-of-00002.safetensors, but not model.safetensors.index.json',
    ],
    ['weights of another name', { 'config.json': config, 'weights.safetensors': '' }, ' has weights.safetensors, but no model.safetensors'],
    [
      'a model with an adapter beside it',
      { 'config.json': config, 'model.safetensors': '', 'adapter_config.json': '{}' },
      ' has an adapter (adapter_config.json) beside the model, which transformers adds to it and which is not read: move',
    ],
    ['no weights', { 'config.json': config }, ': neither model.safetensors nor model.safetensors.index.json is there'],
    ['no config', { 'model.safetensors': '' }, '/config.json: no such file'],
    [
      'packed weights',
      { 'config.json': '{"quantization_config":{"load_in_4bit":true,"quant_method":"bitsandbytes"}}', 'model.safetensors': '' },
      ': its weights are packed by bitsandbytes, which is not read',
    ],
    [
      'packed weights of a part',
      { 'config.json': '{"text_config":{"quantization_config":{"quant_method":"gptq"}}}', 'model.safetensors': '' },
      ': its weights are packed by gptq, which is not read',
    ],
  ];
  test.each(cases)('%s', async (_, files, message) => {
    const dir = folder(files);
    const opening = openCheckpoint(dir);
    await expect(opening).rejects.toThrow(UserError);
    await expect(opening).rejects.toThrow(message.startsWith('/') ? join(dir, message) : `${dir}${message}`);
  });

  test('a folder above the model', async () => {
    const run = folder({ 'checkpoints/finetune/config.json': config });
    await expect(openCheckpoint(run)).rejects.toThrow(`${run} is no model, but ${join(run, 'checkpoints', 'finetune')} may be`);
    const cache = folder({ 'refs/main': 'abc', 'snapshots/abc/config.json': config, 'snapshots/old/config.json': config });
    await expect(openCheckpoint(cache)).rejects.toThrow(`the model is in ${join(cache, 'snapshots', 'abc')}`);
  });

  test('a file', async () => {
    const dir = folder({ 'model.safetensors': '', 'model.gguf': '' });
    await expect(openCheckpoint(join(dir, 'model.safetensors'))).rejects.toThrow(
      'model.safetensors is a file: give the folder of the model',
    );
    await expect(openCheckpoint(join(dir, 'model.gguf'))).rejects.toThrow("model.gguf is GGUF, llama.cpp's format, which is not read");
  });

  test('the name of a model on the hub', async () => {
    await expect(openCheckpoint('nobody/no-model')).rejects.toThrow(
      'nobody/no-model: no such folder; a model of that name on the hub is downloaded by: llava-gemma pull nobody/no-model',
    );
    // nor is every path of two parts one
    await expect(openCheckpoint('models/gemma-2b-it')).rejects.toThrow(/^models\/gemma-2b-it: no such folder$/);
  });
});

describe("git-lfs's pointer is told in place of", () => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'4d7a'.repeat(16)}\nsize 4945242264\n`;
  const message = (path: string) => `${path}: this is only git-lfs's pointer to a file of 4945242264 bytes: run "git lfs pull"`;

  test.each(['config.json', 'model.safetensors', 'model.safetensors.index.json'])('%s', async (name) => {
    const dir = folder({ 'config.json': config, [name]: pointer });
    await expect(openCheckpoint(dir)).rejects.toThrow(message(join(dir, name)));
  });

  test('a shard', async () => {
    const dir = join(scratch, 'shards');
    const tensors = new Map(['a', 'b'].map((name) => [name, { shape: [1], data: new Float32Array(1) }]));
    await saveCheckpoint(dir, { config: {}, tensors, maxShardSize: 4 });
    const shard = join(dir, 'model-00002-of-00002.safetensors');
    writeFileSync(shard, pointer);
    await expect(openCheckpoint(dir)).rejects.toThrow(message(shard));
  });

  test.each(['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'])('%s', async (name) => {
    const dir = folder({ 'tokenizer.json': '{}', [name]: pointer });
    await expect(readTokenizerFiles(dir)).rejects.toThrow(message(join(dir, name)));
  });

  test('a picture', async () => {
    const path = join(folder({ 'cat.jpg': pointer }), 'cat.jpg');
    await expect(decodeImage(path)).rejects.toThrow(message(path));
    await expect(decodeImage(Buffer.from(pointer), { name: 'cat.jpg' })).rejects.toThrow(message('cat.jpg'));
  });
});

test('tokenizer.model alone is told', async () => {
  const dir = folder({ 'tokenizer.model': '' });
  await expect(readTokenizerFiles(dir)).rejects.toThrow(`${dir} has tokenizer.model alone, SentencePiece's format, which is not read`);
});
