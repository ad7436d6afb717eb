// A model's folder, opened for modules that read files: from a server, from files that were chosen or
// dropped, or from a folder that the person gave access to. Weights are read in parts when they are needed.

import { MODEL_FILES, WEIGHTS_FILE, WEIGHTS_INDEX } from '../checkpoint/model-files.ts';
import { UserError } from '../errors.ts';
import { filesBelow, isFolderAt, putFile, removeAt } from './files.ts';
import { ask, blobSource, bytesSource, type FileSource, type HttpOptions, httpSource } from './sources.ts';

export interface Folder {
  readonly name: string;
  /** Where modules find it. */
  readonly path: string;
  /** Bytes of all its files. */
  readonly bytes: number;
  /** Forgets its files. */
  close(): void;
}

/** What a folder is opened from: a URL, files, or a handle (`showDirectoryPicker`). */
export type FolderOrigin = string | URL | FileList | readonly File[] | FileSystemDirectoryHandle;

export interface OpenFolderOptions extends HttpOptions {
  /** Names of its files on a server, so that it is not asked for others. Default: those that models have. */
  files?: readonly string[];
  /** Is told how much of the weights has been read, in bytes. */
  onProgress?(done: number, total: number): void;
}

/** What a model's folder may have. */
const KNOWN_FILES = [...MODEL_FILES, WEIGHTS_INDEX, WEIGHTS_FILE];

const isWeights = (name: string) => name.endsWith('.safetensors');

/** Opens a model's folder. UserError, naming the file, for what cannot be read. */
export async function openFolder(origin: FolderOrigin, options: OpenFolderOptions = {}): Promise<Folder> {
  const { name, files } = await listed(origin, options);
  if (!files.has('config.json')) throw new UserError(`${name}: there is no config.json: it is no model's folder`);
  return mount(name, files, options.onProgress);
}

function listed(origin: FolderOrigin, options: OpenFolderOptions) {
  if (typeof origin === 'string' || origin instanceof URL) return onServer(new URL(origin, location.href), options);
  // not every browser has the class
  if ('kind' in origin) return inHandle(origin);
  return chosen([...origin]);
}

interface Listed {
  name: string;
  files: Map<string, FileSource>;
}

// === From a server ===

async function onServer(url: URL, { files: names = KNOWN_FILES, ...options }: OpenFolderOptions): Promise<Listed> {
  const placeOf = (name: string): string => {
    const place = new URL(url);
    place.pathname = `${place.pathname.replace(/\/$/, '')}/${name}`;
    place.hash = '';
    return place.href;
  };
  const files = new Map<string, FileSource>();
  const isListed = names !== KNOWN_FILES;
  const add = async (name: string, isNamed: boolean) => {
    const source = await (isWeights(name) ? weightsOn(placeOf(name), options) : textOn(placeOf(name), options));
    if (source) files.set(name, source);
    else if (isNamed) throw new UserError(`${placeOf(name)}: the server has no such file`);
  };
  const isWhole = (name: string) => name === WEIGHTS_FILE;
  await Promise.all(names.filter((name) => !isWhole(name)).map((name) => add(name, isListed)));
  const index = files.get(WEIGHTS_INDEX)?.bytes;
  const shards = index ? shardsOf(index) : names.filter(isWhole);
  await Promise.all(shards.filter((name) => !files.has(name)).map((name) => add(name, isListed || index !== undefined)));
  return { name: url.pathname.split('/').findLast((part) => part !== '') ?? url.host, files };
}

/** Files that an index names. What is wrong with it is told by who reads it. */
function shardsOf(index: Uint8Array): string[] {
  try {
    const { weight_map } = JSON.parse(new TextDecoder().decode(index)) as { weight_map: Record<string, string> };
    return [...new Set(Object.values(weight_map))].filter((name) => /^[\w.-]+$/.test(name));
  } catch {
    return [];
  }
}

/**
 * Whether a server says that there is no such file; some send their first page instead, and stores that list
 * nothing refuse. UserError for any other answer: without one of its files, a model would answer otherwise.
 */
