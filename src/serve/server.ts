// The server: sockets, the processes of the models, and an orderly end.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { getRequestListener } from '@hono/node-server';
import { reasonOf, UserError } from '../errors.ts';
import { createNameCheck, isLoopback } from './addresses.ts';
import { createApp } from './app.ts';
import { ApiError } from './errors.ts';
import { createKeyCheck } from './keys.ts';
import type { LogEntry } from './log.ts';
import type { WorkerOptions } from './messages.ts';
import { createModelPool } from './model-pool.ts';
import { createModelProcess, type ModelProcess } from './model-process.ts';
import { readPageFiles, TAB_WORKER } from './page-files.ts';
import type { PictureLimits } from './pictures.ts';
import { createServerMetrics, type WorkerReports } from './server-metrics.ts';
import { findTabFiles } from './tab-files.ts';

export interface ServeOptions extends Omit<WorkerOptions, 'folder'> {
  /** Folders by the names of their models; the first is loaded at once, the others when they are asked. */
  models: ReadonlyMap<string, string>;
  host: string;
  /** 0 takes any free one. */
  port: number;
  /** Everybody is served when there is none. */
  keys?: readonly string[];
  /**
   * Names that a server without keys, which is reached from this machine only, may be asked as; beside
   * `localhost`.
   */
  names?: readonly string[];
  pictures: PictureLimits;
  maxBody: number;
  /** Requests that may wait, for each model. */
  queue: number;
  /** Models in memory at a time. */
  maxLoaded: number;
  /** Milliseconds after which a client that reads nothing is let go. Default: 30,000. */
  stall?: number;
  log?(entry: LogEntry): void;
}

export interface RunningServer {
  readonly port: number;
  readonly models: readonly ModelProcess[];
  /** Settles when the first model is loaded; UserError where it cannot be. */
  readonly ready: Promise<void>;
  /**
   * Takes no more requests and lets those that are there be answered, for `patience` milliseconds; then ends
   * them and the processes of the models.
   */
  close(patience: number): Promise<void>;
}

/** Milliseconds: for the headers of a request, all of it, and between requests of a connection. */
const TIMES = { headersTimeout: 10_000, requestTimeout: 60_000, keepAliveTimeout: 5_000, connectionsCheckingInterval: 1_000 };
const MAX_HEADER_BYTES = 16_384;
/** Connections beyond those whose requests may wait. */
const SPARE_CONNECTIONS = 1024;

const NO_HTTP = new ApiError(400, 'this is no HTTP request', { code: 'invalid_http' });

export async function startServer(options: ServeOptions): Promise<RunningServer> {
  const { models: folders, host, port, keys, names = [], pictures, maxBody, queue, maxLoaded, stall = 30_000, log, ...work } = options;
  const reports: WorkerReports = new Map();
  const pool = createModelPool(maxLoaded);
  let isDraining = false;
  const models = Array.from(folders, ([id, folder]) =>
    createModelProcess({
      ...work,
      id,
      folder,
      queue,
      pool,
      onDeath: () => metrics.deaths.add(1, { model: id }),
      onReport: (report) => void (report ? reports.set(id, report) : reports.delete(id)),
    }),
  );
  const metrics = createServerMetrics(models, reports);
  const isAllowed = keys && createKeyCheck(keys);
  const isName = !keys && isLoopback(host) ? createNameCheck(names) : undefined;
  const page = readPageFiles();
  const tab = page.has(TAB_WORKER) ? findTabFiles(folders) : undefined;
  const app = createApp({ models, metrics, page, tab, isAllowed, isName, pictures, maxBody, stall, isDraining: () => isDraining, log });
  const server = createServer(
    { ...TIMES, maxHeaderSize: MAX_HEADER_BYTES },
    getRequestListener(app.fetch, { errorHandler: () => NO_HTTP.response() }),
  );
  server.maxConnections = queue + SPARE_CONNECTIONS;
  server.on('clientError', answerBroken);
  endWhenDraining(server, () => isDraining);
  await listen(server, port, host);
  letGoOfStalled(server, stall);

  const ready = models[0].start();
  ready.catch(() => {});
  return {
    port: (server.address() as AddressInfo).port,
    models,
    ready,
    async close(patience) {
      isDraining = true;
      const closed = once(server, 'close');
      server.close();
      const idle = setInterval(() => server.closeIdleConnections(), 50);
      await Promise.race([closed, sleep(patience, undefined, { ref: false })]);
      clearInterval(idle);
      // whoever is still being answered is told so by its last event
      await Promise.all(models.map((model) => model.stop()));
      await Promise.race([closed, sleep(500, undefined, { ref: false })]);
      server.closeAllConnections();
    },
  };
}

async function listen(server: Server, port: number, host: string): Promise<void> {
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EADDRINUSE') throw new UserError(`--port ${port}: something else listens there; choose another port`);
    if (code === 'EACCES') throw new UserError(`--port ${port}: no permission; ports below 1024 belong to the system`);
    throw new UserError(`--host ${host}: the server cannot listen there (${code ?? reasonOf(error)})`);
  }
}

/**
 * Bytes a millisecond that a connection takes at the least: what it is sent in one piece is seen only when
 * all is there.
 */
const SLOWEST = 16;

/**
 * Ends connections that take nothing of what they are sent for `stall` milliseconds, and those that take it
 * more slowly than any network is. What they send themselves does not keep them.
 */
function letGoOfStalled(server: Server, stall: number): void {
  const watched = new Map<Socket, { taken: number; until: number }>();
  server.on('connection', (socket) => {
    watched.set(socket, { taken: 0, until: Number.POSITIVE_INFINITY });
    socket.once('close', () => watched.delete(socket));
  });
  const watch = setInterval(
    () => {
      const now = performance.now();
      for (const [socket, { taken: before, until }] of watched) {
        const left = socket.writableLength;
        const taken = socket.bytesWritten - left;
        if (left === 0) watched.set(socket, { taken, until: Number.POSITIVE_INFINITY });
        else if (taken !== before || until === Number.POSITIVE_INFINITY)
          watched.set(socket, { taken, until: now + stall + left / SLOWEST });
        else if (now > until) socket.destroy();
      }
    },
    Math.min(1000, stall / 2),
  ).unref();
  server.once('close', () => clearInterval(watch));
}

/** Connections are not kept for further requests while the server ends. */
function endWhenDraining(server: Server, isDraining: () => boolean): void {
  server.prependListener('request', (_: IncomingMessage, response: ServerResponse) => {
    if (isDraining()) response.setHeader('Connection', 'close');
  });
}

/** What Node cannot read as a request never comes to the app. */
function answerBroken(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy();
    return;
  }
  const problem =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? new ApiError(431, 'the headers are too large', { code: 'headers_too_large' })
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? new ApiError(408, 'the request took too long', { code: 'request_timeout' })
        : NO_HTTP;
  const body = JSON.stringify(problem.body);
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\n` +
      `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
}
