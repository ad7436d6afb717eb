// A server for tests of what runs in a tab: an empty page, and files with parts of them, as isolated from
// other pages as threads in a tab ask for.

import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';

const TYPES: Record<string, string> = {
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.html': 'text/html',
};

const HEADERS = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Content-Security-Policy':
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; connect-src 'self'; img-src 'self' blob: data:",
};

/** The page, which has the package as `window.lib`, and what speaks to its worker as `window.client`. */
const PAGE: Record<string, { type: string; text: string }> = {
  '': {
    type: 'text/html',
    text: '<!doctype html><title>tab</title><link rel="icon" href="data:,"><script type="module" src="/main.js"></script>',
  },
  'main.js': {
    type: 'text/javascript',
    text: "import * as lib from '/dist/browser/llava-gemma.js';\nimport * as client from '/dist/browser/client.js';\nObject.assign(window, { lib, client });\n",
  },
};

export interface TabServer {
  url: string;
  close(): Promise<void>;
}

/**
 * Serves folders under the names that they have in `folders`, such as `{ model: '/tmp/a' }` at /model/; of
 * `whole`, as servers do that send no parts of files.
 */
export async function serveTab(folders: Readonly<Record<string, string>>): Promise<TabServer> {
  const server = createServer((request, response) => {
    const [, name, ...rest] = decodeURIComponent(new URL(request.url!, 'http://tab').pathname).split('/');
    const own = PAGE[name];
    if (own) return void response.writeHead(200, { ...HEADERS, 'Content-Type': own.type }).end(own.text);
    const path = join(folders[name] ?? '/nowhere', ...rest);
    if (!existsSync(path)) return void response.writeHead(404, HEADERS).end();
    const { size } = statSync(path);
    const headers = { ...HEADERS, 'Content-Type': TYPES[extname(path)] ?? 'application/octet-stream', 'Accept-Ranges': 'bytes' };
    const range = name === 'whole' ? null : /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    if (!range) {
      response.writeHead(200, { ...headers, 'Content-Length': size });
      createReadStream(path).pipe(response);
      return;
    }
    const [start, end] = [Number(range[1]), Math.min(Number(range[2]), size - 1)];
    response.writeHead(206, { ...headers, 'Content-Length': end - start + 1, 'Content-Range': `bytes ${start}-${end}/${size}` });
    createReadStream(path, { start, end }).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/`, close: () => closed(server) };
}

function closed(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}
