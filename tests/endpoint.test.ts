// llava-gemma eval against a server: the same questions, pictures included, to somebody else's model.
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { type ChatServer, startChatServer, textOf } from './chat-server.ts';
import { cli } from './toy.ts';

const before = process.cwd();
let server: ChatServer;

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'endpoint-'));
  process.chdir(folder);
  vi.stubEnv('OPENAI_API_KEY', '');
  mkdirSync('data/mm-vet/images', { recursive: true });
  const entries: [string, object][] = [];
  for (let i = 0; i < 6; i++) {
    const imagename = `v1_${i}.jpg`;
    const picture = sharp({ create: { width: 4, height: 4, channels: 3, background: { r: i * 40, g: 0, b: 0 } } });
    if (i !== 4) await picture.jpeg().toFile(`data/mm-vet/images/${imagename}`);
    entries.push([`v1_${i}`, { imagename, question: `How red is ${i}?`, answer: 'very', capability: [i % 2 ? 'rec' : 'ocr'] }]);
  }
  writeFileSync('data/mm-vet/mm-vet.json', JSON.stringify(Object.fromEntries(entries)));
  server = await startChatServer((request) => {
    const text = textOf(request);
    if (text.startsWith('Compare the ground truth')) return text.endsWith('| very | ') ? '1.0' : '0.0';
    return / [123]\?$/.test(text) ? 'very' : 'not at all';
  });
});
afterAll(async () => {
  process.chdir(before);
  vi.unstubAllEnvs();
  await server.close();
});

const words = ['eval', '--benchmarks', 'mm-vet', '--data', 'data', '--out', 'peer', '--json', '--no-exchanged'];

it('a model behind a server is evaluated, graded by another, and asked nothing twice', async () => {
  const asking = [...words, '--endpoint', server.url, '--judge', server.url];
  const { stdout, stderr, code } = await cli(...asking);
  expect(code, stderr).toBe(0);
  const report = JSON.parse(stdout);
  const [benchmark] = report.benchmarks;
  expect(report.model).toBe('tester');
  // 1, 2 and 3 of six; the fifth has no picture
  expect(benchmark).toMatchObject({ headline: { name: 'total', value: 50 }, unasked: { count: 1 }, blind: { n: 6 } });
  expect(benchmark.score).toMatchObject({ n: 6, judge: { judge: `${server.url} tester, tester-0001` } });
  const questions = server.asked.filter((request) => !textOf(request).startsWith('Compare'));
  // five with their pictures, six before a blank one
  expect(questions.length).toBe(11);
  const [{ messages, max_tokens, temperature }] = questions;
  const [picture, text] = messages[0].content;
  expect([text, max_tokens, temperature]).toEqual([{ type: 'text', text: 'How red is 0?' }, 1024, 0]);
  expect(picture.image_url.url).toBe(`data:image/jpeg;base64,${readFileSync('data/mm-vet/images/v1_0.jpg', 'base64')}`);

  const total = server.asked.length;
  expect((await cli(...asking)).stdout).toBe(stdout);
  expect((await cli(...asking, '--overwrite')).stdout).toBe(stdout);
  expect(server.asked.length).toBe(total);
});

it('what does not go together is told before anything is asked', async () => {
  const total = server.asked.length;
  const wrong: [string[], RegExp][] = [
    [['--endpoint', server.url], /answers to mm-vet are graded by a judge: --judge ADDRESS/],
    [['--endpoint', server.url, '--model', 'a'], /--endpoint <address>' cannot be used with option '-m, --model/],
    [['--endpoint-model', 'a', '--judge', 'rules'], /--endpoint-model goes with --endpoint/],
    [['--endpoint', server.url, '--endpoint-model', 'other', '--judge', 'rules'], /peer.*(model|content)/],
  ];
  for (const [more, message] of wrong) expect((await cli(...words, ...more)).stderr).toMatch(message);
  const lone = await cli('eval', '--endpoint', server.url);
  expect(lone.stderr).toMatch(/--endpoint goes with --benchmarks/);
  expect(server.asked.length).toBe(total);
});
