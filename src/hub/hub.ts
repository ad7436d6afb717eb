// A model on the Hugging Face hub: its commit, its files, and their bytes from any offset. @huggingface/hub
// lists the files. Bytes are requested here, because its download helpers restart a file from the beginning
// when the connection breaks.
import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { UserError } from '../errors.ts';
import { isTransientStatus, networkErrorOf, persist as repeat, retryAfterOf, TransientError } from '../retry.ts';

export interface HubToken {
  value: string;
  /** Where it was found, for messages, which never show the value. */
  source: string;
}

/** A file of a model and the digest of its content: sha256 of a file in LFS, else git's sha1 of the blob. */
export interface HubFile {
  name: string;
  bytes: number;
  digest?: { algorithm: 'sha256' | 'git-sha1'; hex: string };
}

export interface Snapshot {
  commit: string;
  /** Those at the root. */
  files: HubFile[];
}

export interface HubRepo {
  repo: string;
  snapshot(): Promise<Snapshot>;
  /**
   * Bytes of a file starting at `from`. A server without ranges starts at 0 instead, which the result says.
   */
  read(commit: string, name: string, from: number): Promise<{ from: number; pieces: AsyncGenerator<Uint8Array> }>;
  /**
   * Repeats `work` while the hub is in trouble. Whenever `reached` has grown, there was progress and the
   * count of tries restarts.
   */
  persist<T>(work: () => Promise<T>, reached?: () => number): Promise<T>;
}

export interface HubRepoOptions {
  repo: string;
  /** A branch, a tag or a commit. */
  revision: string;
  endpoint: string;
  token?: HubToken;
  signal: AbortSignal;
  onPause?(reason: string, seconds: number): void;
}

const HUB = 'https://huggingface.co';

/** Seconds to wait before each further try. */
const PAUSES = [1, 2, 4, 8, 16];

/** A connection that is silent for this long counts as lost. */
const SILENCE_MS = 60_000;

type Environment = Record<string, string | undefined>;

/** The hub's address: `HF_ENDPOINT` as Hugging Face's own software reads it, for mirrors. */
export function hubEndpoint(env: Environment = process.env): string {
  const endpoint = (env.HF_ENDPOINT || HUB).replace(/\/+$/, '');
  if (!/^https?:\/\/[^/]/.test(endpoint) || !URL.canParse(endpoint))
    throw new UserError(`HF_ENDPOINT is ${JSON.stringify(endpoint)}; it must be an address such as ${HUB}`);
  return endpoint;
}

/**
 * The token that was given, else `HF_TOKEN`, else the one that Hugging Face's command line has stored.
 * UserError for a malformed one.
 */
export async function findHubToken(given?: string, env: Environment = process.env): Promise<HubToken | undefined> {
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
  const path = env.HF_TOKEN_PATH || join(home, 'token');
  const found: [string, string | undefined][] = [
    ['--token', given],
    ['HF_TOKEN', env.HF_TOKEN],
  ];
  if (!found.some(([, text]) => text?.trim())) found.push([path, await readFile(path, 'utf8').catch(() => undefined)]);
  for (const [source, text] of found) {
    const value = text?.trim();
    if (!value) continue;
    // fetch would refuse it, and show it in its message
    if (!/^[\x21-\x7e]+$/.test(value)) throw new UserError(`the token from ${source} holds characters that no token has; copy it again`);
    return { value, source };
  }
  return undefined;
}

/** Whether it may be a model's name on the hub: `owner/name`, or a plain name as the oldest models have. */
export function isRepoName(name: string): boolean {
  return /^(\w[\w.-]*\/)?\w[\w.-]*$/.test(name) && !/\.\.|--|[.-](\/|$)/.test(name) && name.split('/').every(({ length }) => length <= 96);
}

/** Throws UserError where it is none. */
export function checkRepoName(repo: string): void {
  if (isRepoName(repo)) return;
  const [, inAddress] = /^https?:\/\/[^/]+\/([\w.-]+\/[\w.-]+)/.exec(repo) ?? [];
  throw new UserError(
    `${JSON.stringify(repo)} is no name of a model on the hub; ${inAddress ? `write ${inAddress}` : 'it must be like Intel/llava-gemma-2b'}`,
  );
}

