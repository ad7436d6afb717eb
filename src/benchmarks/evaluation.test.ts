import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Asker } from '../evaluate/asking.ts';
import { chooseBenchmarks, type EvaluationRequest, mergeEvaluations, runEvaluation } from './evaluation.ts';
import { evaluationFolder } from './evaluation-folder.ts';
import { pope } from './pope.ts';

const data = mkdtempSync(join(tmpdir(), 'evaluation-'));
mkdirSync(join(data, 'pope', 'coco'), { recursive: true });
/** Two questions a picture, of which the first is right. */
const questions = (count: number) =>
  Array.from({ length: count }, (_, i) => {
    const things = ['cat', 'dog', 'apple', 'very large and long red bus'];
    return { question_id: i + 1, image: `${i >> 1}.jpg`, text: `Is there a ${things[i % 4]} in the image?`, label: i % 2 ? 'no' : 'yes' };
  });
for (const category of ['random', 'popular'])
  writeFileSync(
    join(data, 'pope', 'coco', `coco_pope_${category}.json`),
    questions(20)
      .map((line) => JSON.stringify(line))
      .join('\n'),
  );

/** Says yes before every third picture and blank ones, else no; ends by an error after `patience` answers. */
function createFakeAsker(patience = Number.POSITIVE_INFINITY, broken: string[] = []) {
  const asked: string[] = [];
  const asker: Asker = {
    blankPicture: async () => new Uint8Array([0]),
    async ask(prompts, { batchSize, onAnswers }) {
      const answers = prompts.map(({ turns, images = [] }, index) => {
        const [image] = images;
        if (broken.some((name) => String(image).endsWith(name))) return { index, text: '', problem: `${image}: is damaged` };
        const seen = typeof image === 'string' ? Number(/(\d+)\.jpg$/.exec(image)![1]) : 0;
        return { index, text: seen % 3 === 0 ? 'Yes' : 'no', tokens: 1, promptTokens: turns[0].value.length };
      });
      for (let start = 0; start < answers.length; start += batchSize) {
        if (asked.length >= patience) throw new Error('killed');
        const batch = answers.slice(start, start + batchSize).reverse();
        asked.push(...batch.map(({ index }) => JSON.stringify([prompts[index].turns[0].value, String(prompts[index].images)])));
        onAnswers?.(batch);
      }
      return answers;
    },
  };
  return { asker, asked };
}

const fresh = (name: string) => join(mkdtempSync(join(tmpdir(), 'evaluations-')), name);
const request = async (out: string, more: Partial<EvaluationRequest> = {}): Promise<EvaluationRequest> => ({
  out,
  model: 'fake',
  content: 'fake',
  chosen: await chooseBenchmarks([pope], data, {}, more.limit),
  conditions: ['plain', 'blind', 'exchanged'],
  ...more,
});
const run = async (out: string, fake = createFakeAsker(), more: Partial<EvaluationRequest> = {}, batchSize = 3) =>
  runEvaluation(await request(out, more), async () => fake.asker, { batchSize });
const reportOf = (out: string) => readFileSync(evaluationFolder(out).report, 'utf8');

