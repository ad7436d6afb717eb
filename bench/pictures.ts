// From a picture's file to the pixel values of CLIP ViT-L/14-336, ours against the image processor of
// transformers (peers/torch_pictures.py): same files, one thread each, in turns. Ours is measured twice: with
// the same steps, and padded to a square first, as LLaVA does; the peer only without padding, which is less
// work.

import { existsSync, mkdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import sharp from 'sharp';
import { parseCount } from '../src/cli/options.ts';
import { UserError } from '../src/errors.ts';
import { imageProcessorConfig, readPixelValues } from '../src/images/processor.ts';
import { createRandom } from '../src/random.ts';
import { startServer } from './peers/server.ts';
import { torchPython } from './peers/torch.ts';
import { busyCores, busyNote, median, PAUSE, round } from './statistics.ts';

const FOLDER = '.cache/bench/pictures';
const SIDE = 336;
/** Sizes of pictures, and how many times each is read in a turn. */
const SIZES = [
  { width: 640, height: 480, count: 9 },
  { width: 3264, height: 2448, count: 3 },
] as const;
/** Mean and mean square of pixel values may differ by so much: JPEG decoders round in their own ways. */
const TOLERANCE = 0.02;

export function register(program: Command): void {
  program
    .command('pictures')
    .description("a JPEG to the encoder's pixel values, against transformers")
    .option('--json', 'print one JSON object on stdout, and nothing else there')
    .option('--torch <python>', 'a Python that has PyTorch, transformers and Pillow (default: .venv/bin/python, else python3)')
    .option('--rounds <n>', 'turns of each side', parseCount, 5)
    .action(benchPictures);
}

/** A picture with gradients, waves and noise, as photographs have; written once. */
async function pictureFile(width: number, height: number): Promise<string> {
  const path = join(FOLDER, `${width}x${height}.jpg`);
  if (existsSync(path)) return path;
  mkdirSync(FOLDER, { recursive: true });
  const random = createRandom(1);
  const data = Buffer.alloc(width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const [x, y, channel] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3];
    const waves = 60 * Math.sin(x / (37 + 11 * channel)) + 50 * Math.cos(y / (29 + 7 * channel)) + 40 * Math.sin((x + y) / 9);
    data[i] = Math.max(0, Math.min(255, 128 + waves + 24 * (random.uniform() - 0.5)));
  }
  await sharp(data, { raw: { width, height, channels: 3 } })
    .jpeg({ quality: 90 })
    .toFile(path);
  return path;
}

interface Turn {
  ms: number[];
  cpu_ms: number[];
  mean: number;
  square: number;
  numbers: number;
}

const ours = (isPadded: boolean) => {
  const config = imageProcessorConfig.parse({ size: { shortest_edge: SIDE }, crop_size: SIDE, do_pad: isPadded });
  return async (path: string, count: number): Promise<Turn> => {
    const turn: Turn = { ms: [], cpu_ms: [], mean: 0, square: 0, numbers: 0 };
    let pixels: Float32Array = new Float32Array();
    for (let i = 0; i < count; i++) {
      const [begin, cpu] = [performance.now(), process.cpuUsage()];
      pixels = await readPixelValues([path], config);
      const { user, system } = process.cpuUsage(cpu);
      turn.ms.push(performance.now() - begin);
      turn.cpu_ms.push((user + system) / 1000);
    }
    for (const value of pixels) {
      turn.mean += value / pixels.length;
      turn.square += value ** 2 / pixels.length;
    }
    return { ...turn, numbers: pixels.length };
  };
};

const SIDES = ['ours', 'ours_padded', 'transformers'] as const;

async function benchPictures({ json, torch, rounds }: { json?: boolean; torch?: string; rounds: number }): Promise<void> {
  const log = json ? console.error : console.log;
  const server = startServer('transformers', torchPython(torch), [
    'bench/peers/torch_pictures.py',
    '--threads',
    '1',
    '--side',
    String(SIDE),
  ]);
  try {
    const versions = await server.greeting<{ torch: string; transformers: string; processor: string }>();
    const machine = { cpu: cpus()[0].model.trim(), node: process.version, sharp: sharp.versions.sharp, ...versions };
    log(`${machine.cpu}; sharp ${machine.sharp}, transformers ${versions.transformers} (${versions.processor}); one thread a side\n`);
    sharp.concurrency(1);
    const sides: Record<(typeof SIDES)[number], (path: string, count: number) => Promise<Turn>> = {
      ours: ours(false),
      ours_padded: ours(true),
      transformers: (path, count) => server.request<Turn>({ path: resolve(path), count }),
    };
    const before = await busyCores();
    const sizes: Record<string, object> = {};
    for (const { width, height, count } of SIZES) {
      const path = await pictureFile(width, height);
      const turns: Record<(typeof SIDES)[number], Turn[]> = { ours: [], ours_padded: [], transformers: [] };
      for (let turn = 0; turn < rounds; turn++)
        for (const side of SIDES) {
          await sleep(PAUSE);
          // the first finds the caches full of another side's data
          turns[side].push(await sides[side](path, 1 + count));
        }
      const [mine, theirs] = [turns.ours[0], turns.transformers[0]];
      for (const key of ['mean', 'square', 'numbers'] as const)
        if (!(Math.abs(mine[key] - theirs[key]) <= TOLERANCE))
          throw new UserError(`${width} x ${height}: the ${key} of our pixel values is ${mine[key]}, that of transformers ${theirs[key]}`);
      const times = (key: 'ms' | 'cpu_ms') =>
        Object.fromEntries(SIDES.map((side) => [side, round(median(turns[side].flatMap((turn) => turn[key].slice(1))), 2)]));
      const [ms, cpu] = [times('ms'), times('cpu_ms')];
      const ratio = round(cpu.transformers / cpu.ours, 2);
      const paddedRatio = round(cpu.transformers / cpu.ours_padded, 2);
      sizes[`${width}x${height}`] = { ms, cpu_ms: cpu, cpu_ratio: ratio, cpu_ratio_padded: paddedRatio };
      log(`${width} x ${height} (medians of ${rounds * count})`);
      for (const side of SIDES)
        log(`  ${side.padEnd(13)} ${ms[side].toFixed(1).padStart(7)} ms, CPU ${cpu[side].toFixed(1).padStart(6)} ms`);
      log(`  in CPU time, ours is ${ratio} x as fast, ${paddedRatio} x padded to a square\n`);
    }
    const { busy, note } = busyNote(before, await busyCores());
    if (note) log(note);
    if (json) console.log(JSON.stringify({ benchmark: 'pictures', machine: { ...machine, busy_cores: busy }, rounds, sizes }));
  } finally {
    server.stop();
  }
}