/** What went wrong below fetch. */
const reasonOf = (error: unknown) => networkErrorOf(error).message;

/** The error that a response with an error status means. */
function refusal(response: Response, { endpoint, repo, revision, token }: HubRepoOptions): Error {
  const { status, headers } = response;
  const page = `${endpoint}/${repo}`;
  const code = headers.get('x-error-code');
  // the hub gives addresses of its store that expire after some minutes
  const isElsewhere = code === null && response.url !== '' && new URL(response.url).origin !== new URL(endpoint).origin;
  if (isTransientStatus(status) || isElsewhere)
    return new TransientError(
      `${isElsewhere ? new URL(response.url).origin : endpoint} answers with status ${status}`,
      retryAfterOf(headers),
    );
  if (code === 'RevisionNotFound') return new UserError(`${repo} has no revision ${JSON.stringify(revision)}; its page is ${page}`);
  if (code === 'GatedRepo' || status === 403) {
    const how = token
      ? `with the account of the token from ${token.source}, and let the token read gated models`
      : 'and give a token (--token, HF_TOKEN, or hf auth login)';
    return new UserError(`${repo} is only for those who accept its licence: accept it at ${page} ${how}`);
  }
  if (status === 401 && token && code !== 'RepoNotFound')
    return new UserError(`${endpoint} refuses the token from ${token.source}; make one at ${endpoint}/settings/tokens`);
  // those who may not see a model are told that it does not exist
  if (status === 401 || code === 'RepoNotFound' || (status === 404 && code === null)) {
    const advice = token ? `the token from ${token.source} may not see it` : 'it is private, which takes a token (--token or HF_TOKEN)';
    return new UserError(`${endpoint} has no model ${repo}, or ${advice}`);
  }
  if (status === 404) return new UserError(`${response.url || page}: there is no such file any more; the same command looks again`);
  return new UserError(`${response.url || page}: ${endpoint} answers with status ${status}`);
}

/** A model on the hub. Every error that a person can do something about is a UserError. */
export function openHubRepo(options: HubRepoOptions): HubRepo {
  const { repo, endpoint, signal } = options;
  const request = createRequest(options);
  const persist = createPersistence(options);
  return {
    repo,
    persist,
    snapshot: () =>
      persist(async () => {
        try {
          return await listFilesOf(options, request);
        } catch (error) {
          if (signal.aborted || error instanceof UserError || error instanceof TransientError) throw error;
          // a network's log-in page ends here too
          throw new UserError(`${endpoint} does not answer as the hub does: ${reasonOf(error)}`);
        }
      }),
    read: (commit, name, from) => readFrom(options, request, commit, name, from),
  };
}

type Request = (input: string | URL | globalThis.Request, init?: RequestInit) => Promise<Response>;

/** `fetch` with the hub's token; refusals and lost connections become errors that say what to do. */
function createRequest(options: HubRepoOptions): Request {
  const { repo, endpoint, token, signal } = options;
  const { origin } = new URL(endpoint);
  let answered = false;
  return async (input, init = {}) => {
    const url = new URL(input instanceof globalThis.Request ? input.url : input);
    const headers = new Headers(init.headers);
    headers.set('user-agent', 'llava-gemma');
    // the token goes to the hub only, whatever address a listing continues at
    if (token && url.origin === origin) headers.set('authorization', `Bearer ${token.value}`);
    const silence = init.signal ?? AbortSignal.timeout(SILENCE_MS);
    let response: Response;
    try {
      response = await fetch(url, { ...init, headers, signal: AbortSignal.any([signal, silence]) });
    } catch (error) {
      signal.throwIfAborted();
      if (answered) throw new TransientError(reasonOf(error));
      throw new UserError(`cannot reach ${endpoint}: ${reasonOf(error)}; download ${repo} on another machine and copy the folder`);
    }
    answered = true;
    if (!response.ok && response.status !== 416) {
      await response.body?.cancel();
      throw refusal(response, options);
    }
    return response;
  };
}

