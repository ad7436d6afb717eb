// What `llava-gemma diagnose` does.

import { createColors } from 'picocolors';
import { type Diagnosis, diagnose } from '../../diagnose/diagnose.ts';
import type { Finding, Level } from '../../diagnose/findings.ts';
import { UserError } from '../../errors.ts';
import { resolvePath } from '../../paths.ts';
import { createStatusLine } from '../../runs/status.ts';
import { withInterrupt } from '../interrupt.ts';
import { showsColor } from '../table.ts';

export interface DiagnoseFlags {
  data?: string;
  imageFolder?: string;
  scenes: number;
  /** What healthy looks like of every sign. */
  all?: boolean;
  json?: boolean;
}

/** Runs the command; the process fails where a sign is red. */
export async function runDiagnosis(folder: string, { data, imageFolder, scenes, all = false, json }: DiagnoseFlags): Promise<void> {
  if ((data === undefined) !== (imageFolder === undefined)) throw new UserError('--data and --image-folder are given together');
  const path = resolvePath(folder, 'diagnose');
  const file =
    data === undefined ? undefined : { dataPath: resolvePath(data, '--data'), imageFolder: resolvePath(imageFolder!, '--image-folder') };
  const line = createStatusLine();
  const diagnosis = await withInterrupt(
    (signal) => diagnose({ path, data: file, scenes, signal, onProgress: (text) => line.draw(text) }),
    'nothing was written',
  ).finally(line.clear);
  console.log(json ? JSON.stringify(diagnosis, null, 2) : diagnosisText(diagnosis, showsColor(), all));
  const reds = diagnosis.findings.filter(({ level }) => level === 'red');
  if (reds.length > 0) throw new UserError(`${folder}: ${reds.map(({ sign }) => sign).join(', ')}`);
}

function diagnosisText({ of, kind, findings }: Diagnosis, isColored: boolean, isAll: boolean): string {
  const { red, yellow, green, dim } = createColors(isColored);
  const paint: Record<Level, (text: string) => string> = { red, amber: yellow, green, unknown: dim, info: dim };
  const width = Math.max(...findings.map(({ sign }) => sign.length));
  const lines = findings.flatMap((finding) => {
    const { level, sign, found, at } = finding;
    const where = at ? ` (${at.stage}, step ${at.step})` : '';
    return [
      `${paint[level](level.padEnd(7))}  ${sign.padEnd(width)}  ${found}${where}`,
      ...more(finding, isAll).map((text) => `${' '.repeat(width + 11)}${dim(text)}`),
    ];
  });
  return [`${kind} ${of}`, ...lines].join('\n');
}

/** What healthy looks like, where something is wrong or all is asked for, and what to do. */
const more = ({ advice, healthy, source }: Finding, isAll: boolean) => [
  ...(advice !== '' || isAll ? [`healthy: ${healthy} (${source})`] : []),
  ...(advice === '' ? [] : [`do: ${advice}`]),
];
