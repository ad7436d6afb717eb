// llava-gemma study: many runs that differ in what a file says, compared.
import type { Command } from 'commander';
import { collect, parseCount } from './options.ts';

export function register(program: Command): void {
  program
    .command('study')
    .summary('train variants of a recipe and compare them')
    .description(
      'Train every variant of a recipe that a study file names, with several seeds, and say what the factors are worth: effects and ' +
        'interactions with intervals, study.html and study.json. A study that was killed goes on with the same command.',
    )
    .argument('<study>', 'a YAML file, such as recipes/studies/stage-1-and-depth.yaml')
    .option('-o, --out <folder>', 'the folder of the study (default: runs/<name of the file>)')
    .option('--plan', 'say what the study would take and could see, and train nothing')
    .option('--json', 'of --plan: print one JSON object')
    .option('-j, --jobs <n>', 'runs at a time (default: as many as there are cores and memory for)', parseCount)
    .option('-t, --threads <n>', 'threads of each run (default: the cores shared out)', parseCount)
    .option('--shard <i/n>', 'run one share of the study, such as 1/4')
    .option('--merge <folder>', 'put the shares of the study together into --out; once for each share', collect, [])
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma study recipes/studies/stage-1-and-depth.yaml --plan
  $ llava-gemma study recipes/studies/stage-1-and-depth.yaml --out runs/depth
  $ llava-gemma study my-study.yaml --shard 1/2 --out runs/first
  $ llava-gemma study my-study.yaml --merge runs/first --merge runs/second --out runs/whole`,
    )
    .action(async (study, flags) => (await import('./run/study.ts')).runStudy(study, flags));
}