/** `HubRepo.persist`. */
function createPersistence({ signal, onPause }: HubRepoOptions): HubRepo['persist'] {
  const gaveUp = (reason: string, tries: number) =>
    new UserError(`the download broke off: ${reason}, ${tries} times; the same command goes on from there`);
  return (work, reached) => repeat(work, { pauses: PAUSES, signal, reached, onPause, gaveUp });
}

/** The commit that a revision stands for, and its files. */
async function listFilesOf({ repo, revision, endpoint, signal }: HubRepoOptions, request: Request): Promise<Snapshot> {
  /** For small responses: a connection that breaks halfway is the same trouble as one that was never made. */
  const requestWhole: Request = async (input, init) => {
    const response = await request(input, init);
    try {
      return new Response(await response.arrayBuffer(), { headers: response.headers });
    } catch (error) {
      signal.throwIfAborted();
      throw new TransientError(reasonOf(error));
    }
  };
  const { listFiles, modelInfo } = await import('@huggingface/hub');
  const to = { hubUrl: endpoint, fetch: requestWhole };
  const { sha } = await modelInfo({ ...to, name: repo, revision, additionalFields: ['sha'] });
  if (!/^[0-9a-f]{7,64}$/.test(sha)) throw new Error(`its commit is ${JSON.stringify(sha)}`);
  const files: HubFile[] = [];
  for await (const entry of listFiles({ ...to, repo: { type: 'model', name: repo }, revision: sha })) {
    if (entry.type !== 'file') continue;
    // nobody wants anything of such a repository on disk
    if (/^\/|\\|^[a-z]:|(^|\/)\.\.?(\/|$)|\0/i.test(entry.path))
      throw new UserError(
        `${repo} lists a file named ${JSON.stringify(entry.path)}, which points out of its folder; nothing was downloaded`,
      );
    if (entry.path.includes('/')) continue;
    files.push({ name: entry.path, bytes: entry.lfs?.size ?? entry.size, digest: digestOf(entry) });
  }
  return { commit: sha, files };
}

/** `HubRepo.read`. */
async function readFrom(
  { repo, endpoint, signal }: HubRepoOptions,
  request: Request,
  commit: string,
  name: string,
  from: number,
): ReturnType<HubRepo['read']> {
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(new Error(`nothing came for ${SILENCE_MS / 1000} seconds`)), SILENCE_MS);
  const ask = (start: number) =>
    request(`${endpoint}/${repo}/resolve/${commit}/${encodeURIComponent(name)}`, {
      // a compressed response has another length
      headers: { 'accept-encoding': 'identity', ...(start > 0 ? { range: `bytes=${start}-` } : {}) },
      signal: silence.signal,
    });
  try {
    let response = await ask(from);
    if (response.status === 416 && from > 0) {
      await response.body?.cancel();
      response = await ask(0);
    }
    const start = response.status === 206 ? Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1]) : 0;
    if (start !== from && start !== 0) {
      await response.body?.cancel();
      throw new UserError(`${endpoint} sends ${name} from byte ${start} on where byte ${from} was asked for`);
    }
    return { from: start, pieces: piecesOf(response, timer, signal) };
  } catch (error) {
    clearTimeout(timer);
    throw error;
  }
}

/** The body of a response; each piece restarts `timer`. */
async function* piecesOf(response: Response, timer: NodeJS.Timeout, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  try {
    while (reader) {
      const { done, value } = await reader.read().catch((error) => {
        signal.throwIfAborted();
        throw new TransientError(reasonOf(error));
      });
      if (done) return;
      timer.refresh();
      yield value;
    }
  } finally {
    clearTimeout(timer);
    await reader?.cancel().catch(() => {});
  }
}

function digestOf({ oid, lfs, xetHash }: { oid?: string; lfs?: { oid: string }; xetHash?: string }): HubFile['digest'] {
  if (lfs) return /^[0-9a-f]{64}$/.test(lfs.oid) ? { algorithm: 'sha256', hex: lfs.oid } : undefined;
  // without `lfs`, the oid of a file in the newer store would be that of a pointer
  return xetHash === undefined && oid !== undefined && /^[0-9a-f]{40}$/.test(oid) ? { algorithm: 'git-sha1', hex: oid } : undefined;
}
