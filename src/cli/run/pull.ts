// What `llava-gemma pull` does. What is there is not downloaded again, and what broke off goes on.
import { openCheckpoint } from '../../checkpoint/checkpoint.ts';
import { UserError } from '../../errors.ts';
import { checkPullFolder, type PullOptions, pullModel } from '../../hub/download.ts';
import { checkRepoName, findHubToken, hubEndpoint, isRepoName, openHubRepo } from '../../hub/hub.ts';
import { isNativeConfig } from '../../models/hub-config.ts';
import { createStatusLine, formatDuration, type StatusLine } from '../../runs/status.ts';
import { checkRoom } from '../disk.ts';
import { formatBytes } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';

export interface PullFlags {
  revision: string;
  out?: string;
  token?: string;
}

/** Seconds between two lines where there is no terminal. */
const PLAIN_SECONDS = 30;

const defaultFolder = (repo: string) => `models/${repo}`;

/** Runs the command. */
export async function pull(name: string, { revision, out = defaultFolder(name), token }: PullFlags): Promise<void> {
  checkRepoName(name);
  const access = { endpoint: hubEndpoint(), token: await findHubToken(token) };
  await checkPullFolder(out, name);
  const status = createStatusLine();
  const { commit, files, wasThere } = await withInterrupt(
    (signal) =>
      pullModel({
        repo: openHubRepo({
          repo: name,
          revision,
          ...access,
          signal,
          onPause: (reason, seconds) => status.note(`${reason}; trying again in ${seconds} s`),
        }),
        revision,
        dir: out,
        signal,
        note: status.note,
        ...watchOn(status, (bytes) => checkRoom(out, bytes, 'what is to be downloaded takes')),
      }),
    'the same command goes on from there',
  ).finally(status.clear);
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const model = `${name} at ${commit.slice(0, 12)}`;
  console.log(wasThere ? `${out} already holds ${model}` : `pulled ${model} into ${out} (${files.length} files, ${formatBytes(bytes)})`);
  console.log(`\nWhat it is:  llava-gemma info ${out}`);
  const advice = await towerAdvice(out);
  if (advice) console.log(`\n${advice}`);
}

/** How to get the vision tower of an original LLaVA folder that only names it. */
async function towerAdvice(folder: string): Promise<string | undefined> {
  let names: string[];
  let config: unknown;
  try {
    const checkpoint = await openCheckpoint(folder);
    ({ names, config } = checkpoint);
    await checkpoint.close();
  } catch (error) {
    // what is wrong with a model is for info to say
    if (error instanceof UserError) return undefined;
    throw error;
  }
  if (!isNativeConfig(config) || typeof config.mm_vision_tower !== 'string' || names.some((tensor) => tensor.startsWith('vision_tower.')))
    return undefined;
  const tower = config.mm_vision_tower;
  const dtype = ['float32', 'bfloat16'].includes(String(config.torch_dtype)) ? ` --dtype ${config.torch_dtype}` : '';
  const [get, at] = isRepoName(tower) ? [`  llava-gemma pull ${tower}\n`, defaultFolder(tower)] : ['', 'FOLDER'];
  return `Its vision tower, ${tower}, is in another folder. To join both:\n${get}  llava-gemma convert ${folder} ${folder}-joined --vision-tower ${at}${dtype}`;
}

/** Shows on `status` what a pull does. */
function watchOn(status: StatusLine, checkRoomFor: (bytes: number) => Promise<void>): Pick<PullOptions, 'watch' | 'plan'> {
  let left = 0;
  let received = 0;
  let startedAt = 0;
  let printedAt = 0;
  return {
    async plan(bytes) {
      await checkRoomFor(bytes);
      left = bytes;
      received = 0;
      if (bytes > 0) status.note(`${formatBytes(bytes)} to download`);
      startedAt = printedAt = performance.now() / 1000;
    },
    watch: {
      checking: ({ name }) => status.draw(`${name}  checking`),
      received({ name, bytes }, done, piece) {
        received += piece;
        // the index comes before there is a plan
        if (startedAt === 0) return;
        const now = performance.now() / 1000;
        const rate = received / Math.max(now - startedAt, 1e-3);
        const line = [
          name,
          `${formatBytes(done)} of ${formatBytes(bytes)}`,
          `${formatBytes(Math.round(rate))}/s`,
          `ETA ${formatDuration(Math.max(0, left - received) / rate)}`,
        ].join('  ');
        status.draw(line);
        if (status.isInPlace || now - printedAt < PLAIN_SECONDS) return;
        status.note(line);
        printedAt = now;
      },
      finished: ({ name, bytes }, wasThere) => status.note(`${name}  ${formatBytes(bytes)}${wasThere ? ', there already' : ''}`),
    },
  };
}
