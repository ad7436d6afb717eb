// Encoding an image, prefill and decoding of a LLaVA with random weights, against llama.cpp and
// transformers.js: same shape, same prompt lengths, same threads (generate/shapes.ts, peers/). Every side is
// a process of its own; they take turns in one run, so that a noisy machine hurts all alike, and those that
// wait sleep.

import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Command, Option } from 'commander';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import type { GgufTensorType } from '../src/export/gguf.ts';
import { makeFiles } from './generate/files.ts';
import { benchShapes, textParameterCount, type Workload } from './generate/shapes.ts';
import type { LoadAnswer, MemoryAnswer } from './peers/generate-peer.ts';
import { installPeers } from './peers/install.ts';
import { type Server, startServer } from './peers/server.ts';
import { busyCores, busyNote, median, PAUSE, round, thisMachine } from './statistics.ts';

/** Script of each side in bench/peers. */
const SCRIPTS: Record<string, string> = { ours: 'ours.js', 'llama.cpp': 'llama-cpp.js', 'transformers.js': 'transformers-js.js' };
const PEERS = Object.keys(SCRIPTS).filter((side) => side !== 'ours');

interface Options {
  json?: boolean;
  shape: string;
  rounds: number;
  threads: number;
  peers: string;
  ours: boolean;
  spin?: boolean;
  prompt?: number;
  decode?: number;
  embedding: GgufTensorType;
  accuracyLevel: string;
  vision: string;
  rows: number[];
}

/** Numbers of prompts behind commas. */
function parseRows(text: string): number[] {
  return text.split(',').map((rows) => parseCount(rows));
}

export function register(program: Command): void {
  program
    .command('generate')
    .description('encoding an image, prefill and decoding, against llama.cpp and transformers.js')
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .addOption(
      new Option(
        '--shape <name>',
        Object.entries(benchShapes)
          .map(([name, { summary }]) => `${name}: ${summary}`)
          .join('; '),
      )
        .choices(Object.keys(benchShapes))
        .default('small'),
    )
    .option('--rounds <n>', 'turns of each side', parseCount, 5)
    .option('--threads <n>', 'threads of each side', parseCount, availableParallelism())
    .option('--peers <list>', 'whom to measure against', PEERS.join())
    .option('--no-ours', 'leave our own side out')
    .option('--spin', 'let idle threads of ONNX Runtime spin, ours and those of transformers.js: for a machine on which nothing else runs')
    .option('--prompt <tokens>', 'length of the prompt (default: by shape)', parseCount)
    .option('--decode <tokens>', 'tokens decoded behind it (default: by shape)', parseCount)
    .addOption(
      new Option('--embedding <type>', 'llama.cpp: type of the table that embeds and makes logits')
        .choices(['Q4_0', 'Q8_0', 'F16'])
        .default('Q4_0'),
    )
    .addOption(
      new Option('--accuracy-level <n>', 'transformers.js: accuracy_level of MatMulNBits; 4 multiplies in int8, 0 in float32')
        .choices(['0', '4'])
        .default('4'),
    )
    .addOption(new Option('--vision <dtype>', 'transformers.js: files of the image encoder').choices(['q4', 'fp32']).default('q4'))
    .option('--rows <list>', 'ours: decoding of so many prompts at once too, as 2,4,8', parseRows, [])
    .action(benchGenerate);
}

/** Turns of one side: seconds an image, tokens a second. */
interface Turns {
  encode: number[];
  prefill: number[];
  decode: number[];
}

/** Tokens a second of `rows` prompts decoded together, and how many times as many as those of one. */
interface RowsResult {
  decode_tokens_per_s: number;
  gain: number;
}

interface SideResult {
  version: string;
  notes: string[];
  encode_s: number;
  prefill_tokens_per_s: number;
  decode_tokens_per_s: number;
  peak_memory_mb: number;
  anonymous_memory_mb?: number;
}

