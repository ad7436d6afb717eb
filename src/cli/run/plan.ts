// What `llava-gemma plan` does.
import { availableParallelism } from 'node:os';
import { openEngine } from '../../engine/devices.ts';
import { UserError } from '../../errors.ts';
import { createStatus, formatDuration } from '../../runs/status.ts';
import type { PlannedStage, RunPlan } from '../../train/plan.ts';
import { planRecipe } from '../../train/plan-recipe.ts';
import { loadRecipe } from '../../train/recipe.ts';
import { deviceOf } from '../../train/run.ts';
import { formatBytes } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';
import { defaultRunFolder } from './train.ts';

export interface PlanFlags {
  out?: string;
  set: string[];
  memory?: string;
  time?: boolean;
  json?: boolean;
}

/** Runs the command; the process fails where the run does not fit. */
export async function runPlan(recipePath: string, flags: PlanFlags): Promise<void> {
  const recipe = loadRecipe(recipePath, flags.set);
  const out = flags.out ?? defaultRunFolder(recipePath);
  const available = flags.memory === undefined ? undefined : memoryOf(flags.memory);
  const status = createStatus();
  const timedOn = () => openEngine(deviceOf(recipe));
  try {
    const { plan } = await withInterrupt(
      (signal) => planRecipe(recipe, { out, status, signal, available, withOtherwise: true, timedOn: flags.time ? timedOn : undefined }),
      'nothing was written',
    );
    status.close();
    console.log(flags.json ? JSON.stringify(plan, null, 2) : formatPlan(recipePath, plan));
    if (!plan.fits) throw new UserError(plan.problems.join('; '));
  } finally {
    status.close();
  }
}

function memoryOf(text: string): number {
  const gigabytes = Number(text);
  if (!(gigabytes > 0)) throw new UserError(`--memory takes gigabytes, such as 16, not ${text}`);
  return gigabytes * 1e9;
}

const count = (number: number) => Math.round(number).toLocaleString('en');
const percent = (share: number) => `${(100 * share).toFixed(1)} %`;

function formatPlan(recipePath: string, { stages, memory, disk, problems, remedies }: RunPlan): string {
  const fitting = remedies.map(({ set, peak }) => `  ${set.map((field) => `--set '${field}'`).join(' ')}   ${formatBytes(peak)}`);
  return [
    `${recipePath}, on ${formatBytes(memory.available)} of memory and ${availableParallelism()} cores`,
    ...stages.map(formatStage),
    `\npeak memory ${formatBytes(memory.peak)} of ${formatBytes(memory.available)}; disk ${formatBytes(disk.needed)}${Number.isFinite(disk.free) ? ` of ${formatBytes(disk.free)} that are free` : ''}`,
    ...(fitting.length > 0 ? ['it would fit with:', ...fitting] : []),
    ...(problems.length > 0 && memory.peak > memory.available && fitting.length === 0
      ? ['no smaller batch, checkpointing or adapters would make it fit']
      : []),
  ].join('\n');
}

function formatStage(stage: PlannedStage): string {
  const { name, trained, frozen, samples, pictures, steps, epochs, tokensPerStep, padding, memory, otherwise, disk, seconds } = stage;
  const modules = Object.entries(trained).map(([module, numbers]) => `${module} (${count(numbers)} numbers)`);
  const data = samples === undefined ? 'data made afresh' : `${count(samples)} samples with at most ${count(pictures ?? 0)} pictures`;
  const parts = { values: memory.values, 'gradients and moments': memory.gradientsAndMoments, 'frozen weights': memory.constants };
  const rest = { activations: memory.activations, process: memory.process };
  const list = Object.entries({ ...parts, ...rest }).flatMap(([part, bytes]) => (bytes > 0 ? [`${part} ${formatBytes(bytes)}`] : []));
  const mapped = memory.mapped > 0 ? `; ${formatBytes(memory.mapped)} of frozen weights stay in their files` : '';
  return [
    `\nstage ${name}`,
    `  trains   ${modules.join(', ')}; ${count(frozen)} are frozen`,
    `  data     ${data}; ${count(steps)} steps (${epochs.toFixed(2)} epochs) of ${count(tokensPerStep)} tokens, ${percent(padding)} of the rows padding`,
    `  memory   ${formatBytes(memory.peak)}: ${list.join(', ')}${mapped}`,
    ...(memory.encoding > 0 ? [`           ${formatBytes(memory.encoding)} while the frozen encoder runs, before the first step`] : []),
    ...(otherwise
      ? [
          `           ${formatBytes(otherwise.peak)} with gradient_checkpointing: ${otherwise.gradientCheckpointing}${otherwise.step === undefined ? '' : `, and ${otherwise.step.toFixed(2)} s a step`}`,
        ]
      : []),
    ...(seconds ? [timeLine(stage, seconds)] : []),
    `  disk     ${stage.features ? `features in ${stage.features} ${formatBytes(disk.features)}, ` : ''}checkpoint ${formatBytes(disk.checkpoint)}${disk.kept > 0 ? `, kept beside it ${formatBytes(disk.kept)}` : ''}`,
  ].join('\n');
}

function timeLine({ steps, pictures = 0 }: PlannedStage, { step, picture, total }: NonNullable<PlannedStage['seconds']>): string {
  const encoding =
    picture > 0 ? `; ${count(pictures)} pictures of ${picture.toFixed(2)} s for the encoder, ${formatDuration(pictures * picture)}` : '';
  return `  time     ${formatDuration(total)}: ${count(steps)} steps of ${step.toFixed(2)} s, ${formatDuration(steps * step)}${encoding}`;
}
