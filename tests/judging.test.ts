// llava-gemma score with a judge behind an endpoint: what is asked, what a kill costs, what is said.
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ChatServer, startChatServer, textOf } from './chat-server.ts';
import { cli, spawnCli } from './toy.ts';

const QUESTIONS = 30;
const CONCURRENCY = 8;
const folder = mkdtempSync(join(tmpdir(), 'judging-'));
const save = (name: string, value: unknown) => {
  writeFileSync(join(folder, name), JSON.stringify(value));
  return join(folder, name);
};
const ids = Array.from({ length: QUESTIONS }, (_, i) => `v1_${i}`);
const questions = save(
  'mm-vet.json',
  Object.fromEntries(ids.map((id, i) => [id, { imagename: `${id}.png`, question: `Q${i}?`, answer: 'yes', capability: ['rec'] }])),
);
const answers = save('answers.json', Object.fromEntries(ids.map((id, i) => [id, `answer ${i}.`])));

/** The number of the question that a prompt is about. */
const numberOf = (request: unknown) => Number(/answer (\d+)\. \| $/.exec(textOf(request))![1]);
const gradeOf = (number: number) => (number % 11) / 10;
const total = (ids.reduce((sum, _, i) => sum + gradeOf(i), 0) / QUESTIONS) * 100;

let server: ChatServer;
beforeAll(async () => {
  vi.stubEnv('OPENAI_API_KEY', 'sk-secret');
  server = await startChatServer();
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await server.close();
});
beforeEach(() => {
  server.asked = [];
  server.answer = (request) => String(gradeOf(numberOf(request)));
});

const words = (cache: string, ...more: string[]) => [
  ...['score', 'mm-vet', '--answers', answers, '--questions', questions, '--json', '--judge', server.url],
  ...['--judge-cache', join(folder, cache), ...more],
];

describe('a judge', () => {
  it('that is killed again and again is asked nothing twice of what it had answered', async () => {
    const held: (() => void)[] = [];
    server.answer = async (request) => {
      // so many get through until the next kill; the others wait
      if (through <= 0) await new Promise<void>((resolve) => held.push(resolve));
      through--;
      return String(gradeOf(numberOf(request)));
    };
    let through = 0;
    const kills = 3;
    for (let kill = 0; kill < kills; kill++) {
      through = 5;
      const { child, outcome } = spawnCli(words('killed'));
      while (held.length < CONCURRENCY) await new Promise((resolve) => setTimeout(resolve, 20));
      child.kill('SIGKILL');
      await outcome;
      for (const release of held.splice(0)) release();
    }
    through = Number.POSITIVE_INFINITY;
    const { stdout, code } = await spawnCli(words('killed')).outcome;
    expect(code).toBe(0);
    expect(JSON.parse(stdout).scores.total).toBeCloseTo(total, 10);
    expect(server.asked.length).toBeLessThanOrEqual(QUESTIONS + kills * CONCURRENCY);

    const whole = await cli(...words('uninterrupted'));
    expect(JSON.parse(stdout)).toEqual(JSON.parse(whole.stdout));
    expect(whole.stdout + whole.stderr).not.toContain('sk-secret');

    const before = server.asked.length;
    expect((await cli(...words('killed'))).stdout).toBe(whole.stdout);
    expect(server.asked.length).toBe(before);
  });

  it('may be asked by two processes at once', async () => {
    const both = await Promise.all([spawnCli(words('shared')).outcome, spawnCli(words('shared')).outcome]);
    for (const { stdout } of both) expect(JSON.parse(stdout).scores.total).toBeCloseTo(total, 10);
    const before = server.asked.length;
    await cli(...words('shared'));
    expect(server.asked.length).toBe(before);
  });

  it('that is busy is waited for, which is said; one that refuses ends the work', async () => {
    server.troubles = [{ status: 429, headers: { 'retry-after': '0' } }];
    const busy = await cli(...words('busy'));
    expect(busy.stderr).toMatch(/answers with status 429: not now; going on in 1 s/);
    expect(JSON.parse(busy.stdout).judge).toMatchObject({ judge: `${server.url} tester, tester-0001` });

    server.troubles = [{ status: 401, body: '{"error":{"message":"bad key sk-secret"}}' }];
    const { code, stderr, stdout } = await cli(...words('refused', '--judge-model', 'tester'));
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/refuses the key \(OPENAI_API_KEY\): bad key \*\*\*/);
  });

  it('is named with each score', async () => {
    const table = await cli(...words('named', '--judge-runs', '2').filter((word) => word !== '--json'));
    expect(table.stdout).toMatch(/judged by http:.* tester, tester-0001, the few-shot prompt of mm-vet_evaluator.py; the first word/);
    expect(server.asked.length).toBe(2 * QUESTIONS);
    const rules = await cli('score', 'mm-vet', '--answers', answers, '--questions', questions, '--judge', 'rules');
    expect(rules.stdout).toMatch(/judged by rules; share of the elements/);
  });

  it('is for benchmarks that need one', async () => {
    const pope = await cli('score', 'pope', '--answers', answers, '--judge', 'rules');
    expect(pope.stderr).toMatch(/POPE on COCO.* is scored by rules, without --judge/);
    const lone = await cli('score', 'mm-vet', '--answers', answers, '--judge-runs', '2');
    expect(lone.stderr).toMatch(/--judge-runs goes with --judge/);
  });
});
