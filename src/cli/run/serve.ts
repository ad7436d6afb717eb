// What `llava-gemma serve` does: starts the server, says where it is, and ends it in order.
import type { DeviceName } from '../../engine/engine.ts';
import { UserError } from '../../errors.ts';
import { bundledModel, resolvePath } from '../../paths.ts';
import { isLoopback } from '../../serve/addresses.ts';
import { readKeys } from '../../serve/keys.ts';
import { logLine } from '../../serve/log.ts';
import { findModels } from '../../serve/models.ts';
import { startServer } from '../../serve/server.ts';
import type { Quantization } from '../../weights/quantize.ts';

export interface ServeFlags {
  model: string[];
  alias?: string;
  port: number;
  host: string;
  apiKeyFile?: string;
  allowName?: string[];
  quantize?: Quantization;
  device?: DeviceName;
  parallel: number;
  queue: number;
  maxLoaded: number;
  threads?: number;
  spin?: boolean;
  maxBody: number;
  maxImages: number;
  maxPixels: number;
  allowRemoteImages?: string[];
  prefixCache: number;
  drain: number;
  quiet?: boolean;
}

/** The folders of the models, the first under its alias. */
function namedModels({ model, alias }: ServeFlags): Map<string, string> {
  const paths = (model.length > 0 ? model : [bundledModel]).map((path) => resolvePath(path, '--model'));
  const found = [...findModels(paths)];
  if (alias !== undefined) {
    if (found.slice(1).some(([name]) => name === alias)) throw new UserError(`--alias ${alias}: another of the models has that name`);
    found[0] = [alias, found[0][1]];
  }
  return new Map(found);
}

/** Runs the command: settles when the server has ended. */
export async function serve(flags: ServeFlags): Promise<void> {
  const {
    host,
    port,
    parallel,
    queue,
    maxLoaded,
    threads,
    spin,
    quantize,
    device,
    maxBody,
    maxImages,
    maxPixels,
    allowRemoteImages: hosts,
    allowName: names,
  } = flags;
  const keys = flags.apiKeyFile === undefined ? undefined : readKeys(flags.apiKeyFile);
  if (names && (keys || !isLoopback(host)))
    throw new UserError('--allow-name is for a server without keys that listens on this machine only');
  const unusable = names?.find((name) => !URL.canParse(`http://${name}`) || new URL(`http://${name}`).hostname !== name.toLowerCase());
  if (unusable !== undefined) throw new UserError(`--allow-name ${unusable}: give the name alone, without a port or a path`);
  const server = await startServer({
    models: namedModels(flags),
    ...{ host, port, keys, names, parallel, queue, maxLoaded, threads, spin, quantize, device, maxBody, maxPixels },
    pictures: { maxImages, ...(hosts ? { remote: { hosts, maxBytes: maxBody } } : {}) },
    prefixBytes: flags.prefixCache,
    ...(flags.quiet ? {} : { log: (entry) => console.error(logLine(entry)) }),
  });
  const address = `http://${host.includes(':') ? `[${host}]` : host}:${server.port}`;
  console.error(`listening on ${address}/v1; models: ${server.models.map(({ id }) => id).join(', ')}`);
  console.error(`page: ${address}/`);
  if (!keys && !isLoopback(host)) console.error(`warning: anybody who reaches ${host} can ask: give --api-key-file`);
  const ended = untilSignalled();
  try {
    await Promise.race([server.ready.then(() => console.error('ready')), ended]);
    await ended;
    console.error(`ending: no more requests are taken, those that are here have ${flags.drain} s (again: at once)`);
  } finally {
    await server.close(flags.drain * 1000);
  }
}

/** Milliseconds within which a second signal is the first one once more: a terminal signals npm, too. */
const SAME = 1000;

/** Settles at the first SIGINT, SIGTERM or SIGHUP; a second one ends the process at once. */
function untilSignalled(): Promise<void> {
  return new Promise((resolve) => {
    let at: number | undefined;
    const onSignal = () => {
      if (at !== undefined && performance.now() - at > SAME) process.exit(130);
      at ??= performance.now();
      resolve();
    };
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
}
