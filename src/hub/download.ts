// Downloads a model's files from the hub into a folder. Each is first written under a name that holds the
// digest of its content, so that an interrupted download resumes and never mixes two versions. Files get
// their own names once all are complete: a folder holds no model, the old one, or the new one. A folder has
// one pull at a time: two would append to the same files.
import { createHash } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readJsonFile, readShardIndex } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { type FolderLock, lockFolder, lockPattern } from '../folder-lock.ts';
import { writeFileAtomically } from '../weights/safetensors.ts';
import type { HubFile, HubRepo, Snapshot } from './hub.ts';

/** Says in a folder which model it holds. */
export const PULL_RECORD = 'hub.json';

const CONFIG = 'config.json';
const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';

const FURTHER_FILES = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
  'preprocessor_config.json',
  'processor_config.json',
];

/** License files, which must stay with the weights by law, and the model card. */
const LEGAL_AND_README = /^(LICEN[CS]E|COPYING|NOTICE|README)[\w.-]*$/i;

/** At first written without revision and commit; with them, it says that everything is there. */
interface PullRecord {
  repo: string;
  revision?: string;
  commit?: string;
  files: string[];
}

/** What a caller may show. */
export interface PullWatch {
  /** A piece of `file` came; `done` bytes of it are there now, some perhaps from an earlier pull. */
  received(file: HubFile, done: number, piece: number): void;
  /** `wasThere` where nothing had to be downloaded. */
  finished(file: HubFile, wasThere: boolean): void;
  /** Before a file that lies on disk is read to see whether it is the right one. */
  checking(file: HubFile): void;
}

export interface PullOptions {
  repo: HubRepo;
  revision: string;
  dir: string;
  signal: AbortSignal;
  watch: PullWatch;
  /** Called with the bytes still to come, when they are known; throws where there is no room. */
  plan(bytes: number): Promise<void>;
  /** Is told while it is unknown whether another pull goes on in the folder. */
  note(text: string): void;
}

export interface Pulled {
  commit: string;
  files: HubFile[];
  /** Whether the folder held all of it before. */
  wasThere: boolean;
}

/** Throws UserError where `dir` holds something else than this model: nothing of it may be replaced. */
export async function checkPullFolder(dir: string, repo: string): Promise<PullRecord> {
  const fresh: PullRecord = { repo, files: [] };
  if (!existsSync(dir)) return fresh;
  if (!statSync(dir).isDirectory()) throw new UserError(`${dir} is a file; give another folder`);
  const names = (await readdir(dir)).filter((name) => !lockPattern.test(name));
  if (names.length === 0) return fresh;
  if (!names.includes(PULL_RECORD)) throw new UserError(`${dir} holds ${names[0]} and was not pulled from the hub; give another folder`);
  const path = join(dir, PULL_RECORD);
  const record = (await readJsonFile(path)) as Partial<PullRecord> | null;
  if (typeof record?.repo !== 'string' || !Array.isArray(record.files))
    throw new UserError(`${path} was not written by pull; give another folder`);
  if (record.repo !== repo) throw new UserError(`${dir} holds ${record.repo}; give another folder for ${repo}`);
  return record as PullRecord;
}

/** The files to download, without shards: these are in the index, if there is one. */
export function chooseFiles(repo: string, { files }: Snapshot): { plain: HubFile[]; index?: HubFile } {
  const named = (name: string) => files.find((file) => file.name === name);
  const config = named(CONFIG);
  if (!config) throw new UserError(`${repo} has no ${CONFIG}: it is no model in the format of Hugging Face transformers`);
  const further = files.filter(({ name }) => FURTHER_FILES.includes(name) || LEGAL_AND_README.test(name));
  // as a folder is read: where both are, the single file counts
  const single = named(SINGLE);
  if (single) return { plain: [config, ...further, single] };
  const index = named(INDEX);
  if (index) return { plain: [config, ...further], index };
  const other = files.find(({ name }) => /\.(safetensors|bin|pt|pth|gguf|onnx|msgpack|h5|ckpt)$/.test(name));
  throw new UserError(
    `${repo} has neither ${SINGLE} nor ${INDEX}${other ? `, only ${other.name}, which is not read` : ''}; ` +
      `if its page offers a safetensors version as a pull request, take that with --revision refs/pr/NUMBER`,
  );
}

