// llava-gemma chat: questions about a picture, answered in the terminal word by word. Heavy rooms load when the command runs.
import { createInterface } from 'node:readline';
import type { Command } from 'commander';
import { concatFloat32 } from '../arrays.ts';
import { UserError } from '../errors.ts';
import type { PrefixCache } from '../generate/generator.ts';
import type { Sampling } from '../generate/sampling.ts';
import type { LoadedModel } from '../pretrained/load.ts';
import type { Turn } from '../text/chat.ts';
import type { Quantization } from '../weights/quantize.ts';
import { InterruptedError } from './interrupt.ts';
import { collect, parseCount, parseNonNegative, parsePositive, parseSeed, quantizeOption } from './options.ts';
import { shippedModel } from './shipped.ts';

interface ChatFlags {
  model: string;
  image: string[];
  prompt?: string;
  maxNewTokens: number;
  temperature: number;
  topK?: number;
  topP: number;
  repetitionPenalty: number;
  seed: number;
  short?: boolean;
  quantize?: Quantization;
}

/** A conversation about some pictures, or none. */
export interface Conversation {
  /** Looks at other pictures and forgets what was said. */
  show(...imagePaths: string[]): Promise<void>;
  /** Answers in the light of what was said before; `onText` gets the answer piece by piece. */
  ask(question: string, onText: (text: string) => void): Promise<string>;
}

export interface ConversationOptions {
  maxNewTokens: number;
  /** Greedy when absent. */
  sampling?: Sampling;
  /** Ask each question on its own, for a single word or phrase, in the words of LLaVA's training data. */
  short?: boolean;
}

/** Starts a conversation with a loaded model. */
export async function startConversation(model: LoadedModel, options: ConversationOptions): Promise<Conversation> {
  const [{ encodePrompt }, { imageToken }, { createTextStream }, { imageTokenCount }, { imageRowsOf }, { shortAnswerPrompt }] =
    await Promise.all([
      import('../text/chat.ts'),
      import('../text/tokenizer.ts'),
      import('../text/stream.ts'),
      import('../models/llava.ts'),
      import('../pretrained/load.ts'),
      import('../data/emoji/questions.ts'),
    ]);
  const { config, generator, tokenizer } = model;
  const imageTokens = imageTokenCount(config);
  const longest = config.text_config.max_position_embeddings - options.maxNewTokens;
  let images: Float32Array[] = [];
  let turns: Turn[] = [];
  // what was read of the pictures and of earlier turns is not read again
  const prefix: PrefixCache = {};

  /** Ids of the conversation; the oldest questions are forgotten when it grows too long. */
  const promptIds = (): number[] => {
    for (;;) {
      const [first, ...rest] = turns;
      const withImages = [{ ...first, value: `${imageToken}\n`.repeat(images.length) + first.value }, ...rest];
      const ids = encodePrompt(tokenizer, withImages, { imageTokens });
      if (ids.length <= longest) return ids;
      if (turns.length === 1) {
        const pictures = images.length > 1 ? 'its pictures' : 'its picture';
        throw new UserError(`the question has ${ids.length} tokens with ${pictures}, and the model takes ${longest} beside the answer`);
      }
      turns = turns.slice(2);
    }
  };

  return {
    async show(...imagePaths) {
      const rows: Float32Array[] = [];
      for (const path of imagePaths) rows.push(await imageRowsOf(model, path));
      images = rows;
      turns = [];
    },
    async ask(question, onText) {
      if (question.includes(imageToken)) throw new UserError(`leave ${imageToken} out of the question: the picture is put before it`);
      const before = options.short ? [] : turns;
      turns = [...before, { from: 'human', value: question.trim() + (options.short ? shortAnswerPrompt : '') }];
      let inputIds: number[];
      try {
        inputIds = promptIds();
      } catch (error) {
        // A question that cannot be asked is forgotten.
        turns = before;
        throw error;
      }
      const stream = createTextStream(tokenizer, { skipSpecialTokens: true });
      let answer = '';
      const add = (text: string) => {
        answer += text;
        if (text !== '') onText(text);
      };
      await generator.generate([{ inputIds, imageRows: images.length > 0 ? concatFloat32(images) : undefined }], {
        prefix,
        maxNewTokens: options.maxNewTokens,
        stopTokenIds: [tokenizer.endOfTurnTokenId, tokenizer.eosTokenId],
        sampling: options.sampling,
        onToken: (_row, token) => add(stream.push(token)),
      });
      add(stream.end());
      turns = [...turns, { from: 'gpt', value: answer }];
      return answer;
    },
  };
}

