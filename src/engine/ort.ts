// The default engine: ONNX Runtime, whole from npm (CPU everywhere). `run` of the Node binding is synchronous
// inside: it blocks the event loop. State is host memory, updated in place.

import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as ort from 'onnxruntime-node';
import type { Engine } from './engine.ts';
import { giveBackFreedMemory } from './malloc.ts';
import type { LowerOptions } from './onnx/lower.ts';
import { createHostEngine, type HostRuntime } from './ort-host.ts';
import { layOutConstants } from './stored-constants.ts';

export interface OrtOptions {
  /** Threads inside one op. Default: all cores. */
  threads?: number;
  /**
   * Whether idle threads spin for 20 us before they sleep; default false. Where nothing else runs, answers of
   * small models come a fifth sooner; beside other processes they come later (docs/results.md).
   */
  spin?: boolean;
  fuse?: LowerOptions['fuse'];
}

/** An engine on ONNX Runtime's CPU provider. */
export function createOrtEngine({ threads, spin, fuse }: OrtOptions = {}): Engine {
  return createHostEngine({
    name: 'ort-cpu',
    runtime: ort as unknown as HostRuntime,
    fuse,
    sessionOptions: {
      executionProviders: ['cpu'],
      intraOpNumThreads: threads ?? availableParallelism(),
      interOpNumThreads: 1,
      session: {
        // left to itself, ONNX Runtime spins fifty times as long, which brings no more
        ...(spin ? { 'intra_op.allow_spinning': '1', 'intra_op.spin_duration_us': '20' } : { 'intra_op.allow_spinning': '0' }),
        force_spinning_stop: '1',
      },
    },
    fillsOutputs: true,
    layOut: layOutConstants,
    prepareLowMemory: giveBackFreedMemory,
    collectGarbage,
  });
}

/** Pause after a collection, in ms. */
const SWEEPING = 50;

let collector: (() => void) | undefined;

/**
 * Frees what nobody needs any more. The binding copies every output into fresh memory, also those that the
 * runtime has written where it was told to; left to itself, the garbage collector would let a large model's
 * gradients be there three times. The memory itself is given back by another thread, a little later.
 */
async function collectGarbage(): Promise<void> {
  if (!collector) {
    setFlagsFromString('--expose-gc');
    collector = runInNewContext('gc') as () => void;
  }
  collector();
  await sleep(SWEEPING);
}