/** The shards that the index names, and no others that the model may hold beside them. */
async function chooseShards(repo: string, { files }: Snapshot, indexPath: string): Promise<HubFile[]> {
  const names = new Set((await readShardIndex(indexPath)).values());
  return [...names].map((name) => {
    const shard = files.find((file) => file.name === name);
    if (!shard || !name.endsWith('.safetensors')) throw new UserError(`${repo}: ${INDEX} names ${name}, which is not among its weights`);
    return shard;
  });
}

/** The digest of content so far. */
function createDigest({ bytes, digest }: HubFile): { update(piece: Uint8Array): void; isRight(): boolean } {
  if (!digest) return { update: () => {}, isRight: () => true };
  const hash = createHash(digest.algorithm === 'sha256' ? 'sha256' : 'sha1');
  if (digest.algorithm === 'git-sha1') hash.update(`blob ${bytes}\0`);
  return { update: (piece) => hash.update(piece), isRight: () => hash.digest('hex') === digest.hex };
}

const sizeOf = async (path: string) => (await stat(path).catch(() => undefined))?.size;

/**
 * Downloads the files of a model that this project reads, except those that are in the folder already. Files
 * of an older version are replaced, and those that the model no longer has are removed. Throws UserError,
 * also where another pull into the folder goes on, or the reason of `signal`; the same call then resumes.
 */
export async function pullModel(options: PullOptions): Promise<Pulled> {
  const { repo, dir, signal, note } = options;
  await checkPullFolder(dir, repo.repo);
  const snapshot = await repo.snapshot();
  const chosen = chooseFiles(repo.repo, snapshot);
  const lock = await lockFolder(dir, { writer: 'pull', note });
  try {
    return await pullFiles(options, lock, snapshot, chosen);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (signal.aborted || error instanceof UserError || code === undefined) throw error;
    const full = code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG';
    throw new UserError(
      full ? `${dir}: the disk is full; free some space, and the same command goes on from there` : `${dir}: cannot write it: ${message}`,
    );
  } finally {
    await lock.release();
  }
}

async function pullFiles(
  options: PullOptions,
  lock: FolderLock,
  snapshot: Snapshot,
  { plain, index }: ReturnType<typeof chooseFiles>,
): Promise<Pulled> {
  const { repo, revision, dir, plan } = options;
  const { commit } = snapshot;
  const record = await checkPullFolder(dir, repo.repo);
  const jobOf = (file: HubFile) => planFile(options, record, commit, file);
  const saveRecord = (contents: PullRecord) =>
    writeFileAtomically(join(dir, PULL_RECORD), [Buffer.from(`${JSON.stringify(contents, null, 2)}\n`)]);
  // an index is needed before the shards that it names
  const indexJob = index && (await jobOf(index));
  if (indexJob) {
    await saveRecord({ repo: repo.repo, files: record.files });
    await fetchFile(options, commit, indexJob);
  }
  const shards = indexJob ? await chooseShards(repo.repo, snapshot, indexJob.isThere ? indexJob.path : indexJob.partial) : [];
  const jobs: Job[] = [];
  for (const file of [...plain.filter(({ name }) => name !== CONFIG), ...shards]) jobs.push(await jobOf(file));
  // last, so that a folder without them is no model yet
  if (indexJob) jobs.push(indexJob);
  jobs.push(await jobOf(plain.find(({ name }) => name === CONFIG)!));

  const names = jobs.map(({ file }) => file.name);
  const outdated = record.files.filter((name) => !names.includes(name) && !/[/\\]/.test(name) && existsSync(join(dir, name)));
  const wasThere = jobs.every(({ isThere }) => isThere) && outdated.length === 0;
  await saveRecord({ repo: repo.repo, files: [...new Set([...record.files, ...names])] });
  await removeLeftovers(dir, jobs);
  await plan(jobs.reduce((sum, { file, isThere, done }) => sum + (isThere ? 0 : file.bytes - done), 0));
  for (const job of jobs) if (job !== indexJob) await fetchFile(options, commit, job);

  lock.check();
  const namesModel = ({ file }: Job) => [CONFIG, INDEX].includes(file.name);
  await putInPlace(jobs.filter((job) => !namesModel(job)));
  for (const name of outdated) await rm(join(dir, name));
  await putInPlace(jobs.filter(namesModel));
  await saveRecord({ repo: repo.repo, revision, commit, files: names });
  return { commit, files: jobs.map(({ file }) => file), wasThere };
}

