// Every benchmark that there is.

import { UserError } from '../errors.ts';
import type { Benchmark } from './benchmark.ts';
import { cocoCaptions, flickr30kCaptions } from './captions.ts';
import { gqa } from './gqa.ts';
import { mathVista } from './mathvista.ts';
import { mmVet } from './mm-vet.ts';
import { mmbench, mmbenchCn } from './mmbench.ts';
import { mme } from './mme.ts';
import { mmmu } from './mmmu.ts';
import { mmvp } from './mmvp.ts';
import { pope } from './pope.ts';
import { cocoRetrieval, flickr30kRetrieval } from './retrieval.ts';
import { scienceqa } from './scienceqa.ts';
import { seed } from './seed.ts';
import { textvqa } from './textvqa.ts';
import { vizwiz } from './vizwiz.ts';
import { vqav2 } from './vqav2.ts';

export const benchmarks: readonly Benchmark[] = [
  gqa,
  vqav2,
  textvqa,
  vizwiz,
  pope,
  mme,
  scienceqa,
  mmmu,
  mathVista,
  mmVet,
  mmvp,
  mmbench,
  mmbenchCn,
  seed,
  cocoCaptions,
  flickr30kCaptions,
  cocoRetrieval,
  flickr30kRetrieval,
];

/** UserError, with the names that there are, for one that is unknown. */
export function benchmarkNamed(name: string): Benchmark {
  const found = benchmarks.find((benchmark) => benchmark.name === name);
  if (!found) throw new UserError(`${name}: is no benchmark; there are ${benchmarks.map((benchmark) => benchmark.name).join(', ')}`);
  return found;
}
