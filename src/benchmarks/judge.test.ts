import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { startChatServer, textOf } from '../../tests/chat-server.ts';
import { bundledModel } from '../paths.ts';
import { openJudge } from './judge.ts';

const cache = mkdtempSync(join(tmpdir(), 'judgements-'));

it('an endpoint judges once what is the same, and again what is another run', async () => {
  const server = await startChatServer((request) => `re ${textOf(request)}`);
  vi.stubEnv('OPENAI_API_KEY', '');
  const open = () => openJudge({ judge: server.url, cache, runs: 3 });
  const judge = await open();
  expect([judge.name, judge.runs]).toEqual([`${server.url} tester`, 3]);
  expect(await judge.reply!('a', { maxTokens: 3 })).toMatchObject({ text: 're a', model: 'tester-0001' });
  await (await open()).reply!('a', { maxTokens: 3 });
  await (await open()).reply!('a', { maxTokens: 3, run: 2 });
  await (await open()).reply!('a', { maxTokens: 3, temperature: 0.5 });
  expect(server.asked.map(({ temperature }) => temperature)).toEqual([0, 0, 0.5]);
  vi.unstubAllEnvs();
  await server.close();
});

it('a model of this machine judges, and its judgements are kept', async () => {
  const judge = await openJudge({ judge: `local:${bundledModel}`, cache });
  expect([judge.name, judge.runs]).toEqual([`local:${bundledModel}`, 1]);
  const { text } = await judge.reply!('What is a dog?', { maxTokens: 6 });
  expect(text.length).toBeGreaterThan(0);
  const start = performance.now();
  expect(await judge.reply!('What is a dog?', { maxTokens: 6 })).toEqual({ text });
  expect(performance.now() - start).toBeLessThan(200);
  const warm = { maxTokens: 6, temperature: 5 };
  const [first, second] = [await judge.reply!('What is a dog?', warm), await judge.reply!('What is a dog?', { ...warm, run: 2 })];
  expect(first.text).not.toBe(second.text);
  await expect(judge.reply!('a '.repeat(600), { maxTokens: 6 })).rejects.toThrow(
    /^local:.*tiny-llava: as a judge: the prompt has \d+ tokens/,
  );
  const overlapping = await Promise.all(['a cat', 'a cup'].map((thing) => judge.reply!(`What is ${thing}?`, { maxTokens: 6 })));
  expect(overlapping.map((reply) => reply.text !== '')).toEqual([true, true]);
});

it('rules are a judge that asks nobody, and all else is none', async () => {
  expect(await openJudge({ judge: 'rules' })).toEqual({ name: 'rules', runs: 1 });
  await expect(openJudge({ judge: 'gpt-4' })).rejects.toThrow(/gpt-4: is no judge; it must be rules, local:FOLDER, or an address/);
  await expect(openJudge({ judge: 'rules', model: 'a' })).rejects.toThrow(/--judge-model goes with the address of an endpoint/);
  await expect(openJudge({ judge: 'local:/none' })).rejects.toThrow(/\/none/);
});
