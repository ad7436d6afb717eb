import { beforeAll, describe, expect, it } from 'vitest';
import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import { ignoreIndex } from '../../text/labels.ts';
import { createTokenizer, type Tokenizer } from '../../text/tokenizer.ts';
import { loadEmojiGlyphs } from './glyphs.ts';
import { splitConcepts, trainingArtists } from './split.ts';
import { loadGlosses, type TextOptions, type TextSource, textBatch, textSources } from './texts.ts';

let tokenizer: Tokenizer;
let options: Omit<TextOptions, 'mixture'>;
beforeAll(async () => {
  const files = await readTokenizerFiles('assets/tokenizer');
  tokenizer = createTokenizer(files.tokenizerJson, files.tokenizerConfig);
  const glyphs = await loadEmojiGlyphs();
  const artists = trainingArtists(glyphs, 'twemoji');
  options = { glyphs, tokenizer, glosses: await loadGlosses(), concepts: splitConcepts(glyphs).seen, artists, gridSide: 6 };
});

const batch = (source: TextSource, tokens = 4000) => textBatch(1, 'test', tokens, { ...options, mixture: [{ source, weight: 1 }] });
const answersOf = ({ labels }: { labels: readonly number[] }) => tokenizer.decode(labels.filter((label) => label !== ignoreIndex));

describe('textBatch', () => {
  it.each(textSources)('%s: trains something of every sample, never the shared beginning, about as many tokens as asked for', (source) => {
    const samples = batch(source);
    expect(batch(source)).toEqual(samples);
    for (const { inputIds, labels, prefixLength } of samples) {
      expect(labels).toHaveLength(inputIds.length);
      expect(labels.some((label) => label !== ignoreIndex)).toBe(true);
      expect(labels.slice(0, prefixLength).every((label) => label === ignoreIndex)).toBe(true);
      expect(inputIds).not.toContain(tokenizer.imageTokenId);
    }
    const shared = new Map(samples.map(({ id, prefixLength }) => [id, prefixLength]));
    const tokens = samples.reduce((sum, { inputIds, prefixLength }) => sum + inputIds.length - prefixLength, 0);
    const total = tokens + [...shared.values()].reduce((a, b) => a + b, 0);
    expect(total).toBeGreaterThanOrEqual(4000);
    expect(total).toBeLessThan(5200);
  });

  it('writes a grid of 36 tokens in which most of the patches of a drawing name it', () => {
    const names = batch('questions-in-grids', 40_000).filter(({ inputIds }) => /at the (top|bottom)/.test(tokenizer.decode(inputIds)));
    const cellOf = (patch: number) => (Math.floor(patch / 6) >= 3 ? 2 : 0) + (patch % 6 >= 3 ? 1 : 0);
    let right = 0;
    let all = 0;
    for (const sample of names) {
      const text = tokenizer.decode(sample.inputIds);
      const answer = answersOf(sample).replace(/<end_of_turn>\n$/, '');
      const place = /What do you see at the (top|bottom) (left|right)\?/.exec(text);
      if (!place) continue;
      const cell = (place[1] === 'bottom' ? 2 : 0) + (place[2] === 'right' ? 1 : 0);
      const start = tokenizer.encode('<bos><start_of_turn>user\n').length;
      const pieces = new Set(tokenizer.encode(answer.split('<')[0]));
      for (let patch = 0; patch < 36; patch++) {
        if (cellOf(patch) !== cell) continue;
        all++;
        if (pieces.has(sample.inputIds[start + patch])) right++;
      }
    }
    expect(all).toBeGreaterThan(90);
    // a fifth of the patches is wrong on average
    expect(right / all).toBeGreaterThan(0.7);
    expect(right / all).toBeLessThan(0.92);
  });

  it('puts the right letter under every letter alike', () => {
    const letters = batch('kinds', 30_000)
      .map(answersOf)
      .filter((answer) => /^[ABCD]</.test(answer));
    expect(letters.length).toBeGreaterThan(150);
    for (const letter of 'ABCD') {
      const share = letters.filter((answer) => answer[0] === letter).length / letters.length;
      expect(Math.abs(share - 0.25)).toBeLessThan(0.1);
    }
    const asked = batch('questions-in-words', 60_000)
      .map(answersOf)
      .filter((answer) => /^[ABCD]</.test(answer));
    for (const letter of 'ABCD') expect(asked.filter((answer) => answer[0] === letter).length / asked.length).toBeGreaterThan(0.1);
  });
});
