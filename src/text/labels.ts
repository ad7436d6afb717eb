// Conversations as training samples: ids, and labels on the answers only. Labels come from the segments of
// the rendered template, which are encoded one by one: no piece is tokenized twice and no lengths are
// compared, so a mismatch cannot silently empty a sample. Trained tokens as in Intel's preprocess_gemma: the
// answer, `<end_of_turn>`, `\n`; in LLaVA's preprocess_plain: the caption, `\n`.
import { UserError } from '../errors.ts';
import { encodeText, renderSegments, type Segment, type Turn } from './chat.ts';
import { imageToken, type Tokenizer } from './tokenizer.ts';

/** Cross-entropy leaves out positions with this label. */
export const ignoreIndex = -100;

export interface EncodedConversation {
  inputIds: number[];
  /** As long as inputIds, not shifted: `labels[i]` is `inputIds[i]` where it is trained, else -100. */
  labels: number[];
  /**
   * Leading tokens that every sample about the same image shares: through the line break after the image when
   * the conversation begins with `<image>\n` (in the plain form: through the image); 0 when it begins
   * otherwise.
   */
  prefixLength: number;
}

export interface EncodeOptions {
  /** Rows of one image; 0 for a sample without images, where `<image>` is text like any other. */
  imageTokens: number;
  /** Longest sample in tokens; the end is cut off. Unlimited if not given. */
  maxLength?: number;
  /** `gemma`: the chat template. `plain`: `<bos><image>caption\n`, the first stage of LLaVA. */
  template?: 'gemma' | 'plain';
  /** Names the sample in errors. */
  sampleId?: string;
}

/** `<bos><image>caption\n`: what the human says is replaced by the image alone. */
function plainSegments(tokenizer: Tokenizer, turns: readonly Turn[], imageTokens: number, where: string): Segment[] {
  const [human, gpt] = turns;
  const isPair = turns.length === 2 && human.from === 'human' && gpt.from === 'gpt' && imageTokens > 0;
  // the image alone is kept of what the human says
  if (!isPair || human.value.split(imageToken).length !== 2)
    throw new UserError(`${where}: the plain template needs one human turn with one ${imageToken} and one gpt turn`);
  return [
    { text: tokenizer.bosToken + imageToken, isAnswer: false },
    { text: `${gpt.value.trim()}\n`, isAnswer: true },
  ];
}

function sharedPrefix(tokenizer: Tokenizer, inputIds: readonly number[], turns: readonly Turn[], options: EncodeOptions): number {
  if (options.imageTokens === 0) return 0;
  const end = inputIds.indexOf(tokenizer.imageTokenId) + options.imageTokens;
  if (options.template === 'plain') return end;
  const first = turns.find((turn) => turn.from === 'human')?.value.trimStart() ?? '';
  // Real Gemma has a token of its own for two line breaks; that one belongs to the question.
  return first.startsWith(`${imageToken}\n`) && inputIds[end] === tokenizer.newlineTokenId ? end + 1 : 0;
}

/**
 * One training sample from a conversation. Throws UserError, naming the sample, when nothing of it would be
 * trained, when `maxLength` would cut through the image, or when the turns do not alternate.
 */
export function encodeConversation(tokenizer: Tokenizer, turns: readonly Turn[], options: EncodeOptions): EncodedConversation {
  const { imageTokens, maxLength = Number.POSITIVE_INFINITY, template = 'gemma', sampleId } = options;
  const where = sampleId === undefined ? 'the sample' : `sample ${JSON.stringify(sampleId)}`;
  const segments = template === 'plain' ? plainSegments(tokenizer, turns, imageTokens, where) : renderSegments(tokenizer, turns, where);
  const inputIds: number[] = [];
  const labels: number[] = [];
  // A segment ends with a line break or begins with a special token, and contents are trimmed: no merge
  // crosses a cut.
  for (const { text, isAnswer } of segments) {
    for (const id of encodeText(tokenizer, text, imageTokens)) {
      inputIds.push(id);
      labels.push(isAnswer && id !== tokenizer.imageTokenId ? id : ignoreIndex);
    }
  }
  const prefixLength = sharedPrefix(tokenizer, inputIds, turns, options);
  if (inputIds.length > maxLength) {
    const imageEnd = inputIds.lastIndexOf(tokenizer.imageTokenId) + 1;
    if (imageEnd > maxLength) {
      throw new UserError(`${where}: its image ends at token ${imageEnd}, beyond the maximum length ${maxLength}; raise max_length`);
    }
    inputIds.length = maxLength;
    labels.length = maxLength;
  }
  if (labels.every((label) => label === ignoreIndex)) {
    const why = inputIds.length === maxLength ? `its first answer begins beyond the maximum length ${maxLength}` : 'it has no gpt turn';
    throw new UserError(`${where}: nothing of it would be trained: ${why}`);
  }
  return { inputIds, labels, prefixLength: prefixLength <= inputIds.length ? prefixLength : 0 };
}
