// What `llava-gemma export` does.
import { existsSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { incompleteOf } from '../../checkpoint/checkpoint.ts';
import { isFolder } from '../../disk.ts';
import { hasWebgpuFloat16, openEngine } from '../../engine/devices.ts';
import { createOrtEngine } from '../../engine/ort.ts';
import { UserError } from '../../errors.ts';
import { exportHuggingFace, exportPeft } from '../../export/hugging-face.ts';
import { exportLlamaCpp, GGUF_DTYPES } from '../../export/llama-cpp.ts';
import { newFolder } from '../../export/new-folder.ts';
import { findPeers, findPython, startPeer } from '../../export/peer.ts';
import { exportBytes } from '../../export/size.ts';
import { type ExportSource, withExportSource } from '../../export/source.ts';
import { exportTransformersJs, ONNX_DTYPES, type OnnxDtype } from '../../export/transformers-js.ts';
import { LEAST_SEEN, type Tolerance, type Verification, verify } from '../../export/verify.ts';
import { resolvePath } from '../../paths.ts';
import { usualType } from '../../pretrained/convert.ts';
import { openModel } from '../../pretrained/folder.ts';
import { createStatusLine } from '../../runs/status.ts';
import { checkRoom } from '../disk.ts';
import { formatBytes } from '../format.ts';
import { withCleanup } from '../interrupt.ts';
import { floatTypeOf } from '../options.ts';

export interface ExportFlags {
  to: 'transformers.js' | 'llama.cpp' | 'huggingface' | 'peft';
  out: string;
  dtype?: string;
  adapter?: string;
  base?: string;
  baseFolder?: string;
  maxShardSize: number;
  classToken: 'first' | 'last';
  verify?: boolean;
  questions: number;
  peers?: string;
  device?: 'cpu' | 'webgpu';
}

/** Longest answer that is compared, in tokens. */
const ANSWER_TOKENS = 24;
/** Stages that are shown, beside the last. */
const DIGITS = 2;

const EXACT: Tolerance = { stages: 1e-4, logits: 1e-3, answers: 0.97 };
const ROUNDED: Tolerance = { stages: 0.05, logits: 0.02, isRelative: true, answers: 0.8 };
// measured on the bundled model: 0.02, 0.013 and 98 % in 8 bits, 0.13, 0.15 and 95 % in 4 (docs/export.md)
const EIGHT_BITS: Tolerance = { stages: 0.1, logits: 0.1, isRelative: true, answers: 0.8 };
const FOUR_BITS: Tolerance = { stages: 0.4, logits: 0.4, isRelative: true, answers: 0.7 };

// its GELU is a table of float16, and its image encoder has the class token in another place (docs/export.md)
const LLAMA_CPP: Tolerance = { stages: 0, logits: 0.01, answers: 0.8 };

/** How far each dtype may be from the model: what a wrong weight would exceed. */
const TOLERANCE: Readonly<Record<string, Tolerance>> = {
  ...{ fp32: EXACT, fp16: ROUNDED, q8: EIGHT_BITS, q4: FOUR_BITS, q4f16: FOUR_BITS },
  ...{ F32: LLAMA_CPP, F16: ROUNDED, BF16: ROUNDED, Q8_0: EIGHT_BITS, Q4_0: FOUR_BITS },
};

/** The peers of each software: their process in export/peers, and packages of npm or modules of Python. */
const PEERS: Readonly<Record<ExportFlags['to'], { process: string; packages?: readonly string[]; modules?: readonly string[] }>> = {
  'transformers.js': { process: 'transformers-js', packages: ['@huggingface/transformers'] },
  'llama.cpp': { process: 'llama-cpp', packages: ['node-llama-cpp', '@fugood/llama.node'] },
  huggingface: { process: 'hugging-face', modules: ['torch', 'transformers', 'PIL'] },
  peft: { process: 'hugging-face', modules: ['torch', 'transformers', 'PIL', 'peft'] },
};

/** Runs the command. */
export async function exportModel(model: string, given: ExportFlags): Promise<void> {
  const flags = { ...given, baseFolder: given.baseFolder ?? given.base };
  const dir = resolvePath(model, 'the model');
  const place = newFolder(flags.out);
  checkFlags(dir, flags);
  const peers = flags.verify ? peersOf(flags.to, flags.peers) : undefined;
  // a sentence where there is no adapter
  if (flags.verify && flags.device === 'webgpu') {
    await openEngine('webgpu');
    if (dtypesOf(flags).includes('fp16') && !(await hasWebgpuFloat16()))
      throw new UserError('--dtype fp16: the WebGPU adapter here has no float16 (shader-f16), which these files ask for; q4f16 does not');
  }
  const whole = <T>(work: () => Promise<T>) => withCleanup(() => rmSync(incompleteOf(place), { recursive: true, force: true }), work);
  const engine = createOrtEngine();
  const adapter = flags.adapter === undefined ? undefined : { folder: flags.adapter, engine };
  if (flags.to === 'peft') {
    const dtype = floatTypeOf(flags.dtype ?? 'float32');
    await whole(() => exportPeft(dir, flags.out, { dtype, base: flags.base }));
    console.log(`wrote ${flags.out}`);
    // merged weights have the type that frozen ones are stored in
    if (peers) await runPeer(dir, flags, peers, dtype, dtype === 'float32' && (await storedType(dir)) === dtype ? EXACT : ROUNDED);
    return;
  }
  const stored = await whole(() => withExportSource(dir, (source) => write(source, flags, adapter).then(() => source.dtype), { adapter }));
  console.log(`wrote ${flags.out}`);
  if (!peers) return;
  if (flags.to === 'huggingface') {
    const dtype = floatTypeOf(flags.dtype ?? stored);
    await runPeer(dir, flags, peers, dtype, dtype === stored || dtype === 'float32' ? EXACT : ROUNDED);
  } else for (const dtype of dtypesOf(flags)) await runPeer(dir, flags, peers, dtype, TOLERANCE[dtype]);
}

/** The float type of most weights of a folder. */
async function storedType(dir: string): Promise<string> {
  const model = await openModel(dir);
  try {
    return usualType(model);
  } finally {
    await model.close();
  }
}

function checkFlags(dir: string, { to, verify: isVerified, adapter, baseFolder, device }: ExportFlags): void {
  if (to !== 'peft' && baseFolder !== undefined)
    throw new UserError(`--base and --base-folder are for --to peft: ${to} holds a whole model`);
  if (adapter !== undefined && to === 'peft')
    throw new UserError('--adapter merges adapters, and --to peft writes them alone: give the folder as <model>');
  if (device !== undefined && !isVerified) throw new UserError('--device says what --verify runs on, which is not given');
  if (!isVerified) return;
  if (device !== undefined && to !== 'transformers.js') throw new UserError(`--device is of transformers.js: ${to} is run on the CPU`);
  if (to === 'peft' && !existsSync(join(dir, 'config.json')))
    throw new UserError(`--verify compares with the merged weights, and ${dir} has none: give the checkpoint of the stage`);
  if (to === 'peft' && (baseFolder === undefined || !isFolder(baseFolder)))
    throw new UserError(
      `--verify reads the model that the adapters go over: give its folder as --base-folder${baseFolder === undefined ? '' : ` (there is none at ${baseFolder})`}`,
    );
  if (adapter !== undefined)
    throw new UserError('--verify compares with the model as it is: merge the adapter first (llava-gemma merge), and export that');
}

/**
 * The folder of the peers, or the Python that has them. UserError that says how to install them where they
 * are not.
 */
function peersOf(to: ExportFlags['to'], peers: string | undefined): string {
  const { packages, modules } = PEERS[to];
  if (peers !== undefined && !isFolder(peers)) throw new UserError(`--peers ${peers}: there is no such folder`);
  const found = packages ? findPeers(packages, peers === undefined ? [process.cwd()] : [peers]) : findPython(modules!, peers);
  if (found !== undefined) return found;
  if (packages)
    throw new UserError(
      `--verify needs ${packages.join(' and ')}, not found from ${peers ?? 'here'}: npm install --no-save --ignore-scripts ${packages.join(' ')}, or give --peers`,
    );
  const names = modules!.map((name) => (name === 'PIL' ? 'pillow' : name)).join(' ');
  throw new UserError(
    `--verify needs ${names.replaceAll(' ', ', ')} in ${peers ?? 'python3'}: python3 -m venv peers && peers/bin/pip install ${names}, and give --peers peers`,
  );
}

/** The dtypes that are asked for. UserError for one that the software does not have. */
function dtypesOf({ to, dtype }: Pick<ExportFlags, 'to' | 'dtype'>): string[] {
  const known: readonly string[] = to === 'transformers.js' ? Object.keys(ONNX_DTYPES) : GGUF_DTYPES;
  const asked = (dtype ?? (to === 'transformers.js' ? 'fp32' : 'F16')).split(',');
  const unknown = asked.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UserError(`--dtype ${unknown}: ${to} has ${known.join(', ')}`);
  return [...new Set(asked)];
}

async function write(
  source: ExportSource,
  flags: ExportFlags,
  adapter: { folder: string; engine: ReturnType<typeof createOrtEngine> } | undefined,
) {
  const { to, out, maxShardSize, classToken } = flags;
  const onFile = (name: string, bytes: number) => console.log(`  ${name}: ${formatBytes(bytes)}`);
  const room = (dtypes: readonly string[]) =>
    checkRoom(out, exportBytes(source.config, to as Exclude<ExportFlags['to'], 'peft'>, dtypes), 'the files take');
  if (to === 'huggingface') {
    const dtype = flags.dtype === undefined ? source.dtype : floatTypeOf(flags.dtype);
    await room([dtype]);
    return exportHuggingFace(source, out, { dtype, maxShardSize, adapter });
  }
  const dtypes = dtypesOf(flags);
  await room(dtypes);
  if (to === 'llama.cpp') return exportLlamaCpp(source, out, { dtypes: dtypes as (typeof GGUF_DTYPES)[number][], classToken, onFile });
  return exportTransformersJs(source, out, { dtypes: dtypes as OnnxDtype[], maxShardSize, onFile });
}

/** Asks the software that `dtype` of the export is for, which `peersOf` has found. */
async function runPeer(
  dir: string,
  { to, out, baseFolder, ...flags }: ExportFlags,
  peers: string,
  dtype: string,
  tolerance: Tolerance,
): Promise<void> {
  const { process, packages } = PEERS[to];
  const status = createStatusLine();
  const peer = startPeer(process, packages ? undefined : peers);
  try {
    const verification = await verify(dir, peer, {
      load: { peers, folder: resolve(out), dtype, device: flags.device, ...(to === 'peft' ? { base: resolve(baseFolder!) } : {}) },
      tolerance,
      questions: flags.questions,
      maxNewTokens: ANSWER_TOKENS,
      onProgress: (done, total) => status.draw(`${dtype}: asked ${done} of ${total} questions`),
    });
    status.clear();
    report(dtype, verification);
  } finally {
    status.clear();
    peer.stop();
  }
}

function report(dtype: string, { peer, stages, seen, same, asked, interval, others }: Verification): void {
  console.log(`${dtype}: ${peer}`);
  const caches = stages.filter(({ name }) => name.startsWith('present.'));
  const worst = caches.toSorted((a, b) => b.difference - a.difference)[0];
  const shown = [
    ...stages.filter(({ name }) => !name.startsWith('present.') && !name.endsWith('logits')),
    ...(worst ? [worst] : []),
    ...stages.filter(({ name }) => name.endsWith('logits')),
  ];
  for (const { name, difference, limit, isRelative } of shown)
    console.log(
      `  ${worst?.name === name ? `keys and values, at most (${name})` : name}: differs by ${difference.toExponential(DIGITS - 1)}${isRelative && limit > 0 ? ' of the largest' : ''} (at most ${limit})`,
    );
  const percent = (share: number) => (100 * share).toFixed(1);
  console.log(
    `  answers: ${same} of ${asked} the same, ${percent(same / asked)} % (95 % interval ${percent(interval.low)} to ${percent(interval.high)})`,
  );
  const few = seen.of < LEAST_SEEN ? ', too few to tell whether it sees them: ask more --questions' : '';
  console.log(`  pictures: another one changes ${seen.of} answers here, and ${seen.changed} of these there${few}`);
  for (const { question, ours, theirs } of others)
    console.log(`    ${JSON.stringify(question.split('\n')[0])}: ${JSON.stringify(ours)} here, ${JSON.stringify(theirs)} there`);
}
