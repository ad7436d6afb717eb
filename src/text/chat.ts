// Conversations as text: LLaVA's turns laid out by the model's own chat template, for training and for
// asking. Follows conv_gemma of Intel's LLaVA-Gemma (no system message, strict alternation); the template is
// the tokenizer's, run by Jinja.
import { Template } from '@huggingface/jinja';
import { UserError } from '../errors.ts';
import { type Part, takesParts } from './chat-template.ts';
import { imageToken, type Tokenizer } from './tokenizer.ts';

/** One turn of a conversation, as in LLaVA's JSON: `human` asks, `gpt` answers. */
export interface Turn {
  from: 'human' | 'gpt';
  value: string;
}

interface Message {
  role: 'user' | 'assistant';
  content: string;
}

interface Layout {
  template: Template;
  takesParts: boolean;
}

/** Parsed once for each tokenizer, and forgotten with it. */
const layouts = new WeakMap<Tokenizer, Layout>();

/** Throws an Error for a template that is not Jinja. */
function layoutOf(tokenizer: Tokenizer): Layout {
  let layout = layouts.get(tokenizer);
  if (!layout) {
    const template = new Template(tokenizer.chatTemplate);
    layout = { template, takesParts: takesParts(template, specialTokens(tokenizer)) };
    layouts.set(tokenizer, layout);
  }
  return layout;
}

/** What transformers gives templates of a tokenizer. */
function specialTokens(tokenizer: Tokenizer) {
  const { bosToken, eosTokenId, unkTokenId, padTokenId } = tokenizer;
  const [eos_token, unk_token, pad_token] = [eosTokenId, unkTokenId, padTokenId].map((id) => tokenizer.token(id));
  return { bos_token: bosToken, eos_token, unk_token, pad_token };
}

/** `<image>` becomes a part, and takes the line break between it and its neighbor with it. */
function partsOf(content: string): Part[] {
  return content.split(new RegExp(`(\n?${imageToken}\n?)`)).flatMap((text): Part[] => {
    if (text.includes(imageToken)) return [{ type: 'image' }];
    return text === '' ? [] : [{ type: 'text', text }];
  });
}

/**
 * Turns as chat messages. A first turn that is not the human's is dropped, as LLaVA does. UserError names
 * `where`.
 */
function toMessages(turns: readonly Turn[], where: string): Message[] {
  const messages = turns.map(({ from, value }): Message => {
    if (from !== 'human' && from !== 'gpt') {
      throw new UserError(`${where}: a turn is from ${JSON.stringify(from)}; only "human" and "gpt" are known`);
    }
    return { role: from === 'human' ? 'user' : 'assistant', content: value };
  });
  if (messages[0]?.role === 'assistant') messages.shift();
  if (messages.length === 0) throw new UserError(`${where}: the conversation has no human turn`);
  return messages;
}

function render(tokenizer: Tokenizer, messages: readonly Message[], addGenerationPrompt: boolean, where: string): string {
  const { bosToken } = tokenizer;
  let text: string;
  try {
    const { template, takesParts } = layoutOf(tokenizer);
    text = template.render({
      messages: takesParts ? messages.map(({ role, content }) => ({ role, content: partsOf(content) })) : messages,
      add_generation_prompt: addGenerationPrompt,
      ...specialTokens(tokenizer),
    });
  } catch (error) {
    throw new UserError(`${where}: the chat template refuses the conversation: ${(error as Error).message}`);
  }
  const [places, left] = [messages.map(({ content }) => content).join(' '), text].map((text) => text.split(imageToken).length - 1);
  if (left !== places)
    throw new UserError(
      `${where}: the chat template writes ${left} of the ${places} places for pictures: it must leave ${imageToken} where it is`,
    );
  return text.startsWith(bosToken) ? text : bosToken + text;
}

/** A stretch of a rendered conversation; only an answer, with the end of its turn, is trained. */
export interface Segment {
  text: string;
  isAnswer: boolean;
}

/**
 * A conversation rendered by the chat template and cut where answers begin and end. The joined segments are
 * the rendered text. It is found by rendering one message more each time, so it holds for any template that
 * writes messages one after the other.
 */
export function renderSegments(tokenizer: Tokenizer, turns: readonly Turn[], where: string): Segment[] {
  const messages = toMessages(turns, where);
  const segments: Segment[] = [];
  let done = '';
  const advanceTo = (text: string, isAnswer: boolean) => {
    if (!text.startsWith(done)) throw new UserError(`${where}: the chat template rewrites earlier turns; its answers cannot be located`);
    if (text.length > done.length) segments.push({ text: text.slice(done.length), isAnswer });
    done = text;
  };
  messages.forEach(({ role }, i) => {
    if (role !== 'assistant') return;
    advanceTo(render(tokenizer, messages.slice(0, i), true, where), false);
    advanceTo(render(tokenizer, messages.slice(0, i + 1), false, where), true);
  });
  if (messages.at(-1)!.role === 'user') advanceTo(render(tokenizer, messages, false, where), false);
  return segments;
}

/** How many pictures the turns have a place for. */
export function imagePlaces(turns: readonly Turn[]): number {
  return turns.reduce((sum, { value }) => sum + value.split(imageToken).length - 1, 0);
}

/**
 * The turns with `images` pictures before the first question, each on a line of its own, as in LLaVA's data.
 */
export function withImages(turns: readonly Turn[], images: number): Turn[] {
  const first = turns.findIndex(({ from }) => from === 'human');
  return turns.map((turn, i) => (i === first ? { ...turn, value: `${imageToken}\n`.repeat(images) + turn.value } : turn));
}

/**
 * The ids of `text`, with as many for each `<image>` as the image has rows. Where there are no images,
 * `imageTokens` is 0 and `<image>` is text like any other.
 */
export function encodeText(tokenizer: Tokenizer, text: string, imageTokens: number): number[] {
  if (imageTokens === 0) return tokenizer.encodeWithoutImages(text);
  return tokenizer.encode(text).flatMap((id) => (id === tokenizer.imageTokenId ? new Array<number>(imageTokens).fill(id) : id));
}

/**
 * The ids that ask for the next answer: the turns so far, then the opening of the model's turn. Ends where
 * `encodeConversation` starts an answer. `imageTokens`: rows of one image, 0 where there is none: see
 * `encodeText`.
 */
export function encodePrompt(tokenizer: Tokenizer, turns: readonly Turn[], imageTokens: number): number[] {
  return encodeText(tokenizer, renderPrompt(tokenizer, turns), imageTokens);
}

/** The same prompt as text, with one `<image>` where a picture stands. */
export function renderPrompt(tokenizer: Tokenizer, turns: readonly Turn[]): string {
  const where = 'the conversation';
  return render(tokenizer, toMessages(turns, where), true, where);
}
