import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import type { Sample } from '../data/llava-json.ts';
import { UserError } from '../errors.ts';
import { encodeConversation } from '../text/labels.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { checkData, type DataCheck, sampleCheck } from './checks.ts';

// looking for a hundred thousand files that are not there takes half a minute
vi.mock('../images/header.ts', async (original) => {
  const { checkImageHeader, ...rest } = await original<typeof import('../images/header.ts')>();
  const check = async (path: string) => {
    if (path.includes('/many/')) throw new UserError(`${path}: there is no such file`);
    await checkImageHeader(path);
  };
  return { ...rest, checkImageHeader: check };
});

const folder = mkdtempSync(join(tmpdir(), 'checks-'));
afterAll(() => rmSync(folder, { recursive: true }));
let tokenizer: Tokenizer;

beforeAll(async () => {
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles('assets/tokenizer');
  tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  await sharp({ create: { width: 8, height: 8, channels: 3, background: '#804020' } }).toFile(join(folder, 'good.png'));
  writeFileSync(join(folder, 'page.png'), '<html>404</html>');
  writeFileSync(join(folder, 'empty.png'), '');
});

const words = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 40 }), fc.lorem({ maxCount: 12 }));

describe('the check of a sample', () => {
  it('refuses exactly what encoding would refuse, with its words', () => {
    const turns = fc
      .array(words, { minLength: 1, maxLength: 5 })
      .map((texts) => texts.map((value, i) => ({ from: i % 2 === 0 ? ('human' as const) : ('gpt' as const), value })));
    const rules = fc.record({ template: fc.constantFrom('gemma' as const, 'plain' as const), maxLength: fc.integer({ min: 4, max: 70 }) });
    fc.assert(
      fc.property(fc.array(fc.tuple(turns, fc.boolean()), { minLength: 1, maxLength: 8 }), rules, (conversations, rule) => {
        const options = { imageTokens: 9, ...rule };
        const check = sampleCheck({ tokenizer, ...options });
        for (const [written, hasImage] of conversations) {
          const conversation = written.map((turn, i) => (i === 0 && hasImage ? { ...turn, value: `<image>\n${turn.value}` } : turn));
          const sample: Sample = { id: 'a', images: hasImage ? ['a.png'] : [], conversations: conversation, fields: {} };
          const said = (work: () => unknown) => {
            try {
              work();
              return 'nothing';
            } catch (error) {
              return (error as Error).message;
            }
          };
          const encode = () => encodeConversation(tokenizer, conversation, { ...options, imageTokens: hasImage ? 9 : 0, sampleId: 'a' });
          expect(said(() => check(sample))).toBe(said(encode));
        }
      }),
      { numRuns: 300 },
    );
  });

  it.each([
    ['gemma', 1],
    ['gemma', 2],
    ['gemma', 0],
    ['plain', 1],
  ] as const)('finds the border of each length: %s with %i pictures', (template, pictures) => {
    const encode = vi.fn(tokenizer.encode);
    const images = Array.from({ length: pictures }, (_, i) => `${i}.png`);
    const conversations: Sample['conversations'] = [
      { from: 'human', value: `${'<image>'.repeat(pictures)}\nWhat is it, exactly?` },
      { from: 'gpt', value: 'a red apple' },
    ];
    const refusal = (work: () => unknown) => {
      try {
        work();
        return '';
      } catch (error) {
        return (error as Error).message;
      }
    };
    let [spared, refused] = [0, 0];
    for (let maxLength = 4; maxLength < 180; maxLength++) {
      const options = { imageTokens: 9, template, maxLength };
      const check = sampleCheck({ tokenizer: { ...tokenizer, encode }, ...options });
      // a long question that can be trained comes first, so that this many turns are known
      const sample: Sample = { id: 'a', images, conversations, fields: {} };
      refusal(() => check(sample));
      encode.mockClear();
      const said = refusal(() => check(sample));
      if (encode.mock.calls.length === 0) spared++;
      const expected = refusal(() =>
        encodeConversation(tokenizer, conversations, { ...options, imageTokens: pictures > 0 ? 9 : 0, sampleId: 'a' }),
      );
      if (expected !== '') refused++;
      expect(said, `${maxLength}`).toBe(expected);
    }
    expect(refused).toBeGreaterThan(2);
    expect(spared).toBeGreaterThan(40);
  });

  it('need not encode a sample that is short in bytes', () => {
    const counted = { ...tokenizer, encode: vi.fn(tokenizer.encode) };
    const check = sampleCheck({ tokenizer: counted, imageTokens: 9, template: 'gemma', maxLength: 200 });
    const sample = (value: string): Sample => ({
      id: 'a',
      images: ['a.png'],
      conversations: [
        { from: 'human', value: `<image>\n${value}` },
        { from: 'gpt', value: 'a very long answer '.repeat(1000) },
      ],
      fields: {},
    });
    check(sample('What?'));
    const first = counted.encode.mock.calls.length;
    for (let i = 0; i < 100; i++) check(sample(`What is number ${i}?`));
    expect(counted.encode.mock.calls.length).toBe(first);
    expect(() => check(sample('too long '.repeat(200)))).toThrow('sample "a": nothing of it would be trained');
  });
});

