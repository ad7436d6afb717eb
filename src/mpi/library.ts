// The MPI library, called through koffi. Libraries differ in how their C interface names a communicator or a
// type: in Open MPI these are addresses of data, in MPICH numbers, in the standard ABI of MPI 5.0 small
// numbers in place of addresses. All else is the same.

import { Worker } from 'node:worker_threads';
import { UserError } from '../errors.ts';
import { type Launch, LaunchError, type Make } from './launcher.ts';
import type { Transport } from './messages.ts';

/** File names of the library on Linux and macOS, the likeliest first. */
const FILES: Record<Make, readonly string[]> = {
  'Open MPI': ['libmpi.so.40', 'libmpi.40.dylib', 'libmpi_abi.so.0', 'libmpi_abi.so', 'libmpi.so', 'libmpi.dylib'],
  MPICH: [
    'libmpich.so.12',
    'libmpi.so.12',
    'libmpi.12.dylib',
    'libmpi_abi.so.0',
    'libmpi_abi.so',
    'libmpich.so',
    'libmpi.so',
    'libmpi.dylib',
  ],
};

/** Environment variable with the path of the library, where it is none of the above. */
export const LIBRARY_VARIABLE = 'LLAVA_GEMMA_MPI_LIBRARY';

const THREAD_MULTIPLE = 3;

/** Milliseconds that a launcher has for ending a process that asked for it. */
const ABORTING = 1000;

/** Stack of a call in a thread: koffi's own 128 kB are too few for MPICH's larger messages. */
const STACK_BYTES = 2 ** 23;

/** Waits that spin give way to other processes: without it they cost a hundredfold on busy cores. */
const YIELDING = 'OMPI_MCA_mpi_yield_when_idle';

type Koffi = typeof import('koffi')['default'];
type Library = ReturnType<Koffi['load']>;

/** How a library's functions are given communicators and types. */
interface Handles {
  /** Type of a handle in C. */
  type: 'void *' | 'int';
  world: unknown;
  float: unknown;
  ignoreStatus: bigint;
}

async function loadKoffi(): Promise<Koffi> {
  let koffi: Koffi;
  try {
    koffi = (await import('koffi')).default;
  } catch {
    throw new UserError('several processes need koffi, an optional dependency that is not installed: npm install koffi');
  }
  koffi.config({ async_stack_size: STACK_BYTES });
  return koffi;
}

/**
 * koffi lets go of libraries when the process ends, and threads of Open MPI go on until then: a crash after a
 * run that went well.
 */
function keepLoaded(koffi: Koffi, file: string): void {
  // RTLD_NOW, RTLD_GLOBAL and RTLD_NODELETE of dlopen(3)
  const mode = process.platform === 'darwin' ? 0x8a : 0x1102;
  koffi.load(null).func('dlopen', 'void *', ['str', 'int'])(file, mode);
}

function loadLibrary(koffi: Koffi, { make, launcher }: Launch): { library: Library; file: string } {
  const given = process.env[LIBRARY_VARIABLE];
  let reason = '';
  for (const file of given ? [given] : FILES[make]) {
    try {
      // the library loads its own parts, which look for its names
      const library = koffi.load(file, { global: true });
      keepLoaded(koffi, file);
      return { library, file };
    } catch (error) {
      reason ||= (error as Error).message.split('\n')[0];
    }
  }
  throw new UserError(
    `${launcher} started this process, but the library of ${make} cannot be loaded (${reason}): install it, or give its path in ${LIBRARY_VARIABLE}`,
  );
}

function handlesOf(koffi: Koffi, library: Library, file: string): Handles {
  const addressOf = (name: string): bigint | undefined => {
    try {
      return BigInt(koffi.address(library.symbol(name)));
    } catch {
      return undefined;
    }
  };
  const world = addressOf('ompi_mpi_comm_world');
  if (world !== undefined) return { type: 'void *', world, float: addressOf('ompi_mpi_float'), ignoreStatus: 0n };
  if (/mpi_abi/.test(file)) return { type: 'void *', world: 0x101n, float: 0x210n, ignoreStatus: 0n };
  return { type: 'int', world: 0x44000000, float: 0x4c00040a, ignoreStatus: 1n };
}

/**
 * Joins the processes that were launched with this one. UserError where they cannot find each other, where
 * there is no library, or one of another make than the launcher.
 */
export async function openTransport(launch: Launch): Promise<Transport> {
  if (launch.fault !== undefined) throw new LaunchError(launch.fault);
  const koffi = await loadKoffi();
  const { library, file } = loadLibrary(koffi, launch);
  const { type: handle, world, float, ignoreStatus } = handlesOf(koffi, library, file);
  process.env[YIELDING] ??= '1';
  const call = (name: string, ...types: string[]) => library.func(name, 'int', types);
  const numberOf = (name: string): number => {
    const into = [0];
    call(name, handle, '_Out_ int *')(world, into);
    return into[0];
  };
  const provided = [0];
  call('MPI_Init_thread', 'void *', 'void *', 'int', '_Out_ int *')(null, null, THREAD_MULTIPLE, provided);
  const size = numberOf('MPI_Comm_size');
  if (launch.isSizeExact ? size !== launch.size : size < launch.size)
    throw new LaunchError(
      `${launch.launcher} started ${launch.size} processes, but ${file} knows of ${size}: library and launcher are of different makes; use the mpirun of the library's make, or give the path of ${launch.make}'s library in ${LIBRARY_VARIABLE}`,
    );
  if (provided[0] < THREAD_MULTIPLE) throw new UserError(`${file} was built without MPI_THREAD_MULTIPLE, which is needed here`);

  const peer = ['void *', 'int', handle, 'int', 'int'];
  const sendCall = call('MPI_Send', ...peer, handle);
  const receiveCall = call('MPI_Recv', ...peer, handle, 'void *');
  const exchangeCall = call('MPI_Sendrecv', ...peer, ...peer, handle, 'void *');
  const probeCall = call('MPI_Iprobe', 'int', 'int', handle, '_Out_ int *', 'void *');
  const abortCall = call('MPI_Abort', handle, 'int');
  const finalizeCall = call('MPI_Finalize');
  /** Calls in a thread of its own: the event loop goes on, and with it the time limit. */
  const inThread = (func: typeof sendCall, ...given: unknown[]): Promise<void> =>
    new Promise((resolve, reject) =>
      func.async(...given, (error: Error | null, code: number) => {
        if (error) reject(error);
        else if (code !== 0) reject(new Error(`${file}: a message failed with code ${code}`));
        else resolve();
      }),
    );
  return {
    rank: numberOf('MPI_Comm_rank'),
    size,
    send: (to, tag, data) => inThread(sendCall, data, data.length, float, to, tag, world),
    receive: (from, tag, into) => inThread(receiveCall, into, into.length, float, from, tag, world, ignoreStatus),
    exchange: (other, tag, data, into) =>
      inThread(exchangeCall, data, data.length, float, other, tag, into, into.length, float, other, tag, world, ignoreStatus),
    hasMessage(from, tag) {
      const flag = [0];
      probeCall(from, tag, world, flag, ignoreStatus);
      return flag[0] !== 0;
    },
    abort(code) {
      // MPICH's call waits for the launcher to end the process, and no JavaScript runs meanwhile: a signal
      // must do it by itself; where Slurm has sent its first one before, the next comes in half a minute
      process.removeAllListeners('SIGTERM');
      new Worker(`setTimeout(() => process.kill(${process.pid}, 'SIGKILL'), ${ABORTING})`, { eval: true });
      abortCall(world, code);
      process.exit(code);
    },
    close: () => void finalizeCall(),
  };
}