/** One file on its way into the folder. */
interface Job {
  file: HubFile;
  path: string;
  partial: string;
  /** Whether the file is in its place already. */
  isThere: boolean;
  /** Bytes in `partial`. */
  done: number;
}

async function planFile(options: PullOptions, record: PullRecord, commit: string, file: HubFile): Promise<Job> {
  const path = join(options.dir, file.name);
  // without a digest, only what comes from this very commit is the same
  const partial = `${path}.${(file.digest?.hex ?? commit).slice(0, 12)}.incomplete`;
  const isThere = (file.digest !== undefined || record.commit === commit) && (await isSame(path, file, options));
  if (((await sizeOf(partial)) ?? 0) > file.bytes) await rm(partial);
  return { file, path, partial, isThere, done: (await sizeOf(partial)) ?? 0 };
}

/** Whether the file at `path` has the length of `file`, and its digest where there is one. */
async function isSame(path: string, file: HubFile, options: PullOptions): Promise<boolean> {
  if ((await sizeOf(path)) !== file.bytes) return false;
  const digest = createDigest(file);
  await readInto(path, file, digest.update, options);
  return digest.isRight();
}

/** Removes parts of files of other versions. */
async function removeLeftovers(dir: string, jobs: readonly Job[]): Promise<void> {
  const partials = jobs.map(({ partial }) => partial);
  for (const name of await readdir(dir))
    if (/\.[0-9a-f]{12}\.incomplete$/.test(name) && !partials.includes(join(dir, name))) await rm(join(dir, name));
}

async function putInPlace(jobs: readonly Job[]): Promise<void> {
  for (const { isThere, partial, path } of jobs) if (!isThere) await rename(partial, path);
}

async function readInto(path: string, file: HubFile, update: (piece: Uint8Array) => void, { watch, signal }: PullOptions): Promise<void> {
  watch.checking(file);
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    signal.throwIfAborted();
    update(piece);
  }
}

/** Downloads what is not there of a file, and checks the whole. */
async function fetchFile(options: PullOptions, commit: string, job: Job): Promise<void> {
  const { repo, watch } = options;
  const { file, path, partial, isThere, done: begun } = job;
  if (isThere) return watch.finished(file, true);
  let digest = createDigest(file);
  if (begun > 0) await readInto(partial, file, digest.update, options);
  const handle = await open(partial, 'a');
  let size: number;
  try {
    await repo.persist(
      async () => {
        if (job.done >= file.bytes) return;
        const { from, pieces } = await repo.read(commit, file.name, job.done);
        if (from !== job.done) {
          await handle.truncate(0);
          digest = createDigest(file);
          job.done = 0;
        }
        for await (const piece of pieces) {
          await handle.appendFile(piece);
          digest.update(piece);
          job.done += piece.length;
          if (job.done > file.bytes) break;
          watch.received(file, job.done, piece.length);
        }
      },
      () => job.done,
    );
    await handle.sync();
    size = (await handle.stat()).size;
  } finally {
    await handle.close();
  }
  // the digest is of what came: what lies there must be that and no more
  const isWhole = job.done === file.bytes && size === file.bytes;
  if (!isWhole || !digest.isRight()) {
    await rm(partial, { force: true });
    const what = isWhole ? `another ${file.digest?.algorithm} than` : `another length than the ${file.bytes} bytes that`;
    throw new UserError(`${path}: what came has ${what} the hub says; it was removed, and the same command fetches it again`);
  }
  watch.finished(file, begun === file.bytes);
}
