// What `llava-gemma init` does.
import { existsSync, readdirSync, statSync } from 'node:fs';
import { UserError } from '../../errors.ts';
import { modelParameters } from '../../models/model-parameters.ts';
import { shapeNamed } from '../../models/shapes.ts';
import { freshConfig, writeFreshCheckpoint } from '../../pretrained/fresh.ts';
import { bytesPerElement, storedFloats } from '../../weights/dtype.ts';
import { elementCount } from '../../weights/safetensors.ts';
import { checkRoom } from '../disk.ts';
import { formatBytes, formatCount } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';
import { floatTypeOf } from '../options.ts';

export interface InitFlags {
  out: string;
  dtype: string;
  seed: number;
  maxShardSize: number;
}

/** The folder must be new, and the disk large enough: a model of full size takes minutes to draw. */
async function checkPlace(out: string, bytes: number): Promise<void> {
  if (existsSync(out) && !statSync(out).isDirectory()) throw new UserError(`${out} is a file; give another --out`);
  if (existsSync(out) && readdirSync(out).length > 0) throw new UserError(`${out} is not empty; give another --out`);
  await checkRoom(out, bytes, 'the weights take');
}

/** Shows on a terminal, in percent, how much of `count` is done. */
function createPercentage(count: number): (more: number) => void {
  let done = 0;
  return (more) => {
    const before = Math.floor((100 * done) / count);
    done += more;
    const now = Math.floor((100 * done) / count);
    if (process.stderr.isTTY && now > before) process.stderr.write(`\r${now} %${now === 100 ? '\n' : ''}`);
  };
}

/** Runs the command. */
export async function init(name: string, { out, dtype: type, seed, maxShardSize }: InitFlags): Promise<void> {
  const { config: shape, tokenizer } = shapeNamed(name);
  const config = freshConfig(shape);
  const dtype = floatTypeOf(type);
  const count = modelParameters(config).reduce((sum, { dims }) => sum + elementCount(dims), 0);
  const bytes = count * bytesPerElement[storedFloats[dtype]];
  await checkPlace(out, bytes);
  console.error(`drawing ${formatCount(count)} parameters (${formatBytes(bytes)})`);
  const onDrawn = createPercentage(count);
  await withInterrupt(
    (signal) => writeFreshCheckpoint(config, out, { dtype, seed, maxShardSize, tokenizer, signal, onDrawn }),
    'nothing was written',
  );
  console.log(`wrote ${out}`);
}