async function benchGenerate(options: Options): Promise<void> {
  const peers = options.peers.split(',').filter((name) => name !== '');
  for (const name of peers) if (!PEERS.includes(name)) throw new UserError(`--peers: no peer "${name}"; there are ${PEERS.join(', ')}`);
  const names = [...(options.ours ? ['ours'] : []), ...peers];
  const { json, shape, rounds, threads, spin = false } = options;
  const log = json ? console.error : console.log;
  const { workload: usual, config, summary } = benchShapes[shape];
  const workload: Workload = { ...usual, prompt: options.prompt ?? usual.prompt, decode: options.decode ?? usual.decode };
  const context = workload.prompt + workload.decode + 1;
  if (context > config.text_config.max_position_embeddings)
    throw new UserError(
      `--prompt and --decode: ${context} tokens are more than the ${config.text_config.max_position_embeddings} of shape ${shape}`,
    );

  if (peers.length > 0) installPeers();
  const files = await makeFiles(shape, names, { embedding: options.embedding, accuracyLevel: Number(options.accuracyLevel) }, log);
  const machine = { ...thisMachine(), threads, spin };
  log(`${machine.cpu}, ${threads} of ${machine.cores} cores; ${summary}`);
  log(`${workload.images} image(s), a prompt of ${workload.prompt} tokens, ${workload.decode} decoded; medians of ${rounds}\n`);

  const servers = new Map<string, Server>();
  try {
    const loaded: Record<string, LoadAnswer> = {};
    for (const name of names) {
      const script = fileURLToPath(new URL(`peers/${SCRIPTS[name]}`, import.meta.url));
      const server = startServer(name, process.execPath, [script], { apart: true });
      servers.set(name, server);
      loaded[name] = await server.request<LoadAnswer>({ op: 'load', shape, files, context, threads, spin, vision: options.vision });
      const { parameters } = loaded[name];
      if (parameters !== undefined && parameters !== textParameterCount(config))
        throw new Error(`${name} has a language model of ${parameters} parameters, the shape has ${textParameterCount(config)}`);
    }
    // all sides are loaded and asleep by now, so that what is busy is somebody else's
    const before = await busyCores();
    const turns = await takeTurns(servers, loaded, workload, rounds);
    const many = options.rows.length === 0 ? undefined : await takeRows(servers.get('ours'), workload, options.rows, rounds);
    const { busy, note } = busyNote(before, await busyCores());
    if (note) log(`${note}, least of all one to a side whose threads spin, as llama.cpp's do\n`);
    const sides: Record<string, SideResult> = {};
    for (const [name, server] of servers) sides[name] = await resultOf(server, loaded[name], turns[name]);
    const ratios = ratiosOf(sides, loaded);
    log(describe(sides, ratios));
    for (const [rows, { decode_tokens_per_s, gain }] of Object.entries(many ?? {}))
      log(`ours, ${rows} rows at once: ${decode_tokens_per_s.toFixed(1)} tokens/s, ${gain.toFixed(2)} x one row`);
    const quiet = { ...machine, busy_cores: busy };
    if (json) console.log(JSON.stringify({ benchmark: 'generate', machine: quiet, shape, workload, rounds, sides, ...ratios, rows: many }));
  } finally {
    for (const server of servers.values()) server.stop();
  }
}

/**
 * One turn of each side at each thing, `rounds` times over, after one that is not counted. What stands for
 * nothing is not worth more than that first turn.
 */
async function takeTurns(
  servers: ReadonlyMap<string, Server>,
  loaded: Record<string, LoadAnswer>,
  workload: Workload,
  rounds: number,
): Promise<Record<string, Turns>> {
  const turns: Record<string, Turns> = Object.fromEntries(
    [...servers.keys()].map((name) => [name, { encode: [], prefill: [], decode: [] }]),
  );
  const take = async (server: Server, op: keyof Turns, { images, prompt, decode }: Workload) => {
    await sleep(PAUSE);
    if (op === 'encode') return (await server.request<{ seconds_per_image: number }>({ op, images })).seconds_per_image;
    const request = op === 'prefill' ? { op, tokens: prompt } : { op, context: prompt, tokens: decode };
    return (await server.request<{ tokens_per_s: number }>(request)).tokens_per_s;
  };
  const ops: (keyof Turns)[] = ['encode', 'prefill', 'decode'];
  const counts = (name: string, op: keyof Turns) => !loaded[name].incomparable?.includes(op);
  for (const op of ops)
    for (const [name, server] of servers) {
      const first = await take(server, op, { images: 1, prompt: 64, decode: 4 });
      if (!counts(name, op)) turns[name][op].push(first);
    }
  for (let round = 0; round < rounds; round++)
    for (const op of ops)
      for (const [name, server] of servers) if (counts(name, op)) turns[name][op].push(await take(server, op, workload));
  return turns;
}