describe('the check of data', () => {
  const turn = (value: string) => ({ from: 'human', value });
  const about = (image: string, question = 'What?') => ({
    image,
    conversations: [turn(`<image>\n${question}`), { from: 'gpt', value: 'a thing' }],
  });
  const bad = [
    about('page.png'),
    about('empty.png'),
    about('gone.png'),
    about('good.png', 'too long '.repeat(100)),
    { conversations: [turn('unanswered')] },
    { conversations: [{ from: 'narrator', value: 'once' }] },
  ];
  const reasons = [
    /page.png: cannot be read as an image/,
    /empty.png: cannot be read/,
    /gone.png: there is no such file/,
    /its first answer begins/,
    /no gpt turn/,
    /unknown role "narrator"/,
  ];

  const notes: string[] = [];
  const check = (samples: readonly object[], more: Partial<DataCheck> = {}) => {
    const path = join(folder, 'data.json');
    writeFileSync(path, JSON.stringify(samples));
    return checkData({
      stage: 'only',
      files: [{ path, imageFolder: folder, share: 1 }],
      checksPictures: true,
      onBadSample: 'error',
      tokenizer,
      imageTokens: 4,
      template: 'gemma',
      maxLength: 64,
      status: { progress: () => {}, note: (text) => notes.push(text) },
      signal: new AbortController().signal,
      ...more,
    });
  };

  it('finds what is wrong before the first step, by file, sample and picture', async () => {
    for (const [i, sample] of bad.entries()) {
      const error = await check([about('good.png'), sample]).catch((reason) => reason);
      expect(error).toBeInstanceOf(UserError);
      expect(error.message).toMatch(/data\.json: sample #1: /);
      expect(error.message).toMatch(reasons[i]);
    }
    const two = check([about('page.png'), about('good.png'), bad[4]]);
    await expect(two).rejects.toThrow(/\(and 1 more\) on_bad_sample: skip in stage only would leave such samples out/);
  });

  it('counts what is wrong of every kind, and begins with what comes first', async () => {
    const first = join(folder, 'first.json');
    writeFileSync(first, JSON.stringify([about('good.png'), about('good.png'), about('lost.png')]));
    const files = [first, join(folder, 'data.json')].map((path) => ({ path, imageFolder: folder, share: 1 }));
    await expect(check([...bad, about('good.png')], { files })).rejects.toThrow(
      /first\.json: sample #2: .*lost\.png: there is no such file.* \(and 6 more\) on_bad_sample: skip in stage only/,
    );
  });

  it('ends where nothing would be left, also of what shares a bad picture', async () => {
    const left = check([...bad, about('page.png', 'And what is it?')], { onBadSample: 'skip' });
    await expect(left).rejects.toThrow(
      /stage only: not one of its samples can be trained on; the first: .*data\.json: sample #0: .*page\.png/,
    );
  });

  it('counts what is left over all files', async () => {
    const [one, two] = ['one.json', 'two.json'].map((name) => join(folder, name));
    const both = (first: readonly object[], second: readonly object[]) => {
      writeFileSync(one, JSON.stringify(first));
      writeFileSync(two, JSON.stringify(second));
      const files = [one, two].map((path) => ({ path, imageFolder: folder, share: 1 }));
      return check([], { files, onBadSample: 'skip' });
    };
    const page = about('page.png');
    await expect(both([page], [page])).rejects.toThrow('not one of its samples can be trained on; the first: ');
    const { bad: found } = await both([page], [page, about('good.png')]);
    expect(found.map(({ file, position }) => [file, position])).toEqual([[one, 0]]);
    // what is wrong is said once, without the name of the sample, which stands beside it
    const long = { id: 'long', conversations: [turn('word '.repeat(200)), { from: 'gpt', value: 'yes' }] };
    const { bad: others } = await both([about('good.png'), long], [about('good.png')]);
    expect(others).toEqual([expect.objectContaining({ sample: 'long', reason: expect.stringMatching(/^nothing of it would be trained/) })]);
  });

  it('notes what is read otherwise than it may be meant', async () => {
    notes.length = 0;
    const unshown = { id: 'unshown', picture: 'good.png', conversations: about('').conversations };
    const silent = { id: 'silent', conversations: [turn('What?'), { from: 'gpt', value: ' ' }] };
    await check([about('good.png'), unshown, silent, { ...unshown, id: 'other' }]);
    expect(notes).toEqual([
      expect.stringMatching(/data\.json: samples have <image> in their text and name no picture .* \(2; the first is unshown\)$/),
      expect.stringMatching(/data\.json: samples have an empty answer: .* \(1; the first is silent\)$/),
    ]);
    notes.length = 0;
    await check([about('good.png')]);
    expect(notes).toEqual([]);
  });

  it('lists all that is wrong where it is to be left out', async () => {
    const { index, bad: found } = await check([about('good.png'), ...bad], { onBadSample: 'skip' });
    expect(index.files[0].samples).toBe(7);
    const sorted = [...found].sort((a, b) => a.position - b.position);
    expect(sorted.map(({ position }) => position)).toEqual([1, 2, 3, 4, 5, 6]);
    for (const [i, { reason, sample, file }] of sorted.entries()) {
      expect(reason).toMatch(reasons[i]);
      expect([sample, file]).toEqual([`#${i + 1}`, join(folder, 'data.json')]);
    }
    expect(sorted[0].image).toBe(join(folder, 'page.png'));
  });

  it('takes more bad pictures than a call could have arguments', async () => {
    const path = join(folder, 'many.jsonl');
    const count = 130_000;
    const lines = Array.from({ length: count }, (_, i) => JSON.stringify(about(`many/${i}.png`)));
    writeFileSync(path, [...lines, JSON.stringify(about('good.png'))].join('\n'));
    const files = [{ path, imageFolder: folder, share: 1 }];
    const { bad: found } = await check([], { files, onBadSample: 'skip', maxLength: 2048 });
    expect(found.length).toBe(count);
    expect(found.at(-1)!.image).toBe(join(folder, `many/${count - 1}.png`));
  });

  it('ends when it is told to', async () => {
    const controller = new AbortController();
    controller.abort(new Error('stop'));
    await expect(check([about('good.png')], { signal: controller.signal })).rejects.toThrow('stop');
  });
});
