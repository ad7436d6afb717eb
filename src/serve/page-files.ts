// The files of the page at `/`: assets/page, what its modules import, as tsc has compiled them, and the
// worker of a model in the tab. All are read when the server starts; a request can name nothing else.

import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { mediaTypeOf } from './media-types.ts';

export interface PageFile {
  type: string;
  bytes: Uint8Array<ArrayBuffer>;
  etag: string;
}

/** By the paths of their URLs. */
export type PageFiles = ReadonlyMap<string, PageFile>;

/**
 * Nothing from elsewhere, nothing inline, in nobody's frame. Pictures of users are blobs. A model in the tab
 * is WebAssembly, in workers, and has threads where the page is isolated from others (docs/browser.md).
 */
export const PAGE_HEADERS = {
  'Content-Security-Policy': [
    "default-src 'none'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "worker-src 'self' blob:",
    "style-src 'self'",
    "img-src 'self' blob: data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  // asked for again at each visit, sent again when it has changed
  'Cache-Control': 'no-cache',
};

const packageRoot = fileURLToPath(new URL('../..', import.meta.url));
const MAIN = 'page/main.js';
/** Beside its client; a bundle, which imports nothing. */
export const TAB_WORKER = '/browser/llava-gemma-worker.js';

/** Imports in what tsc writes. */
const importPattern = /^(?:import|export)\s(?:[^'";=]*\sfrom\s)?['"](\.{1,2}\/[^'"]+)['"]/gm;

/** A module of dist/ and all that it imports, by their paths there. */
function modulesFrom(path: string, found = new Map<string, string>()): Map<string, string> {
  if (found.has(path)) return found;
  const text = readFileSync(join(packageRoot, 'dist', path), 'utf8');
  found.set(path, text);
  for (const [, name] of text.matchAll(importPattern)) modulesFrom(posix.join(posix.dirname(path), name), found);
  return found;
}

function fileOf(name: string, content: string | Buffer): PageFile {
  const bytes = new Uint8Array(Buffer.from(content));
  return {
    type: mediaTypeOf(name) ?? 'application/octet-stream',
    bytes,
    etag: `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`,
  };
}

export function readPageFiles(): PageFiles {
  const folder = join(packageRoot, 'assets', 'page');
  const assets = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => name.replaceAll('\\', '/'))
    .filter((name) => mediaTypeOf(name) !== undefined)
    .map((name) => [name === 'index.html' ? '/' : `/page/${name}`, fileOf(name, readFileSync(join(folder, name)))] as const);
  const modules = Array.from(modulesFrom(MAIN), ([name, text]) => [`/${name}`, fileOf(name, text)] as const);
  const worker = join(packageRoot, 'dist', TAB_WORKER);
  const bundle = existsSync(worker) ? [[TAB_WORKER, fileOf(worker, readFileSync(worker))] as const] : [];
  return new Map([...assets, ...modules, ...bundle]);
}

/** A file, or that it is the one that the browser has (`known`: its If-None-Match). */
export function pageResponse({ type, bytes, etag }: PageFile, known: string | undefined): Response {
  if (known === etag) return new Response(null, { status: 304, headers: { ...PAGE_HEADERS, ETag: etag } });
  return new Response(bytes, { headers: { ...PAGE_HEADERS, 'Content-Type': type, ETag: etag } });
}
