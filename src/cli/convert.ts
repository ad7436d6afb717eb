// llava-gemma convert: a checkpoint as a folder to keep or to share - another float type, and no optimiser state.
import type { Command } from 'commander';
import { UserError } from '../errors.ts';

const DTYPES = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const;

/** Files of a checkpoint that only the trainer needs. */
const TRAINER_FILES = ['trainer_state.json', 'optimizer.safetensors'];

export function register(program: Command): void {
  program
    .command('convert')
    .summary('write a checkpoint in another float type, without optimiser state')
    .argument('<from>', 'Hugging Face folder, such as the checkpoint of a stage')
    .argument('<to>', 'folder to write; a checkpoint that is there is replaced')
    .option('--dtype <type>', 'float32, float16 or bfloat16', 'float16')
    .action(async (from: string, to: string, { dtype }: { dtype: string }) => {
      if (!(dtype in DTYPES)) throw new UserError(`--dtype ${dtype}: must be float32, float16 or bfloat16`);
      const [{ openCheckpoint, saveCheckpoint }, { existsSync, statSync }, { readdir, readFile }, { join }] = await Promise.all([
        import('../weights/checkpoint.ts'),
        import('node:fs'),
        import('node:fs/promises'),
        import('node:path'),
      ]);
      if (existsSync(to) && !statSync(to).isDirectory()) throw new UserError(`${to} is a file; give a folder`);
      const inTheWay = existsSync(to) ? await readdir(to) : [];
      if (inTheWay.length > 0 && !inTheWay.includes('config.json'))
        throw new UserError(`${to} holds ${inTheWay[0]} and is no checkpoint; give another folder`);
      const checkpoint = await openCheckpoint(from);
      try {
        const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
        for (const name of checkpoint.names) tensors.set(name, { shape: checkpoint.shape(name), data: await checkpoint.float32(name) });
        const kept = (await readdir(from)).filter(
          (name) =>
            name !== 'config.json' &&
            /\.(json|jinja)$/.test(name) &&
            !name.startsWith('model.safetensors') &&
            !TRAINER_FILES.includes(name),
        );
        const files = Object.fromEntries(await Promise.all(kept.map(async (name) => [name, await readFile(join(from, name))] as const)));
        const config = { ...(checkpoint.config as Record<string, unknown>), dtype };
        await saveCheckpoint(to, { config, tensors, dtype: DTYPES[dtype as keyof typeof DTYPES], files });
      } finally {
        await checkpoint.close();
      }
      console.log(`wrote ${to}`);
    });
}