/**
 * Decoding of several prompts at once, in turns with one prompt by itself, `rounds` times over. Prompts are
 * as long as a tenth of the workload's, since each is read for each row.
 */
async function takeRows(ours: Server | undefined, { prompt, decode }: Workload, rows: readonly number[], rounds: number) {
  if (!ours) throw new UserError('--rows are rows of our own side: leave --no-ours away');
  const taken = new Map<number, number[]>([1, ...rows].map((count) => [count, []]));
  const request = { op: 'decode', context: Math.ceil(prompt / 10), tokens: decode };
  for (const count of taken.keys()) await ours.request({ ...request, tokens: 4, rows: count });
  for (let round = 0; round < rounds; round++)
    for (const [count, speeds] of taken) {
      await sleep(PAUSE);
      speeds.push((await ours.request<{ tokens_per_s: number }>({ ...request, rows: count })).tokens_per_s);
    }
  const one = median(taken.get(1)!);
  const result = (speeds: number[]): RowsResult => ({
    decode_tokens_per_s: round(median(speeds), 2),
    gain: round(median(speeds) / one, 3),
  });
  return Object.fromEntries([...taken].map(([count, speeds]) => [count, result(speeds)]));
}

async function resultOf(server: Server, { version, notes }: LoadAnswer, turns: Turns): Promise<SideResult> {
  const memory = await server.request<MemoryAnswer>({ op: 'memory' });
  return {
    version,
    notes,
    encode_s: round(median(turns.encode), 4),
    prefill_tokens_per_s: round(median(turns.prefill), 2),
    decode_tokens_per_s: round(median(turns.decode), 2),
    peak_memory_mb: memory.peak_mb,
    anonymous_memory_mb: memory.anonymous_mb,
  };
}

/**
 * How many times as fast ours is as each peer, by names such as decode_vs_llama_cpp; nothing when ours was
 * left out.
 */
function ratiosOf({ ours, ...peers }: Record<string, SideResult>, loaded: Record<string, LoadAnswer>): Record<string, number | null> {
  const ratios: Record<string, number | null> = {};
  if (!ours) return ratios;
  for (const [name, peer] of Object.entries(peers)) {
    const speedups = {
      encode: peer.encode_s / ours.encode_s,
      prefill: ours.prefill_tokens_per_s / peer.prefill_tokens_per_s,
      decode: ours.decode_tokens_per_s / peer.decode_tokens_per_s,
    };
    for (const [op, ratio] of Object.entries(speedups))
      ratios[`${op}_vs_${name.replaceAll('.', '_')}`] = loaded[name].incomparable?.includes(op) ? null : round(ratio, 3);
  }
  return ratios;
}

function describe(sides: Record<string, SideResult>, ratios: Record<string, number | null>): string {
  const lines = Object.entries(sides).map(([name, side]) => {
    const numbers = [
      `${(1000 * side.encode_s).toFixed(0).padStart(7)} ms an image`,
      `${side.prefill_tokens_per_s.toFixed(1).padStart(8)} tokens/s prefill`,
      `${side.decode_tokens_per_s.toFixed(1).padStart(7)} tokens/s decode`,
      `${side.peak_memory_mb.toFixed(0).padStart(6)} MB`,
    ];
    return `  ${name.padEnd(16)}${numbers.join('  ')}`;
  });
  for (const [name, { version, notes }] of Object.entries(sides))
    lines.push('', `${name}: ${version}`, ...notes.map((note) => `  ${note}`));
  if (Object.keys(ratios).length > 0) lines.push('', 'ours is so many times as fast:');
  for (const [name, ratio] of Object.entries(ratios))
    lines.push(`  ${name.padEnd(28)}${ratio === null ? 'no measure, see above' : ratio.toFixed(2)}`);
  return lines.join('\n');
}
