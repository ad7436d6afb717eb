// Whether an MPI launcher started this process, and which: mpirun of Open MPI, mpiexec of MPICH (and of its
// relatives, such as Intel's), or srun of Slurm. Each tells it by variables of its own. A library of another
// make would take each process for the only one, without a word; so the launcher chooses the library.

import { fstatSync } from 'node:fs';
import { UserError } from '../errors.ts';

/** Whose library speaks with the launcher. */
export type Make = 'Open MPI' | 'MPICH';

/** What all processes of a launch find alike: one of them need say it. */
export class LaunchError extends UserError {}

export interface Launch {
  make: Make;
  /** The launcher in words. */
  launcher: string;
  rank: number;
  /** Processes in all; at least so many, where the launcher says no more. */
  size: number;
  isSizeExact: boolean;
  /** Why its processes cannot find each other, in one sentence. */
  fault?: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Whether the socket that a process of MPICH speaks with its launcher through was passed on. */
function isSocket(descriptor: number): boolean {
  try {
    return fstatSync(descriptor).isSocket();
  } catch {
    return false;
  }
}

/**
 * What the launcher's variables say; undefined where nothing has launched this process, or it alone.
 */
export function launchOf(env: Environment = process.env, hasDescriptor = isSocket): Launch | undefined {
  const launch = readLaunch(env);
  if (launch === undefined || (launch.size === 1 && launch.isSizeExact)) return undefined;
  if (launch.make === 'MPICH' && env.PMI_FD !== undefined && !hasDescriptor(Number(env.PMI_FD)))
    launch.fault = `${launch.launcher} speaks with its processes through a socket, which npx and npm do not pass on: give mpiexec the option -pmi-port, or start node_modules/.bin/llava-gemma itself`;
  return launch;
}

function readLaunch(env: Environment): Launch | undefined {
  const number = (name: string) => Number(env[name] ?? 0);
  const tasks = Number(env.SLURM_STEP_NUM_TASKS ?? 1);
  const launched = (make: Make, launcher: string, rank: number, size: number): Launch => ({
    make,
    launcher,
    rank,
    size,
    isSizeExact: true,
  });
  if (env.OMPI_COMM_WORLD_SIZE !== undefined)
    return launched('Open MPI', "Open MPI's mpirun", number('OMPI_COMM_WORLD_RANK'), number('OMPI_COMM_WORLD_SIZE'));
  if (env.PMI_SIZE !== undefined)
    return launched('MPICH', tasks > 1 ? 'srun --mpi=pmi2' : "MPICH's mpiexec", number('PMI_RANK'), number('PMI_SIZE'));
  // mpiexec -pmi-port
  if (env.PMI_PORT !== undefined)
    return { ...launched('MPICH', "MPICH's mpiexec", number('PMI_ID'), number('MPI_LOCALNRANKS')), isSizeExact: false };
  const bySlurm = launched('Open MPI', 'srun --mpi=pmix', number('SLURM_PROCID'), tasks);
  if (tasks > 1 && env.PMIX_RANK === undefined)
    bySlurm.fault = `srun started ${tasks} processes that do not know of each other: give it --mpi=pmix for Open MPI, or --mpi=pmi2 for MPICH`;
  return tasks > 1 ? bySlurm : undefined;
}
