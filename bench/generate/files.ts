// The files of a shape, made when they are asked for and kept under .cache/bench/generate: gigabytes at full
// size, minutes to write.

import { existsSync, mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { checkRoom } from '../../src/cli/disk.ts';
import type { GgufTensorType } from '../../src/export/gguf.ts';
import { writeMmprojGguf, writeTextGguf } from './gguf.ts';
import { writeTransformersJsFolder } from './onnx.ts';
import { writeOurFolder } from './ours.ts';
import { type BenchConfig, benchShapes, textParameterCount } from './shapes.ts';

/** To be counted up when a writer changes, so that no files of before are read. */
const VERSION = 1;
const FOLDER = `.cache/bench/generate/v${VERSION}`;

export interface FileOptions {
  /** Type of the GGUF's table that embeds and makes logits. */
  embedding: GgufTensorType;
  /** `accuracy_level` of MatMulNBits in the ONNX files. */
  accuracyLevel: number;
}

/**
 * A language model of one layer and a small vocabulary, of the width of the real one: it carries llama.cpp's
 * encoder.
 */
function carrierOf(config: BenchConfig): BenchConfig {
  return { ...config, text_config: { ...config.text_config, num_hidden_layers: 1, intermediate_size: 256, vocab_size: 512 } };
}

/** Makes what is missing for the sides named; their absolute paths. */
export async function makeFiles(
  shape: string,
  sides: readonly string[],
  { embedding, accuracyLevel }: FileOptions,
  log: (line: string) => void,
): Promise<Record<string, string>> {
  const { config } = benchShapes[shape];
  const folder = resolve(FOLDER, shape);
  mkdirSync(folder, { recursive: true });
  const files: Record<string, string> = {};
  const make = async (key: string, name: string, write: (path: string) => Promise<void>, mark = '') => {
    files[key] = join(folder, name);
    // each is there whole or not at all
    if (existsSync(join(files[key], mark))) return;
    // all files together take about two bytes a weight of the language model
    await checkRoom(folder, 2 * textParameterCount(config), 'the files take up to');
    log(`making ${files[key]}`);
    await write(files[key]);
  };
  if (sides.includes('ours')) await make('ours', 'ours', (path) => writeOurFolder(path, config));
  if (sides.includes('llama.cpp')) {
    await make('text', `text-${embedding}.gguf`, (path) => writeTextGguf(path, config, embedding));
    await make('carrier', 'carrier.gguf', (path) => writeTextGguf(path, carrierOf(config)));
    await make('mmproj', 'mmproj.gguf', (path) => writeMmprojGguf(path, config));
  }
  if (sides.includes('transformers.js'))
    await make(
      'transformersJs',
      `transformers.js-${accuracyLevel}`,
      (path) => writeTransformersJsFolder(path, config, accuracyLevel),
      'generation_config.json',
    );
  return files;
}
