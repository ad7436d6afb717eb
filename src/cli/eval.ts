// llava-gemma eval: scores of a model on the held-out scenes, or on questions of one's own in LLaVA JSON,
// beside its baselines.
import { type Command, Option } from 'commander';
import { UserError } from '../errors.ts';
import { bundledModel } from '../paths.ts';
import { collect, deviceOption, judgeOptions, parseCount, parseSeed, quantizeOption } from './options.ts';
import type { BenchmarkFlags } from './run/eval-benchmarks.ts';

export function register(program: Command): void {
  const command = program
    .command('eval')
    .summary('score a model beside its baselines')
    .description(
      'Score a model on held-out scenes, or on questions in LLaVA JSON: accuracy with its 95 % interval, beside blind, majority and random.',
    )
    .option('-m, --model <folder>', 'Hugging Face folder of the model', bundledModel)
    .option('--split <name>', 'a held-out split of the emoji scenes; may be given several times (default: all)', collect, [])
    .option('--scenes <n>', 'scenes in each split', parseCount, 1000)
    .option('--seed <n>', 'seed of the scenes', parseSeed, 42)
    .option('--held-out-artist <name>', 'the artist of the unseen-artist split')
    .option('-d, --data <file>', "questions in LLaVA JSON, each with a task, or LLaVA's question.jsonl, instead of emoji scenes")
    .option('--image-folder <folder>', 'what the image paths of --data are relative to')
    .option('-n, --limit <n>', 'at most so many questions of each task, or about as many of each benchmark', parseCount)
    .option('-b, --batch-size <n>', 'questions answered at a time', parseCount, 64)
    .option('--max-new-tokens <n>', "longest answer in tokens (default: as the model's generation_config.json says, else 24)", parseCount)
    .option('--no-blind', 'do not ask again before a blank picture (halves the time)')
    .addOption(quantizeOption())
    .addOption(deviceOption())
    .option('-o, --out <path>', 'keep the samples as JSON Lines, written as they come; of a question.jsonl, its answers.jsonl')
    .option(
      '--benchmarks <names>',
      'published benchmarks instead, such as pope,gqa; --data is the folder of their downloads, --out a folder',
    )
    .option('--harness <benchmark=rules>', 'score a benchmark by other rules than the default; may be given several times', collect, [])
    .option('--no-exchanged', 'of --benchmarks: do not ask again before the pictures of other questions')
    .option('--shard <i/n>', 'of --benchmarks: ask one share of the questions, such as 1/4')
    .option('--merge <folder>', 'put the shares of --benchmarks together into --out; once for each share', collect, [])
    .option('--overwrite', 'of --benchmarks: begin anew in a folder that has an evaluation')
    .addOption(endpointOption())
    .option('--endpoint-model <name>', 'which model of the server (its key: the environment variable OPENAI_API_KEY)')
    .option('--json', 'print the scores as JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma eval --split unseen-artist --limit 100
  $ llava-gemma eval --model runs/demo/checkpoints/finetune --out samples.jsonl
  $ llava-gemma eval --data mine.json --image-folder pictures
  $ llava-gemma eval --benchmarks pope,gqa --data playground/data/eval --out runs/scores
  $ llava-gemma eval --benchmarks pope --data playground/data/eval --out runs/peer --endpoint http://localhost:8000/v1`,
    )
    .action(async (flags) => {
      if (flags.benchmarks !== undefined || flags.merge.length > 0)
        return (await import('./run/eval-benchmarks.ts')).evaluateBenchmarks(flags);
      refuseWithout(flags);
      await (await import('./run/eval.ts')).evaluate(flags);
    });
  for (const option of judgeOptions()) command.addOption(option);
}

const endpointOption = () =>
  new Option('--endpoint <address>', 'of --benchmarks: ask a model behind an OpenAI-compatible server in place of --model').conflicts([
    'model',
    'quantize',
    'device',
  ]);

/** Options that mean nothing without --benchmarks, and would be passed over in silence. */
function refuseWithout(flags: BenchmarkFlags) {
  const { harness, exchanged, shard, overwrite, endpoint, endpointModel, judge, judgeModel, judgeRuns, judgeCache } = flags;
  const given = {
    '--endpoint': endpoint,
    '--endpoint-model': endpointModel,
    '--judge': judge,
    '--judge-model': judgeModel,
    '--judge-runs': judgeRuns,
    '--judge-cache': judgeCache,
    '--harness': harness.length > 0,
    '--no-exchanged': !exchanged,
    '--shard': shard,
    '--overwrite': overwrite,
  };
  const [name] = Object.entries(given).find(([, value]) => value) ?? [];
  if (name !== undefined) throw new UserError(`${name} goes with --benchmarks`);
}
