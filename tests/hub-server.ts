// A Hugging Face hub on this machine, for tests: the addresses that `pull` requests, with large files behind
// a redirect to a second server, and the ways in which they fail. Its answers follow huggingface.co: field
// names, headers, statuses, x-error-code.
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Asked {
  path: string;
  range?: string;
  authorization?: string;
}

export interface HubServer {
  url: string;
  /** The requests for bytes of files, on either server. */
  downloads: Asked[];
  /** All requests to the hub itself, and to the server of large files. */
  asked: Asked[];
  askedElsewhere: Asked[];
  /** Adds a model, or a new version of it. Returns the commit. */
  commit(repo: string, files: Record<string, string | Buffer>): string;
  /** Tokens that may read a model, if it is gated. */
  gated: Map<string, string[]>;
  /** Closes the connection after so many bytes of a file, once for each number. */
  drops: Map<string, number[]>;
  /** Goes silent after so many bytes of a file, and keeps the connection open. */
  stalls: Map<string, number>;
  /** Listings that are cut off in the middle. */
  cutListings: number;
  /** Answers with these statuses first. */
  statuses: number[];
  /** Sends bytes that differ from what the listing says. */
  corrupt: Set<string>;
  ignoresRanges: boolean;
  /** Additional entries of listings. */
  listed: { type: string; path: string; size: number; oid: string }[];
  close(): Promise<void>;
}

/** What the hub keeps in LFS. */
const isLarge = (name: string) => /\.(safetensors|bin)$|^tokenizer\.json$/.test(name);
const hex = (algorithm: string, ...parts: (string | Buffer)[]) =>
  parts.reduce((hash, part) => hash.update(part), createHash(algorithm)).digest('hex');

export async function startHub(): Promise<HubServer> {
  /** Files by commit, and the commits of each model, newest last. */
  const trees = new Map<string, Record<string, Buffer>>();
  const commits = new Map<string, string[]>();
  const large = new Map<string, { name: string; content: Buffer }>();

  const hub: HubServer = {
    url: '',
    downloads: [],
    asked: [],
    askedElsewhere: [],
    gated: new Map(),
    drops: new Map(),
    stalls: new Map(),
    cutListings: 0,
    statuses: [],
    corrupt: new Set(),
    ignoresRanges: false,
    listed: [],
    commit(repo, files) {
      const history = commits.get(repo) ?? [];
      const sha = hex('sha1', repo, String(history.length));
      trees.set(sha, Object.fromEntries(Object.entries(files).map(([name, content]) => [name, Buffer.from(content)])));
      commits.set(repo, [...history, sha]);
      return sha;
    },
    close: async () => {
      for (const server of [main, other]) {
        server.closeAllConnections();
        await new Promise((resolve) => server.close(resolve));
      }
    },
  };

  const refuse = (response: ServerResponse, status: number, code?: string) => {
    response.writeHead(status, { 'content-type': 'application/json', ...(code ? { 'x-error-code': code } : {}) });
    response.end(JSON.stringify({ error: 'Invalid username or password.' }));
  };

  function send(name: string, stored: Buffer, request: IncomingMessage, response: ServerResponse): void {
    hub.downloads.push(askedBy(request, name));
    const content = hub.corrupt.has(name) ? Buffer.from(stored.map((byte) => byte ^ 1)) : stored;
    const from = hub.ignoresRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    if (from > 0 && from >= content.length) {
      response.writeHead(416).end();
      return;
    }
    const body = content.subarray(from);
    const range = from > 0 ? { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` } : {};
    response.writeHead(from > 0 ? 206 : 200, { 'content-length': body.length, ...range });
    const drop = hub.drops.get(name)?.shift();
    const stall = hub.stalls.get(name);
    if (stall !== undefined) response.write(body.subarray(0, stall));
    else if (drop === undefined) response.end(body);
    // the bytes must be on their way before the connection closes
    else response.write(body.subarray(0, drop), () => setTimeout(() => response.destroy(), 20));
  }

  const askedBy = (request: IncomingMessage, path = request.url!): Asked => ({
    path,
    range: request.headers.range,
    authorization: request.headers.authorization,
  });

  const main = createServer((request, response) => {
    hub.asked.push(askedBy(request));
    const status = hub.statuses.shift();
    if (status !== undefined) return refuse(response, status);
    const { pathname } = new URL(request.url!, hub.url);
    const [, repo, kind, rest] =
      /^\/api\/models\/(.+?)\/(revision|tree)\/(.+)$/.exec(pathname) ?? /^\/(.+?)\/(resolve)\/(.+)$/.exec(pathname) ?? [];
    const history = commits.get(repo);
    const token = request.headers.authorization?.replace('Bearer ', '');
    if (!history) return refuse(response, token ? 404 : 401, token ? 'RepoNotFound' : undefined);
    if (kind === 'revision') {
      const revision = decodeURIComponent(rest);
      const sha = revision === 'main' ? history.at(-1) : history.find((commit) => commit === revision);
      if (!sha) return refuse(response, 404, 'RevisionNotFound');
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify({ _id: '1', id: repo, sha, lastModified: '2024-04-01T00:00:00.000Z', private: false, gated: false }));
      return;
    }
    if (kind === 'tree') {
      const entries = Object.entries(trees.get(rest)!).map(([path, content]) => ({
        type: 'file',
        path,
        size: content.length,
        oid: isLarge(path) ? hex('sha1', 'a pointer to', content) : hex('sha1', `blob ${content.length}\0`, content),
        ...(isLarge(path) ? { lfs: { oid: hex('sha256', content), size: content.length, pointerSize: 134 } } : {}),
      }));
      const all = [{ type: 'directory', path: 'runs', size: 0, oid: hex('sha1', 'runs') }, ...entries, ...hub.listed];
      // in pages, like the hub's long listings
      const page = Number(new URL(request.url!, hub.url).searchParams.get('cursor') ?? 0);
      const next = all.length > (page + 1) * 5;
      const link = `<${hub.url}${pathname}?recursive=false&expand=false&cursor=${page + 1}>; rel="next"`;
      response.writeHead(200, { 'content-type': 'application/json', ...(next ? { link } : {}) });
      const body = JSON.stringify(all.slice(page * 5, (page + 1) * 5));
      if (hub.cutListings === 0) response.end(body);
      else response.write(body.slice(0, 20), () => setTimeout(() => response.destroy(), 20));
      hub.cutListings = Math.max(0, hub.cutListings - 1);
      return;
    }
    const readers = hub.gated.get(repo);
    if (readers && !(token && readers.includes(token))) return refuse(response, token ? 403 : 401, 'GatedRepo');
    const [commit, name] = rest.split('/').map(decodeURIComponent);
    const content = trees.get(commit)?.[name];
    if (!content) return refuse(response, 404, 'EntryNotFound');
    if (!isLarge(name)) return send(name, content, request, response);
    const key = hex('sha256', content);
    large.set(key, { name, content });
    response.writeHead(302, { location: `http://127.0.0.1:${portOf(other)}/${key}` }).end();
  });

  const other = createServer((request, response) => {
    hub.askedElsewhere.push(askedBy(request));
    const { name, content } = large.get(request.url!.slice(1))!;
    send(name, content, request, response);
  });

  for (const server of [main, other]) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  hub.url = `http://127.0.0.1:${portOf(main)}`;
  return hub;
}

const portOf = (server: Server) => (server.address() as AddressInfo).port;
