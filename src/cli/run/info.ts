// What `llava-gemma info` does.
import type { Layout } from '../../checkpoint/layouts.ts';
import { UserError } from '../../errors.ts';
import { resolvePath } from '../../paths.ts';
import { type CheckpointInfo, describeCheckpoint, type Part } from '../../pretrained/inspect.ts';
import { alignColumns } from '../../runs/columns.ts';
import { formatBytes, formatCount } from '../format.ts';

const LAYOUTS: Record<Layout, string> = {
  huggingface: 'Hugging Face hub files',
  'transformers-5': 'transformers 5 in memory',
  native: 'original LLaVA',
  single: 'one model',
};

/** What stands in the table for each part. */
const PARTS = {
  visionTower: 'vision tower',
  connector: 'connector',
  languageModel: 'language model',
  textTower: 'text tower',
  other: 'other',
} as const satisfies Record<Part, string>;

/** The description as lines of text. */
export function formatInfo(info: CheckpointInfo): string {
  const { parameters, memory } = info;
  const share = (count: number) => `${((100 * count) / parameters.total).toFixed(1)} %`;
  const parts = (Object.keys(PARTS) as Part[]).filter((part) => parameters[part] !== undefined);
  const table = alignColumns(
    [
      ['', 'parameters', ''],
      ...parts.map((part) => [PARTS[part], formatCount(parameters[part]!), share(parameters[part]!)]),
      ['total', formatCount(parameters.total), ''],
    ],
    (text) => text,
  );
  const rows: [string, string][] = [
    ['architecture', info.architecture],
    ['layout', LAYOUTS[info.layout]],
    [
      'stored as',
      Object.entries(info.dtypes)
        .map(([dtype, count]) => (Object.keys(info.dtypes).length === 1 ? dtype : `${dtype} (${share(count)})`))
        .join(', '),
    ],
    ['on disk', `${formatBytes(info.bytes.weights)} of weights, ${formatBytes(info.bytes.folder)} in all`],
    [
      'weights in memory',
      memory.run === memory.float32
        ? `${formatBytes(memory.float32)} in float32, ${formatBytes(memory.stored)} as stored`
        : `${formatBytes(memory.run)} as they are run, ${formatBytes(memory.float32)} were they float32`,
    ],
  ];
  if (memory.trainStage1 !== undefined && memory.trainStage2 !== undefined)
    rows.push(['to train', `stage 1 ${formatBytes(memory.trainStage1)}, stage 2 ${formatBytes(memory.trainStage2)}, without activations`]);
  const has = (present: boolean) => (present ? 'yes' : 'no');
  rows.push(
    ['tokenizer', has(info.tokenizer)],
    ['chat template', info.tokenizer && !info.chatTemplate ? "none, Gemma's is used" : has(info.chatTemplate)],
    ['image processor', has(info.imageProcessor)],
    ['licence', info.licence ?? 'no file'],
  );
  const width = Math.max(...rows.map(([label]) => label.length));
  return [info.folder, '', ...rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`), '', ...table].join('\n');
}

export interface InfoFlags {
  check?: boolean;
  json?: boolean;
}

/** Runs the command. */
export async function info(folder: string | undefined, { check, json }: InfoFlags): Promise<void> {
  if (folder === undefined) throw new UserError('info: give a folder, or --device');
  const described = await describeCheckpoint(resolvePath(folder, 'info'), { check });
  console.log(json ? JSON.stringify(described, null, 2) : formatInfo(described));
  for (const problem of described.problems) console.error(`warning: ${problem}`);
}
