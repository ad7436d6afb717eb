// Whether an MPI launcher started this process, and which: mpirun of Open MPI, mpiexec of MPICH (and of its
// relatives, such as Intel's), or srun of Slurm. Each tells it by variables of its own. A library of another
// make would take each process for the only one, without a word; so the launcher chooses the library.

import { fstatSync } from 'node:fs';

/** Whose library speaks with the launcher. */
export type Make = 'Open MPI' | 'MPICH';

export interface Launch {
  make: Make;
  /** The launcher in words. */
  launcher: string;
  rank: number;
  size: number;
  /** Why its processes cannot find each other, in one sentence. */
  fault?: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Whether the file that a process of MPICH speaks with its launcher through is open. */
function isOpen(descriptor: number): boolean {
  try {
    fstatSync(descriptor);
    return true;
  } catch {
    return false;
  }
}

/**
 * What the launcher's variables say; undefined where nothing has launched this process, or it alone.
 */
export function launchOf(env: Environment = process.env, hasDescriptor = isOpen): Launch | undefined {
  const launch = readLaunch(env);
  if (launch === undefined || launch.size === 1) return undefined;
  if (launch.make === 'MPICH' && env.PMI_FD !== undefined && !hasDescriptor(Number(env.PMI_FD)))
    launch.fault = `${launch.launcher} speaks with its processes through an open file, which npx and npm do not pass on: start node_modules/.bin/llava-gemma itself, or give mpiexec the option -pmi-port`;
  return launch;
}

function readLaunch(env: Environment): Launch | undefined {
  const number = (name: string) => Number(env[name] ?? 0);
  const tasks = Number(env.SLURM_STEP_NUM_TASKS ?? 1);
  if (env.OMPI_COMM_WORLD_SIZE !== undefined)
    return { make: 'Open MPI', launcher: "Open MPI's mpirun", rank: number('OMPI_COMM_WORLD_RANK'), size: number('OMPI_COMM_WORLD_SIZE') };
  if (env.PMI_SIZE !== undefined) {
    const launcher = env.SLURM_STEP_NUM_TASKS === undefined ? "MPICH's mpiexec" : 'srun --mpi=pmi2';
    return { make: 'MPICH', launcher, rank: number('PMI_RANK'), size: number('PMI_SIZE') };
  }
  const bySlurm: Launch = { make: 'Open MPI', launcher: 'srun --mpi=pmix', rank: number('SLURM_PROCID'), size: tasks };
  if (tasks > 1 && env.PMIX_RANK === undefined)
    bySlurm.fault = `srun started ${tasks} processes that do not know of each other: give it --mpi=pmix for Open MPI, or --mpi=pmi2 for MPICH`;
  return tasks > 1 ? bySlurm : undefined;
}