/** What follows /image: one file, whose name may have spaces, or several. */
async function imagePathsOf(text: string): Promise<string[]> {
  const { existsSync } = await import('node:fs');
  return existsSync(text) ? [text] : text.split(/\s+/);
}

const interactiveHelp = 'Ask about the picture. /image <file> shows another one (or several), Ctrl-D ends.';

/** Questions from `input`, line by line, until it ends. A wrong picture or question is said, and the next one is asked for. */
export async function converse(
  conversation: Conversation,
  input: NodeJS.ReadableStream & { isTTY?: boolean },
  output: NodeJS.WritableStream,
): Promise<void> {
  const lines = createInterface({ input, output: input.isTTY ? output : undefined, prompt: '> ' });
  let isInterrupted = false;
  lines.on('SIGINT', () => {
    isInterrupted = true;
    lines.close();
  });
  if (input.isTTY) {
    output.write(`${interactiveHelp}\n`);
    lines.prompt();
  }
  for await (const line of lines) {
    const text = line.trim();
    try {
      const image = /^\/image\s+(.+)$/.exec(text);
      if (image) await conversation.show(...(await imagePathsOf(image[1])));
      else if (text.startsWith('/')) output.write(`${interactiveHelp}\n`);
      else if (text !== '') {
        await conversation.ask(text, (piece) => output.write(piece));
        output.write('\n');
      }
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      output.write(`${error.message}\n`);
    }
    if (input.isTTY) lines.prompt();
  }
  if (isInterrupted) throw new InterruptedError('');
}

async function chat(flags: ChatFlags): Promise<void> {
  const [{ loadModel }, { resolvePath }] = await Promise.all([import('../pretrained/load.ts'), import('../paths.ts')]);
  const model = await loadModel(resolvePath(flags.model, '--model'), { quantize: flags.quantize });
  const { maxNewTokens, temperature, topK, topP, repetitionPenalty, seed, short } = flags;
  const sampled = { seed, temperature, topK, topP, repetitionPenalty };
  // a penalty without chance: the likeliest word after it
  const penalised = repetitionPenalty === 1 ? undefined : { seed, temperature: 1, topK: 1, repetitionPenalty };
  const sampling = temperature > 0 ? sampled : penalised;
  const conversation = await startConversation(model, { maxNewTokens, sampling, short });
  if (flags.image.length > 0) await conversation.show(...flags.image);
  if (flags.prompt === undefined) return converse(conversation, process.stdin, process.stdout);
  await conversation.ask(flags.prompt, (text) => process.stdout.write(text));
  process.stdout.write('\n');
}

export function register(program: Command): void {
  program
    .command('chat')
    .summary('ask about a picture')
    .description(
      'Ask about a picture (PNG, JPEG, WebP or SVG). Answers appear word by word; without --prompt, questions are read line by line.',
    )
    .option('-m, --model <folder>', 'Hugging Face folder of the model', shippedModel)
    .option('-i, --image <file>', 'the picture; may be given several times', collect, [])
    .option('-p, --prompt <text>', 'ask this and end')
    .option('-s, --short', 'ask each question on its own, for a single word or phrase, as the questions of the training data are put')
    .option('--max-new-tokens <n>', 'longest answer', parseCount, 64)
    .option('--temperature <t>', '0 takes the likeliest word; higher is more varied', parseNonNegative, 0)
    .option('--top-p <p>', 'sample among the likeliest words that make up this probability', parseNonNegative, 1)
    .option('--top-k <n>', 'sample among so many of the likeliest words', parseCount)
    .option('--repetition-penalty <p>', 'above 1, words that were said before become less likely', parsePositive, 1)
    .option('--seed <n>', 'seed of the sampling', parseSeed, 42)
    .addOption(quantizeOption())
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma chat --image cat.png --short
  $ llava-gemma chat --image cat.png --prompt "How many things are in the picture?"
  $ llava-gemma chat --model runs/demo/checkpoints/finetune --image cat.png`,
    )
    .action(chat);
}
