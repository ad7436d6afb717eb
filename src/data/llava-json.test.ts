import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { readLlavaJson } from './llava-json.ts';

const folder = mkdtempSync(join(tmpdir(), 'llava-json-'));
writeFileSync(join(folder, 'cat.png'), '');
writeFileSync(join(folder, 'dog.png'), '');

const ask = { from: 'human', value: '<image>\nWhat is it?' };
const answer = { from: 'gpt', value: 'a cat' };

function read(content: unknown) {
  const path = join(folder, 'data.json');
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return readLlavaJson(path, folder);
}

describe('readLlavaJson', () => {
  it('reads samples with one image, several images and none, and keeps extra fields', async () => {
    const samples = await read([
      { id: 'a', image: 'cat.png', task: 'name', conversations: [ask, answer] },
      { id: 7, image: ['cat.png', 'dog.png'], conversations: [{ from: 'human', value: '<image><image> Which is older?' }, answer] },
      { conversations: [{ from: 'human', value: 'Hello' }, answer, { from: 'human', value: 'More' }, answer] },
    ]);
    expect(samples[0]).toEqual({ id: 'a', images: [join(folder, 'cat.png')], conversations: [ask, answer], fields: { task: 'name' } });
    expect(samples.map(({ id }) => id)).toEqual(['a', '7', '#2']);
    expect(samples.map(({ images }) => images.length)).toEqual([1, 2, 0]);
  });

  it('drops a first turn that is not human', async () => {
    const [sample] = await read([{ id: 'a', image: 'cat.png', conversations: [answer, ask, answer] }]);
    expect(sample.conversations).toEqual([ask, answer]);
  });

  const faults: [string, unknown, RegExp][] = [
    ['text that is not JSON', '[{', /data\.json: is not JSON/],
    ['an object', {}, /must be a JSON array/],
    ['no samples', [], /no samples/],
    ['a sample without conversations', [{ id: 'a' }], /sample a: conversations: /],
    ['an unknown role', [{ id: 'a', conversations: [{ from: 'user', value: 'x' }] }], /sample a: .*unknown role "user"/],
    ['turns of one role', [{ id: 'a', conversations: [{ from: 'human', value: 'x' }, ask] }], /sample a: turn 2 is from "human"/],
    ['an empty conversation', [{ id: 'a', conversations: [answer] }], /sample a: it has no conversation/],
    [
      'a missing image file',
      [{ id: 'a', image: 'cow.png', conversations: [ask, answer] }],
      /sample a: image file .*cow\.png does not exist/,
    ],
    ['a token without an image', [{ id: 'a', conversations: [ask, answer] }], /sample a: .*<image> token, but it names no image/],
    [
      'an image without a token',
      [{ id: 'a', image: 'cat.png', conversations: [{ from: 'human', value: 'Hi' }, answer] }],
      /sample a: .*cat\.png, but its text has no <image>/,
    ],
    ['too few tokens', [{ id: 'a', image: ['cat.png', 'dog.png'], conversations: [ask, answer] }], /2 images, but its text has 1 <image>/],
    ['a null sample', [null], /sample #0: /],
  ];
  it.each(faults)('refuses %s in one sentence', async (_, content, message) => {
    const error = await read(content).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain('\n');
  });

  it('counts image tokens in every turn, and names the place of a wrong field', async () => {
    const later = { from: 'human', value: 'and <image>?' };
    const [sample] = await read([{ id: 'a', image: ['cat.png', 'dog.png'], conversations: [ask, answer, later, answer] }]);
    expect(sample.images).toEqual([join(folder, 'cat.png'), join(folder, 'dog.png')]);
    const wrong = read([
      { id: 'ok', image: 'cat.png', conversations: [ask, answer] },
      { id: 'b', conversations: [ask, { from: 'gpt' }] },
    ]);
    await expect(wrong).rejects.toThrow(/data\.json: sample b: conversations\.1\.value: /);
  });

  it('says why a file cannot be read', async () => {
    await expect(readLlavaJson(folder, folder)).rejects.toThrow(`${folder}: cannot be read: it is a folder`);
  });

  it('names a file that is not there', async () => {
    await expect(readLlavaJson(join(folder, 'none.json'), folder)).rejects.toThrow(/none\.json: there is no such file/);
  });
});