function isAbsent({ url, ok, status, headers }: Response): boolean {
  if (ok) return headers.get('Content-Type')?.startsWith('text/html') === true;
  const isOptional = !/\/config\.json(\?|$)/.test(url);
  if (status === 404 || status === 410 || (status === 403 && isOptional)) return true;
  throw new UserError(`${url}: the server answered ${status}${status === 401 || status === 403 ? ': does it want a key (headers)?' : ''}`);
}

async function textOn(url: string, { signal, headers }: HttpOptions): Promise<FileSource | undefined> {
  const response = await ask(url, { signal, headers });
  return isAbsent(response) ? undefined : bytesSource(new Uint8Array(await response.arrayBuffer()));
}

/** Weights are read in parts; from a server that sends no parts, they are taken whole. */
async function weightsOn(url: string, { signal, headers }: HttpOptions): Promise<FileSource | undefined> {
  const response = await ask(url, { signal, headers: { ...headers, Range: 'bytes=0-0' } });
  if (isAbsent(response)) return undefined;
  if (response.status !== 206) return blobSource(await response.blob());
  await response.arrayBuffer();
  const size = Number(/\/(\d+)$/.exec(response.headers.get('Content-Range') ?? '')?.[1] ?? (await sizeOn(url, { signal, headers })));
  const etag = response.headers.get('ETag') ?? undefined;
  if (!(size > 0)) throw new UserError(`${url}: the server does not say how large the file is (Content-Range)`);
  return httpSource(url, size, { signal, headers, etag });
}

const sizeOn = async (url: string, init: HttpOptions) => (await ask(url, { ...init, method: 'HEAD' })).headers.get('Content-Length');

// === From this machine ===

async function inHandle(handle: FileSystemDirectoryHandle): Promise<Listed> {
  const files = new Map<string, File>();
  for await (const [name, entry] of handle as unknown as AsyncIterable<[string, FileSystemHandle]>)
    if (entry.kind === 'file') files.set(name, await (entry as FileSystemFileHandle).getFile());
  return { name: handle.name, files: await sourcesOf(files) };
}

/** Of chosen files, those beside the config.json that lies highest. */
async function chosen(files: readonly File[]): Promise<Listed> {
  const pathOf = (file: File) => file.webkitRelativePath || file.name;
  const configs = files.map(pathOf).filter((path) => path.split('/').at(-1) === 'config.json');
  const [config = 'config.json'] = configs.sort((a, b) => a.split('/').length - b.split('/').length);
  const folder = config.slice(0, config.lastIndexOf('/') + 1);
  const own = new Map<string, File>();
  for (const file of files) if (pathOf(file) === folder + file.name) own.set(file.name, file);
  return { name: folder.split('/').at(-2) ?? 'model', files: await sourcesOf(own) };
}

async function sourcesOf(files: ReadonlyMap<string, File>): Promise<Map<string, FileSource>> {
  const sources = new Map<string, FileSource>();
  for (const [name, file] of files)
    sources.set(name, isWeights(name) ? blobSource(file) : bytesSource(new Uint8Array(await file.arrayBuffer())));
  return sources;
}

// === For modules ===

function mount(name: string, files: ReadonlyMap<string, FileSource>, onProgress?: OpenFolderOptions['onProgress']): Folder {
  let path = `/${name}`;
  for (let i = 2; isFolderAt(path); i++) path = `/${name} (${i})`;
  const weights = [...files].filter(([file]) => isWeights(file)).map(([, source]) => source);
  const total = weights.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  const told = (source: FileSource): FileSource => ({
    ...source,
    async read(offset, length) {
      const bytes = await source.read(offset, length);
      done = Math.min(total, done + bytes.length);
      onProgress?.(done, total);
      return bytes;
    },
  });
  for (const [file, source] of files) putFile(`${path}/${file}`, isWeights(file) ? told(source) : source);
  const bytes = [...files.values()].reduce((sum, { size }) => sum + size, 0);
  return { name, path, bytes, close: () => removeAt(path) };
}

/** Files of a folder that modules wrote, by name. */
export async function writtenFiles(path: string): Promise<Map<string, Blob>> {
  const written = new Map<string, Blob>();
  for (const [name, { blob, bytes }] of filesBelow(path)) written.set(name, blob ?? new Blob([bytes as Uint8Array<ArrayBuffer>]));
  return written;
}
