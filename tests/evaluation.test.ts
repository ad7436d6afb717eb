// An evaluation of a published benchmark with the bundled model, from the command line: killed and gone on,
// in other batches, in shares, compared.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { buildEmojiDataset } from '../src/data/emoji/build.ts';
import { cli, spawnCli } from './toy.ts';

const folder = mkdtempSync(join(tmpdir(), 'evaluation-'));
const path = (...parts: string[]) => join(folder, ...parts);
const data = path('downloads');

/** Scenes of emoji with their questions in the form of POPE's files, and a picture that is damaged. */
beforeAll(async () => {
  const splits = ['unseen-scenes', 'unseen-artist'] as const;
  const drawn = { seed: 5, out: path('scenes'), trainScenes: 0, splits: [...splits], evaluationScenes: 12 };
  const { evaluation, imageFolder } = await buildEmojiDataset(drawn);
  mkdirSync(join(data, 'pope', 'coco'), { recursive: true });
  symlinkSync(imageFolder, join(data, 'pope', 'val2014'));
  for (const [i, category] of ['random', 'popular'].entries()) {
    const entries = JSON.parse(readFileSync(evaluation[splits[i]], 'utf8')) as {
      task: string;
      image: string;
      conversations: { value: string }[];
    }[];
    const lines = entries
      .filter(({ task }) => task === 'existence')
      .map(({ image, conversations: [question, answer] }, index) =>
        JSON.stringify({
          question_id: index + 1,
          image,
          // questions of other lengths, so that batches mix them
          text: `${index % 3 === 0 ? 'Look at the whole picture, also at its corners. ' : ''}${question.value.split('\n')[1]}`,
          label: answer.value,
        }),
      );
    writeFileSync(join(data, 'pope', 'coco', `coco_pope_${category}.json`), lines.join('\n'));
  }
}, 60_000);

const words = (out: string, ...more: string[]) => ['eval', '--benchmarks', 'pope', '--data', data, '--out', path(out), ...more];
const read = (out: string, file = 'report.json') => readFileSync(path(out, file), 'utf8');
async function evaluate(out: string, ...more: string[]) {
  const { code, stderr, stdout } = await cli(...words(out, ...more));
  expect(code, stderr).toBe(0);
  return stdout;
}
const linesOf = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8').split('\n').length - 1 : 0);
const answersOf = (out: string) => ['answers', 'blind', 'exchanged'].map((name) => linesOf(path(out, 'pope', `${name}.jsonl`)));

describe('eval --benchmarks', () => {
  it('killed ten times and gone on, asks nothing twice and gives the same report', async () => {
    await evaluate('whole');
    const [total] = answersOf('whole');
    expect(total).toBeGreaterThan(30);
    let kills = 0;
    for (let session = 0; session < 40; session++) {
      const before = answersOf('killed').reduce((sum, count) => sum + count, 0);
      const { child, outcome } = spawnCli(words('killed', '--batch-size', '1'));
      const watch = setInterval(() => {
        if (answersOf('killed').reduce((sum, count) => sum + count, 0) > before + 5 && kills < 10) child.kill('SIGKILL');
      }, 5);
      const { code } = await outcome;
      clearInterval(watch);
      if (code === 0) break;
      kills++;
    }
    expect(kills).toBe(10);
    expect(answersOf('killed')).toEqual(answersOf('whole'));
    expect(read('killed')).toBe(read('whole'));
    expect(read('killed', 'pope/judged.jsonl')).toBe(read('whole', 'pope/judged.jsonl'));
  }, 120_000);

  it('in shares, put together, is the same', async () => {
    const shares = [1, 2, 3, 4];
    for (const index of shares) await evaluate(`share-${index}`, '--shard', `${index}/4`, '--batch-size', '8');
    const merge = shares.flatMap((index) => ['--merge', path(`share-${index}`)]);
    const { code, stderr } = await cli('eval', ...merge, '--data', data, '--out', path('merged'));
    expect(code, stderr).toBe(0);
    expect(read('merged')).toBe(read('whole'));
  }, 60_000);

  it('prints the table, and is compared question by question', async () => {
    expect(await evaluate('whole')).toMatch(/pope \(llava\) +f1 +0\.\d{3} +0\.\d{3} - 0\.\d{3}/);
    await evaluate('packed', '--quantize', 'int4', '--no-exchanged');
    const page = path('compare.html');
    const { stdout } = await cli('compare', path('whole'), path('packed'), '--data', data, '--out', page, '--json');
    const [{ n, headline, difference, mcnemar }] = JSON.parse(stdout).benchmarks;
    const credits = (out: string) =>
      read(out, 'pope/judged.jsonl')
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).credit as number);
    const differences = credits('whole').map((credit, i) => credit - credits('packed')[i]);
    expect(n).toBe(differences.length);
    expect(difference.value).toBeCloseTo(differences.reduce((sum, d) => sum + d, 0) / n, 12);
    expect(mcnemar.onlyA).toBe(differences.filter((d) => d === 1).length);
    expect(headline.a).toBe(JSON.parse(read('whole')).benchmarks[0].headline.value);
    const differing = differences.filter((d) => d !== 0).length;
    expect(readFileSync(page, 'utf8').match(/<article>/g)?.length ?? 0).toBe(differing);
    expect(readFileSync(page, 'utf8').match(/data:image\/jpeg/g)?.length ?? 0).toBe(differing);
  }, 60_000);

  it.each([
    [['--benchmarks', 'pope', '--out', 'x'], '--benchmarks needs --data'],
    [['--benchmarks', 'pope', '--data', data], '--benchmarks needs --out'],
    [['--benchmarks', 'popes', '--data', data, '--out', path('x')], 'popes: is no benchmark; there are'],
    [['--benchmarks', 'pope,pope', '--data', data, '--out', path('x')], 'names pope twice'],
    [['--benchmarks', 'pope', '--data', data, '--out', path('x'), '--shard', '3/2'], '--shard 3/2'],
    [['--benchmarks', 'pope', '--data', data, '--out', path('x'), '--harness', 'pope'], 'pope=lmms-eval'],
    [['--benchmarks', 'pope', '--data', data, '--out', path('x'), '--harness', 'pope=mine'], 'not scored as mine'],
    [['--benchmarks', 'pope', '--data', path('nowhere'), '--out', path('x')], 'there is no such folder'],
    [['--benchmarks', 'pope', '--data', folder, '--out', path('x')], 'there are no questions of POPE'],
    [['--benchmarks', 'pope', '--data', data, '--out', data], 'it holds other things than an evaluation'],
    [['--benchmarks', 'pope', '--data', data, '--out', path('x'), '--model', 'nowhere'], '--model: there is nothing at nowhere'],
    [['--shard', '1/2'], '--shard goes with --benchmarks'],
    [['--merge', data, '--data', data, '--out', path('x')], 'is no folder of an evaluation'],
  ])('%j is refused in a sentence', async (more, sentence) => {
    const { code, stderr } = await cli('eval', ...more);
    expect(code).toBe(1);
    expect(stderr).toContain(sentence);
    expect(existsSync(path('x'))).toBe(false);
  });
});
