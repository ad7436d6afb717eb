// llava-gemma serve: an HTTP server that speaks OpenAI's API.
import { type Command, InvalidArgumentError, Option } from 'commander';
import { bundledModel } from '../paths.ts';
import { collect, deviceOption, parseCount, parseSize, quantizeOption } from './options.ts';

function parsePort(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 65535 || text.trim() === '')
    throw new InvalidArgumentError('It must be a port, 0 to 65535; 0 takes any free one.');
  return value;
}

export function register(program: Command): void {
  program
    .command('serve')
    .summary("answer over HTTP, in OpenAI's API")
    .description("Answer over HTTP in the API of OpenAI's chat completions, many requests at a time. docs/serve.md says what is followed.")
    .option('-m, --model <folder>', `a model, or a folder of models; may be given several times (default: ${bundledModel})`, collect, [])
    .option('--alias <name>', 'what requests call the first model (default: the name of its folder)')
    .option('--port <n>', 'port to listen on; 0 takes any free one', parsePort, 8080)
    .option('--host <address>', 'address to listen on', '127.0.0.1')
    .option('--api-key-file <file>', 'requests must carry one of the keys in this file, one a line')
    .option('--allow-name <names...>', 'without keys and on this machine only: names that it may be asked as beside localhost')
    .addOption(quantizeOption())
    .addOption(deviceOption())
    .option('--parallel <n>', 'answers that are generated at a time', parseCount, 8)
    .option('--queue <n>', 'requests of a model that may wait; more are refused', parseCount, 128)
    .option('--max-loaded <n>', 'models in memory at a time: the one used longest ago makes room', parseCount, 2)
    .option('--threads <n>', 'threads of a model (default: all cores)', parseCount)
    .option('--spin', 'let threads spin for 20 us while they wait for each other: faster where nothing else runs, slower beside others')
    .addOption(sizeOption('--max-body <size>', 'requests beyond this size are refused', '20MB'))
    .option('--max-images <n>', 'pictures of a request', parseCount, 8)
    .option('--max-pixels <n>', 'pictures with more pixels are refused', parseCount, 16_000_000)
    .option('--allow-remote-images <hosts...>', 'fetch pictures by http(s) from these hosts (example.org, *.example.org)')
    .addOption(sizeOption('--prefix-cache <size>', 'memory of a model for what was read for earlier requests', '256MB'))
    .option('--drain <seconds>', 'time that answers have to end after SIGTERM', parseCount, 30)
    .option('--quiet', 'no line for each request')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma serve
  $ llava-gemma serve --model runs/mine/checkpoints --quantize int4 --port 9000
  $ llava-gemma serve --host 0.0.0.0 --api-key-file keys.txt`,
    )
    .action(async (flags) => (await import('./run/serve.ts')).serve(flags));
}

const sizeOption = (flags: string, description: string, usual: string) =>
  new Option(flags, description).argParser(parseSize).default(parseSize(usual), usual);