describe('an evaluation', () => {
  it('has official scores, with interval and what they must beat', async () => {
    const out = fresh('whole');
    const fake = createFakeAsker();
    const { benchmarks } = await run(out, fake);
    const [{ headline, blind, exchanged, majority, random, score, unasked }] = benchmarks;
    // pictures 0, 3, 6 and 9 are said to have all that is asked for
    expect(score).toMatchObject({ n: 40, unparsed: 0, groups: { category: { random: { TP: 4, FP: 4, TN: 6, FN: 6, n: 20 } } } });
    expect(headline).toMatchObject({ name: 'f1', best: 1, method: 'bootstrap' });
    expect(headline.value).toBeCloseTo(4 / 9, 12);
    expect(headline.low).toBeLessThan(4 / 9);
    expect(headline.high).toBeGreaterThan(4 / 9);
    // always yes: a precision of a half, and all found
    expect(blind).toEqual({ score: 2 / 3, n: 40 });
    expect(exchanged!.n).toBe(40);
    // half of the answers are yes: of the two that are as frequent, the one that scores more
    expect(majority).toEqual({ answer: 'yes', score: 2 / 3 });
    // always yes is right of a half, whatever F1 makes of it
    expect(benchmarks[0].credits).toMatchObject({ blind: 0.5, majority: 0.5, exchanged: expect.any(Number) });
    expect(Math.abs(benchmarks[0].credits.random! - 0.5)).toBeLessThan(0.1);
    expect(random).toBeGreaterThan(0.3);
    expect(random).toBeLessThan(0.7);
    expect(unasked).toEqual({ count: 0 });
    // each prompt once before a blank picture, whatever the picture was
    expect(fake.asked).toHaveLength(40 + 4 + 40);
    const cost = JSON.parse(readFileSync(evaluationFolder(out).cost, 'utf8'));
    expect(cost).toMatchObject({ answers: 120, tokens: 120 });
    expect(readFileSync(evaluationFolder(out).page, 'utf8')).toContain('POPE on COCO');
    expect(readFileSync(evaluationFolder(out).markdown, 'utf8')).toMatch(/\| pope \(llava\) \| f1 \| 0\.444 \|/);
  });

  it('exchanges the pictures of all questions', async () => {
    const fake = createFakeAsker();
    await run(fresh('exchanged'), fake, { conditions: ['exchanged'] });
    const own = new Set((await request('')).chosen[0].questions.map(({ prompt, pictures }) => `${prompt} ${pictures[0].name}`));
    const shown = fake.asked
      .map((text) => JSON.parse(text) as [string, string])
      .map(([prompt, image]) => `${prompt} ${image.split('/').at(-1)}`);
    expect(shown).toHaveLength(40);
    expect(shown.filter((each) => own.has(each) && !each.includes('bus') && !each.includes('apple'))).toEqual([]);
  });

  it('goes on after whatever ended it, and asks nothing twice', async () => {
    const [whole, ended] = [fresh('whole'), fresh('ended')];
    await run(whole);
    const asked: string[] = [];
    for (let session = 0; session < 20; session++) {
      const fake = createFakeAsker(6);
      const error = await run(ended, fake).catch((reason: Error) => reason.message);
      asked.push(...fake.asked);
      if (error !== 'killed') break;
      // a line that was being written
      writeFileSync(evaluationFolder(ended).answers('pope', 'plain'), '{"question_id":"10', { flag: 'a' });
    }
    // before their own pictures, before blank ones, before others'
    expect(asked).toHaveLength(40 + 4 + 40);
    expect(reportOf(ended)).toBe(reportOf(whole));
    const again = createFakeAsker();
    await run(ended, again);
    expect(again.asked).toEqual([]);
  });

  it('in shares is put together to the same report', async () => {
    const whole = fresh('whole');
    await run(whole, createFakeAsker(), {}, 1);
    const shares: string[] = [];
    for (let index = 1; index <= 3; index++) {
      const out = fresh(`share-${index}`);
      await run(out, createFakeAsker(), { shard: { index, count: 3 } });
      shares.push(out);
    }
    const merged = fresh('merged');
    await mergeEvaluations(shares, await request(merged));
    expect(reportOf(merged)).toBe(reportOf(whole));
    expect(readFileSync(evaluationFolder(merged).judged('pope'), 'utf8')).toBe(
      readFileSync(evaluationFolder(whole).judged('pope'), 'utf8'),
    );
    await expect(mergeEvaluations(shares.slice(1), await request(fresh('m')))).rejects.toThrow('share 1/3 is missing');
    await expect(mergeEvaluations([...shares, shares[0]], await request(fresh('m')))).rejects.toThrow(/share 1\/3 was given twice/);
    await expect(mergeEvaluations([whole, ...shares], await request(fresh('m')))).rejects.toThrow(
      /is no share of an evaluation, but a whole one/,
    );
    await expect(mergeEvaluations([data], await request(fresh('m')))).rejects.toThrow(/is no folder of an evaluation/);
    const other = await request(fresh('m'), { limit: 10 });
    await expect(mergeEvaluations(shares, other)).rejects.toThrow(/of an evaluation with other limit/);
  });

  it('takes whole pictures evenly where it is limited', async () => {
    const [{ questions: limited }] = (await request('', { limit: 10 })).chosen;
    expect(limited.length).toBeGreaterThanOrEqual(10);
    expect(limited.length).toBeLessThan(16);
    expect(new Set(limited.map(({ groups }) => groups.category)).size).toBe(2);
    for (const { cluster } of limited) expect(limited.filter((each) => each.cluster === cluster)).toHaveLength(4);
  });

  it('does not mix with another one', async () => {
    const out = fresh('one');
    await run(out);
    await expect(run(out, createFakeAsker(), { model: 'other' })).rejects.toThrow(/with other model \(fake, now other\).*--overwrite/);
    await expect(run(out, createFakeAsker(), { content: 'new' })).rejects.toThrow(/other weights or config of fake/);
    await expect(run(out, createFakeAsker(), { limit: 10 })).rejects.toThrow(/other limit \(none, now 10\)/);
    await expect(run(out, createFakeAsker(), { conditions: ['plain'] })).rejects.toThrow(/other conditions/);
    await expect(run(data)).rejects.toThrow(/holds other things than an evaluation/);
    expect((await run(out, createFakeAsker(), { limit: 10, overwrite: true })).benchmarks[0].score.n).toBeLessThan(20);
  });

  it('says what could not be asked, and tries it again', async () => {
    const out = fresh('broken');
    const [{ unasked, score }] = (await run(out, createFakeAsker(Infinity, ['/4.jpg']))).benchmarks;
    expect(unasked).toEqual({ count: 4, reason: expect.stringContaining('4.jpg: is damaged') });
    // neither right nor wrong of anything, though the rule takes an answer of nothing for yes
    expect(score).toMatchObject({ unparsed: 4, n: 40, groups: { category: { random: { TP: 4, FP: 4, TN: 5, FN: 5, n: 20 } } } });
    const judged = readFileSync(evaluationFolder(out).judged('pope'), 'utf8').trim().split('\n');
    const lines = judged.map((line) => JSON.parse(line)).filter(({ problem }) => problem !== undefined);
    expect(lines.map(({ credit, parsed }) => [credit, parsed])).toEqual(new Array(4).fill([0, null]));
    const second = createFakeAsker();
    expect((await run(out, second)).benchmarks[0].unasked.count).toBe(0);
    expect(second.asked.length).toBeGreaterThanOrEqual(4);
    expect(second.asked.length).toBeLessThanOrEqual(8);
    const whole = fresh('whole');
    await run(whole);
    expect(reportOf(out)).toBe(reportOf(whole));
  });

  it('names a line of its answers that is damaged', async () => {
    const out = fresh('damaged');
    await run(out);
    const path = evaluationFolder(out).answers('pope', 'plain');
    writeFileSync(path, readFileSync(path, 'utf8').replace('"text":"no"', '"text":no'));
    await expect(run(out)).rejects.toThrow(/answers.jsonl:\d+: is not an answer of a run/);
    expect(existsSync(path)).toBe(true);
  });

  it('takes under 2 ms a question beside the model', async () => {
    const large = mkdtempSync(join(tmpdir(), 'large-'));
    mkdirSync(join(large, 'pope', 'coco'), { recursive: true });
    const lines = questions(2000).map((line) => JSON.stringify(line));
    writeFileSync(join(large, 'pope', 'coco', 'coco_pope_random.json'), lines.join('\n'));
    const chosen = await chooseBenchmarks([pope], large);
    const began = process.cpuUsage();
    await runEvaluation({ ...(await request(fresh('large'))), chosen }, async () => createFakeAsker().asker, { batchSize: 8 });
    const { user, system } = process.cpuUsage(began);
    expect((user + system) / 1000 / (3 * 2000)).toBeLessThan(2);
  }, 60_000);
});
