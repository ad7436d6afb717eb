// What `llava-gemma align` does.
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { type AlignOptions, align, MEASURES, type Measure } from '../../alignment/align.ts';
import { type CaptionedPicture, emojiPictures, llavaPictures } from '../../alignment/pictures.ts';
import { bundledTowerOf } from '../../alignment/text-tower.ts';
import { bundledTexts, textsOfFile } from '../../alignment/texts.ts';
import { createOrtEngine } from '../../engine/ort.ts';
import { UserError } from '../../errors.ts';
import { resolvePath } from '../../paths.ts';
import { createStatusLine } from '../../runs/status.ts';
import type { Quantization } from '../../weights/quantize.ts';
import { withInterrupt } from '../interrupt.ts';
import { type AlignmentReport, formatAlignment } from './align-table.ts';
import { checkpointsOf, isRun } from './run-checkpoints.ts';

export interface AlignFlags {
  measures?: string;
  samples: number;
  data?: string;
  imageFolder?: string;
  texts?: string;
  template: 'gemma' | 'plain';
  ways: number;
  compat?: 'fast';
  reference?: string;
  textTower?: string;
  seed: number;
  quantize?: Quantization;
  out?: string;
  json?: boolean;
}

function measuresOf(list: string | undefined): readonly Measure[] {
  if (list === undefined) return MEASURES;
  const names = list.split(',').map((name) => name.trim());
  const isMeasure = (name: string): name is Measure => (MEASURES as readonly string[]).includes(name);
  const unknown = names.find((name) => !isMeasure(name));
  if (unknown !== undefined) throw new UserError(`--measures ${unknown}: the measures are ${MEASURES.join(', ')}`);
  return names.filter(isMeasure);
}

async function picturesOf({ data, imageFolder, samples, seed }: AlignFlags): Promise<CaptionedPicture[]> {
  if (data === undefined && imageFolder !== undefined) throw new UserError('--image-folder goes with --data');
  if (data === undefined) return emojiPictures(samples, seed);
  if (imageFolder === undefined) throw new UserError('--data needs --image-folder, which its image paths are relative to');
  return llavaPictures(data, imageFolder, samples, seed);
}

/** The file is tried before anything is computed. */
function checkOut(out: string): void {
  const folder = dirname(out);
  if (!existsSync(folder)) throw new UserError(`--out ${out}: there is no folder ${folder}`);
  if (existsSync(out) && statSync(out).isDirectory()) throw new UserError(`--out ${out} is a folder; give a file`);
}

/** Runs the command. */
export async function runAlign(path: string, flags: AlignFlags): Promise<void> {
  const { samples, seed, template, texts: textFile, out, json } = flags;
  const measures = measuresOf(flags.measures);
  if (out !== undefined) checkOut(out);
  const folder = resolvePath(path, 'the model');
  const given = (name: string | undefined, option: string) => (name === undefined ? undefined : resolvePath(name, option));
  const [reference, textTower] = [given(flags.reference, '--reference'), given(flags.textTower, '--text-tower')];
  const models = isRun(folder) ? await checkpointsOf(folder) : [{ name: path, path: folder }];
  const pictures = await picturesOf(flags);
  const common: Omit<AlignOptions, 'onProgress' | 'signal'> = {
    pictures,
    texts: textFile === undefined ? await bundledTexts(samples, seed) : textsOfFile(textFile, samples),
    measures,
    seed,
    template,
    ways: Math.min(flags.ways, samples),
    compat: flags.compat,
    reference,
    engine: createOrtEngine(),
    quantize: flags.quantize,
  };
  const report: AlignmentReport = {
    data: flags.data ?? 'emoji scenes',
    texts: textFile ?? 'WordNet definitions',
    template,
    samples,
    seed,
    models: [],
  };
  const status = createStatusLine();
  await withInterrupt(async (signal) => {
    for (const { name, path } of models) {
      const tower = textTower ?? (measures.includes('retrieval') ? await bundledTowerOf(path) : undefined);
      const onProgress = (text: string) => status.draw(models.length > 1 ? `${name}: ${text}` : text);
      const measured = await align(path, { ...common, textTower: tower, signal, onProgress });
      report.models.push({ name, path, ...(tower === undefined ? {} : { textTower: tower }), ...measured });
    }
  }, 'nothing was written').finally(status.clear);
  const text = JSON.stringify(report, null, 2);
  if (out !== undefined) writeFileSync(out, `${text}\n`);
  console.log(json ? text : formatAlignment(report));
  if (out !== undefined && !json) console.log(`\nwrote ${out}`);
}
