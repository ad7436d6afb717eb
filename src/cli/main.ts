// The command line. Each command declares itself in a file here and does its work in run/, which is loaded
// only when it runs: so --help is instant.
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { UserError } from '../errors.ts';
import * as align from './align.ts';
import * as benchmarks from './benchmarks.ts';
import * as chat from './chat.ts';
import * as compare from './compare.ts';
import * as convert from './convert.ts';
import * as data from './data.ts';
import * as demo from './demo.ts';
import * as diagnose from './diagnose.ts';
import * as evaluate from './eval.ts';
import * as explain from './explain.ts';
import * as exporting from './export.ts';
import { describeFailure } from './failure.ts';
import * as forward from './forward.ts';
import * as info from './info.ts';
import * as init from './init.ts';
import { InterruptedError, stopWork } from './interrupt.ts';
import * as merge from './merge.ts';
import * as plan from './plan.ts';
import * as pull from './pull.ts';
import * as score from './score.ts';
import * as search from './search.ts';
import * as serve from './serve.ts';
import * as study from './study.ts';
import * as train from './train.ts';

function version(): string {
  return (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version;
}

const examples = `
Examples:
  $ llava-gemma demo                                    train and score a small model in minutes
  $ llava-gemma chat --image cat.png                    ask the bundled model about a picture
  $ llava-gemma train recipes/emoji-tiny.yaml --out runs/mine --set stages.1.lr=1e-4
  $ llava-gemma eval --model runs/mine/checkpoints/finetune`;

export function createProgram(): Command {
  const program = new Command('llava-gemma')
    .description('Train, evaluate and talk to small vision-language models that join a vision encoder to Gemma.')
    .version(version(), '-v, --version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .helpCommand(false)
    .addHelpText('after', examples)
    .showHelpAfterError('(--help lists commands and options)');
  for (const command of [
    demo,
    train,
    plan,
    search,
    diagnose,
    study,
    evaluate,
    score,
    compare,
    benchmarks,
    align,
    chat,
    explain,
    serve,
    data,
    pull,
    convert,
    merge,
    exporting,
    info,
    init,
    forward,
  ])
    command.register(program);
  // Commander would end the process itself; this makes it throw an error with an exit code.
  for (const command of [program, ...program.commands]) command.exitOverride();
  program.hook('preAction', (_, command) => refuseEmpty(command));
  return program;
}

/** Nothing that a command takes may be empty: it is a variable of the shell that was not set. */
function refuseEmpty(command: Command): void {
  const given = [
    ...command.options.map((option) => [option.long, command.opts()[option.attributeName()]] as const),
    ...command.registeredArguments.map((argument, i) => [`<${argument.name()}>`, command.args[i]] as const),
  ];
  for (const [name, value] of given)
    if ([value].flat().some((text) => typeof text === 'string' && text.trim() === ''))
      throw new UserError(`${name} is empty; give a value`);
}

/** Runs a command line as in `process.argv` and returns the exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  const program = createProgram();
  try {
    if (argv.length <= 2) program.outputHelp();
    else await program.parseAsync(argv);
    return 0;
  } catch (error) {
    const { text, code } = describeFailure(error);
    if (text !== '') console.error(text);
    return code;
  }
}

/** The entry point of bin/llava-gemma.js. */
export async function main(argv: readonly string[]): Promise<void> {
  for (const stream of [process.stdout, process.stderr]) {
    // The reader of our output may stop early, as `head` does; EIO is a terminal that is gone.
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (stopWork(new InterruptedError('interrupted: nobody reads what the command says'))) return;
      if (error.code === 'EPIPE') process.exit(process.exitCode ?? 0);
      throw error;
    });
  }
  process.on('uncaughtException', (error) => {
    if (stopWork(error)) return;
    const { text, code } = describeFailure(error);
    console.error(text);
    process.exit(code);
  });
  process.exitCode = await run(argv);
}
