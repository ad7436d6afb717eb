// Questions put to a model behind an endpoint as they are to one that is loaded.

import sharp from 'sharp';
import { mapConcurrently } from '../concurrent.ts';
import type { Answer, Asker } from '../evaluate/asking.ts';
import type { Picture, SessionPrompt } from '../generate/session.ts';
import { type ChatPrompt, PromptError } from './chat-messages.ts';
import { type Endpoint, EndpointRefusal } from './endpoint.ts';

/** Prompts at a time whose pictures are in memory; the endpoint limits its requests itself. */
const AT_A_TIME = 64;

/** The mean color and the size that CLIP's image processor works with. */
const BLANK = { width: 336, height: 336, channels: 3, background: { r: 122, g: 116, b: 104 } } as const;

/** Statuses that are about the one request: malformed, too large, not to be processed. */
const ABOUT_THE_PROMPT = [400, 413, 422];

function chatPrompt({ turns, images = [] }: SessionPrompt): ChatPrompt {
  const isPicture = (image: (typeof images)[number]): image is Picture => typeof image === 'string' || image instanceof Uint8Array;
  if (!images.every(isPicture)) throw new PromptError('a picture that was encoded here cannot be sent to an endpoint');
  return { turns, images };
}

/**
 * Asks a model behind an endpoint. A prompt that the endpoint refuses has a `problem`, as one with a picture
 * that cannot be read; if the first one is refused, so would the others be, and the refusal is thrown.
 */
export function createEndpointAsker(endpoint: Endpoint): Asker {
  let hasAnswered = false;

  async function answer(prompt: SessionPrompt, maxTokens: number): Promise<Answer> {
    try {
      const { text, promptTokens, completionTokens } = await endpoint.reply(chatPrompt(prompt), { maxTokens });
      hasAnswered = true;
      return { text: text.trim(), promptTokens, tokens: completionTokens };
    } catch (error) {
      const isOfThePrompt =
        error instanceof PromptError || (hasAnswered && error instanceof EndpointRefusal && ABOUT_THE_PROMPT.includes(error.status));
      if (isOfThePrompt) return { text: '', problem: error.message };
      throw error;
    }
  }

  return {
    blankPicture: () => sharp({ create: BLANK }).png().toBuffer(),
    ask: (prompts, { maxNewTokens, signal, onAnswers }) =>
      mapConcurrently(prompts, AT_A_TIME, async (prompt, index) => {
        signal?.throwIfAborted();
        const found = await answer(prompt, maxNewTokens);
        onAnswers?.([{ ...found, index }]);
        return found;
      }),
  };
}
