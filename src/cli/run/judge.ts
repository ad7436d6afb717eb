// The judge that options name.
import type { Judge } from '../../benchmarks/judge.ts';
import { UserError } from '../../errors.ts';

export interface JudgeFlags {
  judge?: string;
  judgeModel?: string;
  judgeRuns?: number;
  judgeCache?: string;
}

/** Says what a server is waited for. */
export const sayNote = (text: string): void => console.error(text);
export const sayPause = (reason: string, seconds: number): void => console.error(`${reason}; going on in ${Math.ceil(seconds)} s`);

/** Undefined where none is named. UserError for options that mean nothing without. */
export async function openNamedJudge(flags: JudgeFlags, signal: AbortSignal): Promise<Judge | undefined> {
  const { judge, judgeModel: model, judgeRuns: runs, judgeCache: cache } = flags;
  if (judge !== undefined) {
    // a judge may be a model, which others need not load
    const { openJudge } = await import('../../benchmarks/judge.ts');
    return openJudge({ judge, model, runs, cache, signal, onPause: sayPause, onNote: sayNote });
  }
  const given = { '--judge-model': model, '--judge-runs': runs, '--judge-cache': cache };
  const [name] = Object.entries(given).find(([, value]) => value !== undefined) ?? [];
  if (name !== undefined) throw new UserError(`${name} goes with --judge`);
  return undefined;
}
