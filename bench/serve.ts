// Many clients of a server at once, against one by itself: tokens a second in all, waits for the first and
// the last token, order, errors, and the memory of the server while it goes on. The server is the command
// line's, in processes of its own; the clients share the machine with it.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import sharp from 'sharp';
import { parseCount } from '../src/cli/options.ts';
import { loadEmojiGlyphs, sharedConcepts } from '../src/data/emoji/glyphs.ts';
import { renderScene, sampleScene } from '../src/data/emoji/scene.ts';
import { UserError } from '../src/errors.ts';
import { bundledModel, resolvePath } from '../src/paths.ts';
import { freshConfig, writeFreshCheckpoint } from '../src/pretrained/fresh.ts';
import { createRandom } from '../src/random.ts';
import { type Answered, joined, type Part, summary } from './serve/answers.ts';
import { besidePeer, PEER_CLIENTS, PEER_TURNS, startPeer } from './serve/peer.ts';
import { busyCores, busyNote, round, thisMachine } from './statistics.ts';

interface Options {
  json?: boolean;
  model?: string;
  clients: number;
  parallel: number;
  seconds: number;
  pictures: number;
  maxTokens: number;
  peer?: boolean;
}

export function register(program: Command): void {
  program
    .command('serve')
    .description('streaming clients of a server, many against one')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option(
      '--model <folder>',
      'model that is served (default: one of the size of the bundled model, with random weights: its answers are long)',
    )
    .option('--clients <n>', 'clients at a time', parseCount, 64)
    .option('--parallel <n>', 'answers that the server generates at a time', parseCount, 16)
    .option('--seconds <n>', 'time of the clients together; one by itself has 60 s at most', parseCount, 30)
    .option('--pictures <n>', 'pictures that are asked about', parseCount, 16)
    .option('--max-tokens <n>', 'longest answer', parseCount, 64)
    .option('--peer', 'also 8 clients of ours, and of transformers.js in a loop (which is installed)')
    .action(benchServe);
}

const QUESTIONS = ['What do you see?', 'How many things are in the picture?', 'What color is it?', 'What is at the top?'];

async function drawings(count: number): Promise<string[]> {
  const random = createRandom(11);
  const glyphs = await loadEmojiGlyphs();
  return Promise.all(
    Array.from({ length: count }, async () => {
      const scene = sampleScene(random, glyphs, { concepts: sharedConcepts(glyphs), artists: glyphs.artists });
      const { data, width, height } = renderScene(scene, glyphs);
      return `data:image/png;base64,${(
        await sharp(data, { raw: { width, height, channels: 3 } })
          .png()
          .toBuffer()
      ).toString('base64')}`;
    }),
  );
}

/** A model of the bundled size whose answers do not end by themselves. */
async function longWinded(): Promise<string> {
  const folder = '.cache/bench/serve-model';
  if (existsSync(join(folder, 'config.json'))) return folder;
  const bundled = resolvePath(bundledModel, 'the model');
  const config = JSON.parse(readFileSync(join(bundled, 'config.json'), 'utf8'));
  const options = {
    dtype: 'float16',
    seed: 1,
    maxShardSize: 1e9,
    tokenizer: bundled,
    signal: new AbortController().signal,
    onDrawn() {},
  } as const;
  await writeFreshCheckpoint(freshConfig(config), folder, options);
  return folder;
}

async function startCli({
  model,
  parallel,
  clients,
}: Options & { model: string }): Promise<{ child: ChildProcess; url: string; name: string }> {
  const words = ['serve', '--port', '0', '--quiet', '--model', model, '--parallel', String(parallel), '--queue', String(clients)];
  const child = spawn(process.execPath, ['bin/llava-gemma.js', ...words], { stdio: ['ignore', 'inherit', 'pipe'] });
  let [url, name] = ['', ''];
  for await (const line of createInterface({ input: child.stderr! })) {
    const said = /^listening on (.*)\/v1; models: ([^,]+)/.exec(line);
    if (said) [, url, name] = said;
    if (line === 'ready') return { child, url, name };
    if (/^error/.test(line)) throw new UserError(line);
  }
  throw new UserError('the server has ended');
}

/** Asks, one question after the other, until the time is over. */
async function clientLoop(url: string, body: () => object, end: number, start: number, part: Part): Promise<void> {
  while (performance.now() < end) {
    const answer: Answered = { asked: performance.now() - start, first: 0, done: 0, tokens: 0, cached: 0 };
    try {
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body()),
      });
      if (!response.ok) throw new Error(`status ${response.status}: ${await response.text()}`);
      await readEvents(response, answer, start);
      part.answers.push(answer);
    } catch (error) {
      part.errors.push((error as Error).message.slice(0, 200));
    }
  }
}

async function readEvents(response: Response, answer: Answered, start: number): Promise<void> {
  const decoder = new TextDecoder();
  let held = '';
  let isWhole = false;
  for await (const bytes of response.body!) {
    const lines = (held + decoder.decode(bytes as Uint8Array, { stream: true })).split('\n');
    held = lines.pop()!;
    for (const line of lines) {
      if (line === 'data: [DONE]') isWhole = true;
      else if (line.startsWith('data: ')) {
        const { choices, usage, error } = JSON.parse(line.slice(6));
        if (error) throw new Error(error.message);
        if (answer.first === 0 && choices[0]?.delta.content) answer.first = performance.now() - start;
        if (usage) Object.assign(answer, { tokens: usage.completion_tokens, cached: usage.prompt_tokens_details.cached_tokens });
      }
    }
  }
  if (!isWhole) throw new Error('the stream ended before its end');
  answer.done = performance.now() - start;
  answer.first ||= answer.done;
}

