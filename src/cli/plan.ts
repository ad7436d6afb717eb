// llava-gemma plan: what a recipe would take, before anything is loaded.
import type { Command } from 'commander';
import { collect } from './options.ts';

export function register(program: Command): void {
  program
    .command('plan')
    .summary('say what a recipe would take')
    .description(
      'Say what a recipe would train and take: samples, steps, tokens, memory by part, disk. Weights are not read. Where it does not fit, the ' +
        'command fails, and says by how much and which settings would make it fit.',
    )
    .argument('<recipe>', 'a YAML file')
    .option('-o, --out <folder>', 'where the run would be written (default: runs/<name of the recipe>)')
    .option('-s, --set <path=value>', 'change a field of the recipe; may be given several times', collect, [])
    .option('--memory <GB>', 'plan for a machine of so much memory (default: that of this one)')
    .option('--time', 'run a few steps of each stage, and say how long the run would take')
    .option('--json', 'print one JSON object, in bytes')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma plan recipes/emoji-tiny.yaml
  $ llava-gemma plan my-recipe.yaml --set stages.1.gradient_checkpointing=true
  $ llava-gemma plan my-recipe.yaml --memory 16 --json`,
    )
    .action(async (recipe, flags) => (await import('./run/plan.ts')).runPlan(recipe, flags));
}
