// What `llava-gemma chat` does: a conversation between a session and a terminal.
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { DeviceName } from '../../engine/engine.ts';
import { UserError } from '../../errors.ts';
import { type Conversation, startConversation } from '../../generate/conversation.ts';
import { type GenerationDefaults, longestAnswer, samplingWith } from '../../generate/defaults.ts';
import type { Sampling } from '../../generate/sampling.ts';
import { createSession } from '../../generate/session.ts';
import { resolvePath } from '../../paths.ts';
import { loadModel } from '../../pretrained/load.ts';
import type { Quantization } from '../../weights/quantize.ts';
import { InterruptedError } from '../interrupt.ts';

export interface ChatFlags {
  model: string;
  image: string[];
  prompt?: string;
  maxNewTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  seed: number;
  short?: boolean;
  quantize?: Quantization;
  device?: DeviceName;
}

/** What follows /image: one file, whose name may have spaces, or several. */
const imagePathsOf = (text: string): string[] => (existsSync(text) ? [text] : text.split(/\s+/));

const interactiveHelp = 'Ask about the picture. /image <file> shows another one (or several), Ctrl-D ends.';

/**
 * Questions from `input`, line by line, until it ends. On a terminal, what is wrong with a picture or a
 * question is said, and the next one is asked for; elsewhere it is thrown as a UserError, as what follows
 * would be about another picture. Ctrl-C ends the answer and the conversation with an InterruptedError.
 */
export async function converse(
  conversation: Conversation,
  input: NodeJS.ReadableStream & { isTTY?: boolean },
  output: NodeJS.WritableStream,
): Promise<void> {
  const lines = createInterface({ input, output: input.isTTY ? output : undefined, prompt: '> ' });
  const interrupted = new AbortController();
  const { signal } = interrupted;
  let isClosed = false;
  lines.on('close', () => {
    isClosed = true;
  });
  lines.on('SIGINT', () => {
    interrupted.abort(new InterruptedError(''));
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
      if (image) await conversation.show(...imagePathsOf(image[1]));
      else if (text.startsWith('/')) output.write(`${interactiveHelp}\n`);
      else if (text !== '') {
        for await (const piece of conversation.ask(text, { signal })) output.write(piece);
        output.write('\n');
      }
    } catch (error) {
      if (!(error instanceof UserError) || !input.isTTY) throw error;
      output.write(`${error.message}\n`);
    }
    // Ctrl-D or Ctrl-C came meanwhile: a prompt would wait for ever
    if (input.isTTY && !isClosed) lines.prompt();
  }
  signal.throwIfAborted();
}

/** Runs the command. */
export async function chat(flags: ChatFlags): Promise<void> {
  const model = await loadModel(resolvePath(flags.model, '--model'), { quantize: flags.quantize, device: flags.device });
  const session = createSession(model);
  const { maxNewTokens = longestAnswer(model.generation, session.contextLength), short } = flags;
  const conversation = startConversation(session, { maxNewTokens, sampling: samplingOf(flags, model.generation), short });
  if (flags.image.length > 0) await conversation.show(...flags.image);
  if (flags.prompt === undefined) return converse(conversation, process.stdin, process.stdout);
  for await (const piece of conversation.ask(flags.prompt)) process.stdout.write(piece);
  process.stdout.write('\n');
}

/** What the flags say and, where they are silent, the model's folder. Greedy, unless either asks for more. */
export function samplingOf(flags: Omit<ChatFlags, 'model' | 'image'>, defaults: GenerationDefaults): Sampling | undefined {
  const { temperature = defaults.temperature } = flags;
  const unused = [flags.topK === undefined ? [] : '--top-k', flags.topP === undefined ? [] : '--top-p'].flat().join(' and ');
  if (temperature === 0 && unused !== '') throw new UserError(`${unused}: the likeliest word is taken; give a --temperature above 0 too`);
  return samplingWith(flags, defaults);
}
