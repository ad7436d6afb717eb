// llava-gemma score: scores answers that any system wrote to a published benchmark.
import type { Command } from 'commander';
import { collect, judgeOptions } from './options.ts';

export function register(program: Command): void {
  const command = program
    .command('score')
    .summary('score the answers of any system to a published benchmark')
    .description(
      'Score answers that any system wrote to a published benchmark, as its authors score them; no model is needed. ' +
        'The names of benchmarks: llava-gemma benchmarks.',
    )
    .argument('<benchmark>', 'pope, gqa, ...')
    .requiredOption('-a, --answers <path>', 'the answers: a file or folder as LLaVA or the benchmark writes them')
    .option('-q, --questions <file>', 'the question file; may be given several times', collect, [])
    .option('-d, --data <folder>', 'the folder of downloads, where questions are found that --questions does not name')
    .option('--harness <name>', "whose rules (default: those of the paper's numbers)")
    .option('--upload <file>', 'write what the server of a test split scores, instead of scoring')
    .option('--json', 'print the scores as JSON, unrounded')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma score pope --answers merge.jsonl --data playground/data/eval
  $ llava-gemma score pope --answers merge.jsonl --questions coco_pope_random.json --questions coco_pope_popular.json --json
  $ llava-gemma score vqav2 --answers merge.jsonl --questions v2_OpenEnded_mscoco_test-dev2015_questions.json --upload vqav2.json
  $ llava-gemma score mm-vet --answers answers.json --data eval --judge https://api.openai.com/v1 --judge-model gpt-4-0613`,
    )
    .action(async (benchmark, flags) => (await import('./run/score.ts')).score(benchmark, flags));
  for (const option of judgeOptions()) command.addOption(option);
}
