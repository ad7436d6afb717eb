// Engines in a browser, on onnxruntime-web: WebGPU where there is an adapter, else WebAssembly, with threads
// where the page is isolated from others. The package is imported when an engine is opened.

import { UserError } from '../errors.ts';
import { checkDevice, type DeviceName, type Engine, type Value } from './engine.ts';
import { layOutInMemory } from './onnx/constants.ts';
import { createHostEngine, type HostRuntime } from './ort-host.ts';
import { BUFFER_BYTES, createWebgpuEngine, usable } from './webgpu/engine.ts';
import type { Runtime } from './webgpu/runtime.ts';

export interface WebEngineOptions {
  /**
   * Threads of WebAssembly. Default: a core each, at most 8; one where the page is not cross-origin isolated.
   */
  threads?: number;
  /**
   * URL of a folder with the files of onnxruntime-web/dist. Default: the package, as the page's bundler or
   * import map finds it.
   */
  runtime?: string | URL;
}

/** What is used of either package. */
interface WebRuntime {
  env: { logLevel?: string; wasm: { numThreads?: number; wasmPaths?: unknown } };
  InferenceSession: Runtime['InferenceSession'] & HostRuntime['InferenceSession'];
  Tensor: Runtime['Tensor'] & HostRuntime['Tensor'];
}

type Kind = 'wasm' | 'webgpu';

const MOST_THREADS = 8;

/**
 * The engine of a device. UserError where webgpu is asked for and there is no adapter, or where
 * onnxruntime-web is not to be found.
 */
export async function openEngine(device: DeviceName = 'auto', options: WebEngineOptions = {}): Promise<Engine> {
  checkDevice(device);
  const adapter = device === 'cpu' ? undefined : await findAdapter();
  if (device === 'webgpu' && !adapter)
    throw new UserError(
      'device webgpu: this browser has no WebGPU adapter (an older browser, no GPU, or a page without https); take device cpu',
    );
  if (!adapter) return openWasmEngine(options);
  const { InferenceSession, Tensor } = await loadRuntime('webgpu', options);
  const engine = createWebgpuEngine(
    { InferenceSession: oneAtATime(InferenceSession), Tensor },
    { bufferBytes: Math.min(BUFFER_BYTES, adapter.limits?.maxStorageBufferBindingSize ?? BUFFER_BYTES) },
  );
  // an adapter may give no device, as in a browser that blocks it
  return usable(engine, device === 'auto' ? () => openWasmEngine(options) : undefined);
}

async function openWasmEngine(options: WebEngineOptions): Promise<Engine> {
  const runtime = await loadRuntime('wasm', options);
  return createHostEngine({
    name: 'ort-wasm',
    runtime,
    sessionOptions: { executionProviders: ['wasm'] },
    // it computes in memory of its own, and does not copy what it has written back into what it was given
    fillsOutputs: false,
    layOut: (constants) => layOutInMemory(constants as ReadonlyMap<string, Value>),
  });
}

/** What is used of a GPUAdapter. */
interface Adapter {
  limits?: { maxStorageBufferBindingSize: number };
}

async function findAdapter(): Promise<Adapter | undefined> {
  const { gpu } = navigator as { gpu?: { requestAdapter(): Promise<Adapter | null> } };
  return (await gpu?.requestAdapter().catch(() => undefined)) ?? undefined;
}

const FILES: Record<Kind, string> = { wasm: 'ort.wasm.bundle.min.mjs', webgpu: 'ort.webgpu.bundle.min.mjs' };

async function loadRuntime(kind: Kind, { runtime, threads }: WebEngineOptions): Promise<WebRuntime> {
  const folder = runtime === undefined ? undefined : new URL(`${String(runtime).replace(/\/$/, '')}/`, location.href).href;
  let loaded: WebRuntime;
  try {
    loaded = (await importRuntime(kind, folder)) as WebRuntime;
  } catch (error) {
    const place = folder ?? 'onnxruntime-web';
    throw new UserError(
      `${place}: the runtime cannot be loaded (${(error as Error).message}): install onnxruntime-web, or say where its files are (runtime)`,
    );
  }
  const { env } = loaded;
  // what goes wrong is told by what is thrown
  env.logLevel = 'fatal';
  env.wasm.numThreads = crossOriginIsolated ? (threads ?? Math.min(MOST_THREADS, navigator.hardwareConcurrency)) : 1;
  if (folder !== undefined) env.wasm.wasmPaths = folder;
  const { InferenceSession, Tensor } = loaded;
  return { env, Tensor, InferenceSession: sayingWhere(InferenceSession, folder ?? 'onnxruntime-web') };
}

/** Sessions that say where the files of the runtime were looked for, if they are not there. */
function sayingWhere({ create }: WebRuntime['InferenceSession'], place: string): WebRuntime['InferenceSession'] {
  return {
    create: (...how: Parameters<typeof create>) =>
      create(...how).catch((error: Error) => {
        if (!/fetching of the wasm failed|dynamically imported module/.test(error.message)) throw error;
        throw new UserError(`${place}: the files of the runtime are not where it looks for them: say where they are (runtime)`, {
          cause: error,
        });
      }),
  } as WebRuntime['InferenceSession'];
}

function importRuntime(kind: Kind, folder: string | undefined): Promise<unknown> {
  if (folder !== undefined) return import(/* @vite-ignore */ /* webpackIgnore: true */ folder + FILES[kind]);
  return kind === 'wasm' ? import('onnxruntime-web/wasm') : import('onnxruntime-web/webgpu');
}

/** The sessions of a runtime that runs one at a time: calls that overlap wait for each other. */
function oneAtATime({ create }: Runtime['InferenceSession']): Runtime['InferenceSession'] {
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const result = last.then(work);
    last = result.catch(() => {});
    return result;
  };
  return {
    async create(model, options) {
      const session = await inTurn(() => create(model, options));
      const { inputNames, outputNames } = session;
      return {
        inputNames,
        outputNames,
        run: (feeds) => inTurn(() => session.run(feeds)),
        release: () => inTurn(() => session.release()),
      };
    },
  };
}
