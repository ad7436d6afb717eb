import { describe, expect, test } from 'vitest';
import { launchOf } from './launcher.ts';

const opens = () => true;

describe('launchOf', () => {
  test.each([
    ['nothing', {}],
    ['mpirun with one process', { OMPI_COMM_WORLD_SIZE: '1', OMPI_COMM_WORLD_RANK: '0' }],
    // of the batch script itself
    ['sbatch', { SLURM_NTASKS: '4', SLURM_PROCID: '0', SLURM_JOB_ID: '7' }],
    ['srun with one task', { SLURM_NTASKS: '4', SLURM_STEP_NUM_TASKS: '1', SLURM_PROCID: '0' }],
  ])('%s launches no others', (_, env) => {
    expect(launchOf(env, opens)).toBeUndefined();
  });

  test.each([
    [
      { OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_RANK: '3', PMIX_RANK: '3' },
      { make: 'Open MPI', launcher: "Open MPI's mpirun", rank: 3, size: 4 },
    ],
    // mpirun within a Slurm job
    [
      { OMPI_COMM_WORLD_SIZE: '4', OMPI_COMM_WORLD_RANK: '1', SLURM_STEP_NUM_TASKS: '2', SLURM_PROCID: '0' },
      { make: 'Open MPI', launcher: "Open MPI's mpirun", rank: 1, size: 4 },
    ],
    [
      { PMI_SIZE: '2', PMI_RANK: '1', PMI_FD: '9' },
      { make: 'MPICH', launcher: "MPICH's mpiexec", rank: 1, size: 2 },
    ],
    [
      { PMI_SIZE: '8', PMI_RANK: '5', PMI_FD: '9', SLURM_STEP_NUM_TASKS: '8' },
      { make: 'MPICH', launcher: 'srun --mpi=pmi2', rank: 5, size: 8 },
    ],
    [
      { PMIX_RANK: '2', SLURM_PROCID: '2', SLURM_STEP_NUM_TASKS: '8' },
      { make: 'Open MPI', launcher: 'srun --mpi=pmix', rank: 2, size: 8 },
    ],
  ])('%j', (env, expected) => {
    expect(launchOf(env, opens)).toEqual({ isSizeExact: true, ...expected });
  });

  test('processes that do not know of each other are a fault', () => {
    const launch = launchOf({ SLURM_STEP_NUM_TASKS: '4', SLURM_PROCID: '3' }, opens);
    expect(launch).toMatchObject({ rank: 3, size: 4 });
    expect(launch!.fault).toBe(
      'srun started 4 processes that do not know of each other: give it --mpi=pmix for Open MPI, or --mpi=pmi2 for MPICH',
    );
  });

  test('so is a launcher of MPICH whose file was not passed on', () => {
    const env = { PMI_SIZE: '2', PMI_RANK: '1', PMI_FD: '9' };
    expect(launchOf(env, (descriptor) => descriptor !== 9)!.fault).toContain('a socket, which npx and npm do not pass on');
  });
});