async function runPart(url: string, clients: number, seconds: number, body: () => object): Promise<Part> {
  const part: Part = { seconds: 0, answers: [], errors: [], cpu: 0 };
  const before = await cpuOf(url);
  const start = performance.now();
  await Promise.all(Array.from({ length: clients }, () => clientLoop(url, body, start + seconds * 1000, start, part)));
  part.seconds = (performance.now() - start) / 1000;
  // the model says how it is once a second
  await sleep(1100);
  part.cpu = (await cpuOf(url)) - before;
  return part;
}

/** Figures of the server and of the model, by the name of the process. */
async function figures(url: string, name: 'resident_memory_bytes' | 'heap_bytes' | 'external_bytes' | 'cpu_seconds') {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.matchAll(new RegExp(`^llava_gemma_${name}\\{process="(.*)"\\} (\\S+)$`, 'gm'));
  return new Map(Array.from(lines, ([, process, value]) => [process, Number(value)]));
}

const cpuOf = async (url: string) => [...(await figures(url, 'cpu_seconds')).values()].reduce((sum, value) => sum + value, 0);

/** Memory in MB: resident, and of it the heap and the buffers of JavaScript, of the server and the model. */
async function memoryOf(url: string): Promise<Record<'server' | 'model', [resident: number, heap: number, buffers: number]>> {
  const [resident, heap, buffers] = await Promise.all([
    figures(url, 'resident_memory_bytes'),
    figures(url, 'heap_bytes'),
    figures(url, 'external_bytes'),
  ]);
  const model = [...resident.keys()].find((name) => name !== 'server')!;
  const of = (name: string) => [resident, heap, buffers].map((all) => round(all.get(name)! / 1e6, 0)) as [number, number, number];
  return { server: of('server'), model: of(model) };
}

async function benchServe(options: Options): Promise<void> {
  const { json, clients, seconds, parallel, maxTokens } = options;
  const log = json ? console.error : console.log;
  const pictures = await drawings(options.pictures);
  const before = await busyCores();
  const model = options.model ?? (await longWinded());
  const peer = options.peer ? await startPeer(model, { pictures, questions: QUESTIONS, maxTokens }) : undefined;
  const { child, url, name } = await startCli({ ...options, model });
  const random = createRandom(3);
  const body = () => ({
    model: name,
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: maxTokens,
    messages: [
      {
        role: 'user',
        content: [
          { type: 'image_url', image_url: { url: random.pick(pictures) } },
          { type: 'text', text: random.pick(QUESTIONS) },
        ],
      },
    ],
  });
  try {
    const machine = thisMachine();
    log(`${machine.cpu}, ${machine.cores} cores; ${clients} clients, ${parallel} answers at a time, ${seconds} s\n`);
    // pages, caches and compiled code of the server come to their size
    await runPart(url, clients, Math.min(seconds, 10), body);
    const one = await runPart(url, 1, Math.min(seconds, 60), body);
    const memory = [await memoryOf(url)];
    const parts: Part[] = [];
    const turns = Math.max(4, Math.round(seconds / 60));
    for (let turn = 0; turn < turns; turn++) {
      parts.push(await runPart(url, clients, seconds / turns, body));
      memory.push(await memoryOf(url));
    }
    const many = joined(parts);
    const few = peer && (await besidePeer(peer, () => runPart(url, PEER_CLIENTS, seconds / PEER_TURNS, body), seconds / PEER_TURNS));
    const { busy, note } = busyNote(before, 0);
    const [alone, together] = [summary(one), summary(many)];
    const result = {
      machine: { ...machine, busy },
      clients,
      parallel,
      one: alone,
      many: together,
      ratio: round(together.tokens_per_s / alone.tokens_per_s, 2),
      ...(few ? { peer: { version: peer.version, ...few } } : {}),
      ratio_of_cpu: round(together.tokens_per_cpu_s / alone.tokens_per_cpu_s, 2),
      memory_mb: memory,
      first_errors: [...one.errors, ...many.errors].slice(0, 3),
    };
    log(table({ 'one client': alone, [`${clients} clients`]: together }));
    if (few) {
      log(`\n${PEER_CLIENTS} clients, beside ${peer.version} in a loop\n`);
      log(table({ ours: few.ours, theirs: few.theirs }));
      log(`\n${few.ratio} x the tokens of transformers.js, ${few.ratio_of_cpu} x for each second of CPU time`);
    }
    log(`\n${result.ratio} x the tokens of one client, ${result.ratio_of_cpu} x for each second of CPU time`);
    log('memory over time in MB, resident (heap, buffers):');
    for (const process of ['server', 'model'] as const)
      log(`  ${process}: ${memory.map(({ [process]: [resident, heap, buffers] }) => `${resident} (${heap}, ${buffers})`).join(', ')}`);
    for (const error of result.first_errors) log(`error: ${error}`);
    if (note) log(note);
    if (json) console.log(JSON.stringify(result));
    if (one.errors.length + many.errors.length > 0) process.exitCode = 1;
  } finally {
    peer?.stop();
    child.kill('SIGTERM');
    await once(child, 'exit');
  }
}

function table(columns: Record<string, ReturnType<typeof summary>>): string {
  const names = Object.keys(columns);
  const text = (value: unknown) =>
    typeof value === 'object'
      ? Object.entries(value as object)
          .map(([name, number]) => `${number} (${name})`)
          .join(', ')
      : String(value);
  const rows = Object.keys(Object.values(columns)[0]).map((key) => [
    key.replaceAll('_', ' '),
    ...names.map((name) => text(columns[name][key as keyof ReturnType<typeof summary>])),
  ]);
  return [['', ...names], ...rows].map(([head, ...cells]) => head.padEnd(26) + cells.map((cell) => cell.padStart(30)).join('')).join('\n');
}
