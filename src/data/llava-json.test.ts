import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
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
  const asIs = typeof content === 'string' || content instanceof Uint8Array;
  writeFileSync(path, asIs ? content : JSON.stringify(content));
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

  const text = JSON.stringify({ conversations: [{ from: 'human', value: 'What is it?' }, answer] });
  const about = (image: string) => [{ id: 'a', image, conversations: [ask, answer] }];
  const inTurns = (content: unknown, more = {}) => ({ id: 'a', messages: [{ role: 'user', content }, answer], ...more });
  const lfsPointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'4d'.repeat(32)}\nsize 1030778\n`;
  const faults: [string, unknown, RegExp][] = [
    ['text that is not JSON', '[{', /data\.json: is not JSON/],
    ['an object', {}, /must be a JSON array/],
    ['no samples', [], /no samples/],
    ['a sample without conversations', [{ id: 'a' }], /sample a: conversations: /],
    ['an unknown role', [{ id: 'a', conversations: [{ from: 'bot', value: 'x' }] }], /unknown role "bot", expected "human" or "gpt"/],
    ['turns of one role', [{ id: 'a', conversations: [{ from: 'human', value: 'x' }, ask] }], /sample a: turn 2 is from "human"/],
    ['an empty conversation', [{ id: 'a', conversations: [answer] }], /sample a: it has no conversation/],
    [
      'a missing image file',
      [{ id: 'a', image: 'cow.png', conversations: [ask, answer] }],
      /sample a: image file .*cow\.png does not exist/,
    ],
    [
      'an image without a token',
      [{ id: 'a', image: 'cat.png', conversations: [{ from: 'human', value: 'Hi' }, answer] }],
      /sample a: .*cat\.png, but its text has no <image>/,
    ],
    ['too few tokens', [{ id: 'a', image: ['cat.png', 'dog.png'], conversations: [ask, answer] }], /2 images, but its text has 1 <image>/],
    ['a null sample', [null], /sample #0: /],
    ['an empty file', '', /data\.json: is not JSON: it is empty/],
    ['a file that ends too early', `[\n${text},\n{"id": "b",\n`, /is not JSON: line 3: the sample that begins here does not end/],
    ['a comma too many', `[${text},\n]`, /is not JSON: line 2: a sample is missing/],
    ['what follows the array', `[${text}]\n\n[]`, /is not JSON: line 3: something follows the array/],
    ['a sample that is not JSON', `[${text},\n {"id": b}]`, /is not JSON: sample #1, which begins at line 2: /],
    ['a line that is not JSON', `${text}\n\n${text}x\n`, /is not JSON: sample #1, which begins at line 3: /],
    ['an object around the samples', `{"data": [\n${text}]}`, /must be a JSON array/],
    ['ISO-8859-1', Buffer.from(`[\n${text},\n${text.replace('What', 'Où')}]`, 'latin1'), /sample #1: line 3 is not UTF-8 .*0xF9/],
    ['ISO-8859-1 in JSON Lines', Buffer.from(`${text}\n${text.replace('cat', 'chät')}`, 'latin1'), /sample #1: line 2 is not UTF-8 .*0xE4/],
    ['UTF-16', Buffer.from(`\ufeff[${text}]`, 'utf16le'), /data\.json: is in UTF-16; save the file as UTF-8/],
    ['UTF-16 without a mark', Buffer.from(`[${text}]`, 'utf16le'), /data\.json: is in UTF-16/],
    ['an id that is no name', [{ id: ['a'], conversations: [ask, answer] }], /sample a: id: must be text or a number/],
    ['an image without a name', [{ id: 'a', image: '', conversations: [ask, answer] }], /sample a: image: must be the path/],
    ['a folder as an image', [{ id: 'a', image: '.', conversations: [ask, answer] }], /sample a: image file .* does not exist/],
    ['an address', [{ id: 'a', images: ['https://x/y.png'], conversations: [ask, answer] }], /images\.0: must be the path .* https:/],
    ['an address on another machine', about('file://server/cat.png'), /sample a: "file:\/\/server\/cat\.png" is not the address of a file/],
    ['an address that is none', about('file:///%ZZ.png'), /sample a: "file:\/\/\/%ZZ\.png" is not the address of a file/],
    ['a name that no file can have', about('cat\0.png'), /sample a: image: must be the path/],
    ['a name that is too long', about('c'.repeat(300)), /sample a: image file .*c cannot be read: the name is too long/],
    [
      'a video',
      [{ id: 'a', video: 'cat.mp4', conversations: [ask, answer] }],
      /sample a: it has video, and a model of this kind is shown pict/,
    ],
    ['a list of clips', [{ id: 'a', videos: ['cat.mp4'], conversations: [ask, answer] }], /sample a: it has videos/],
    ['a picture in a turn that has no path', [inTurns([{ type: 'image' }])], /sample a: its turns show 1 images, and 1 have no path there/],
    [
      'pictures in turns of which one has no path',
      [inTurns([{ type: 'image' }, { type: 'image', path: 'cat.png' }])],
      /its turns show 2 images, and 1 have no path there/,
    ],
    [
      'other pictures in turns than beside them',
      [inTurns([{ type: 'image', image: 'cat.png' }], { image: 'dog.png' })],
      /other images in its turns than beside them/,
    ],
    ['samples of another form', [{ instruction: 'What?', output: 'a cat' }], /no messages either \(there are instruction, output\)/],
    ['a pointer of git-lfs', lfsPointer, /data\.json: this is only git-lfs's pointer to a file of 1030778 bytes/],
    ['a packed file', gzipSync(`[${text}]`), /data\.json: is packed with gzip; unpack it with gunzip first/],
    ['a Parquet file', Buffer.from('PAR1\x15\x04\x15'), /data\.json: is a Parquet file; write it as JSON Lines first/],
    ['nothing but white space', ' \n\n', /data\.json: is not JSON: it is empty/],
    ['two lists of images', [{ id: 'a', image: 'cat.png', images: ['cat.png'], conversations: [ask, answer] }], /both image and images/],
    [
      'an unknown chat role',
      [{ id: 'a', messages: [{ role: 'tool', content: 'x' }] }],
      /messages\.0\.role: unknown role "tool", expected "user"/,
    ],
    [
      'a part of another kind',
      [{ id: 'a', messages: [{ role: 'user', content: [{ type: 'video' }] }] }],
      /messages\.0\.content\.0: must be/,
    ],
    ['a system message later on', [{ id: 'a', conversations: [ask, answer, { from: 'system', value: 'x' }] }], /turn 3 is from "system"/],
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

  const turns = (question: string) => [{ from: 'human', value: question }, answer];
  const questionsOf = async (content: unknown) => (await read(content)).map(({ conversations }) => conversations[0].value);

  it('puts <image> before the text of its turn, once for one picture', async () => {
    const about = (question: string) => ({ image: 'cat.png', conversations: turns(question) });
    const asked = ['What is it?\n<image>', 'What <image> is it?', '<image><image>\nWhat is it?', '<image>\n\n What is it?\n', '<image>'];
    const first = '<image>\nWhat is it?';
    expect(await questionsOf(asked.map(about))).toEqual([first, '<image>\nWhat  is it?', first, first, '<image>']);
    const [{ conversations }] = await read([
      { image: 'cat.png', conversations: [...turns('Hello'), ...turns('Look: <image>'), ...turns('<image> Again?')] },
    ]);
    expect(conversations.map(({ value }) => value)).toEqual(['Hello', 'a cat', '<image>\nLook:', 'a cat', 'Again?', 'a cat']);
  });

  it('leaves several pictures of one turn where the words have them', async () => {
    const conversations = [...turns('Is <image> older than <image>?'), ...turns('and this?\n<image>')];
    const [sample] = await read([{ image: ['cat.png', 'dog.png', 'cat.png'], conversations }]);
    const [first, , second] = sample.conversations;
    expect([first.value, second.value]).toEqual(['Is <image> older than <image>?', '<image>\nand this?']);
  });

  it('leaves <image> in a text about no picture', async () => {
    expect(await questionsOf([{ image: null, conversations: turns('What does <image> mean? ') }])).toEqual(['What does <image> mean? ']);
  });

  it('reads UTF-8 with a mark, and JSON Lines with blank lines', async () => {
    const sample = { id: 'é', image: 'cat.png', conversations: turns('<image>\nOù?') };
    const [plain] = await read([sample]);
    const json = JSON.stringify(sample);
    for (const content of [`\ufeff[${json}]`, `\ufeff${json}`, `${json}\n`, `\n${json}\r\n\r\n`, `  [ ${json}\n]\n`])
      expect(await read(content)).toEqual([plain]);
    expect((await read(`${json}\n${json.replace('"é"', 'null')}`)).map(({ id }) => id)).toEqual(['é', '#1']);
  });

  it('takes an absolute path, or a file address, as it is', async () => {
    mkdirSync(join(folder, 'other'), { recursive: true });
    const picture = join(folder, 'other', 'cow.png');
    writeFileSync(picture, '');
    const samples = await read([picture, pathToFileURL(picture).href].map((image) => ({ image, conversations: [ask, answer] })));
    expect(samples.map(({ images }) => images)).toEqual([[picture], [picture]]);
  });

  it('reads null as what is left out, and numbers the samples that have no id', async () => {
    const samples = await read([
      { id: null, image: null, images: null, system: null, messages: null, conversations: turns('Hi') },
      { id: 0, images: [], conversations: turns('Hi') },
    ]);
    expect(samples).toEqual(['#0', '0'].map((id) => ({ id, images: [], conversations: turns('Hi'), fields: {} })));
  });

  it('reads chat messages of every make as the same conversation', async () => {
    const chat = (content: unknown, more = {}) => ({
      id: 'a',
      messages: [
        { role: 'user', content },
        { role: 'assistant', content: 'a cat' },
      ],
      ...more,
    });
    const words = { type: 'text', text: 'What is it?' };
    const both = (asks: object, answers: object, field: string) => [
      { ...asks, [field]: '<image>\nWhat is it?' },
      { ...answers, [field]: 'a cat' },
    ];
    const samples = await read([
      { id: 'a', image: 'cat.png', conversations: [ask, answer] },
      chat('<image>What is it?', { images: ['cat.png'] }),
      chat([{ type: 'image' }, words], { images: 'cat.png' }),
      chat([{ type: 'image', image: 'cat.png' }, words]),
      chat([words, { type: 'image_url', image_url: { url: pathToFileURL(join(folder, 'cat.png')).href } }]),
      { id: 'a', images: ['cat.png'], conversations: chat([{ type: 'image', image: null }, words]).messages },
      chat([{ type: 'image', path: 'cat.png' }, words]),
      chat([{ type: 'image', url: 'cat.png' }, words], { images: ['cat.png'] }),
      { id: 'a', image: 'cat.png', conversations: both({ from: 'user' }, { from: 'assistant' }, 'value') },
      { id: 'a', image: 'cat.png', conversations: both({ role: 'human' }, { role: 'gpt' }, 'value') },
      { id: 'a', image: 'cat.png', conversations: both({ role: null, from: 'human' }, { from: 'gpt' }, 'content') },
    ]);
    for (const sample of samples) expect(sample).toEqual(samples[0]);
  });

  it('begins the first question with what the system says, behind its picture', async () => {
    const told = { from: 'system', value: 'Be short.' };
    const first = '<image>\nBe short.\n\nWhat is it?';
    const about = (question: string, more = {}) => ({ image: 'cat.png', conversations: [told, ...turns(question)], ...more });
    expect(
      await questionsOf([
        about('<image>\nWhat is it?'),
        about('What is it?<image>'),
        { image: 'cat.png', system: 'Be short.', conversations: turns('<image>\nWhat is it?') },
        {
          image: 'cat.png',
          messages: [
            { role: 'system', content: 'Be short.' },
            { role: 'user', content: '<image> What is it?' },
          ],
        },
        about('<image>\nWhat is it?', { system: 'Be kind.' }),
        { conversations: [told, ...turns('<image>?')] },
        { system: ' ', conversations: turns('Hi') },
      ]),
    ).toEqual([first, first, first, first, '<image>\nBe kind.\n\nBe short.\n\nWhat is it?', 'Be short.\n\n<image>?', 'Hi']);
  });
});
