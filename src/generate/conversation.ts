// A conversation about pictures, or none: question after question to a session, each in the light of what was
// said before.

import { UserError } from '../errors.ts';
import type { Turn } from '../text/chat.ts';
import { shortAnswerPrompt } from '../text/short-answer.ts';
import { imageToken } from '../text/tokenizer.ts';
import type { AnswerOptions, Picture, SeenPicture, Session, SessionPrompt } from './session.ts';

export interface Conversation {
  /**
   * Looks at other pictures and forgets what was said. UserError names a picture that cannot be read; nothing
   * has changed then.
   */
  show(...pictures: Picture[]): Promise<void>;
  /**
   * The answer, piece by piece. The oldest questions are forgotten when all of them together grow too long.
   * UserError for a question that is too long by itself or that has an `<image>` token; a question that is
   * not answered to its end is forgotten.
   */
  ask(question: string, options?: Pick<AnswerOptions, 'signal'>): AsyncGenerator<string, void, undefined>;
}

export interface ConversationOptions extends Pick<AnswerOptions, 'sampling'> {
  /** Longest answer in tokens; so many positions of the model are kept for it. */
  maxNewTokens: number;
  /** Ask each question on its own, for a single word or phrase, in the words of LLaVA's training data. */
  short?: boolean;
}

export function startConversation(session: Session, { maxNewTokens, sampling, short = false }: ConversationOptions): Conversation {
  const longest = session.contextLength - maxNewTokens;
  if (longest < 1)
    throw new UserError(
      `answers of ${maxNewTokens} tokens leave no room for a question: the model has ${session.contextLength} positions in all; ask for shorter ones`,
    );
  let images: SeenPicture[] = [];
  let turns: Turn[] = [];

  /** The prompt of the conversation so far, without the oldest questions when it would be too long. */
  const fitting = (asked: Turn[]): SessionPrompt => {
    const tokens = session.promptTokens({ turns: asked, images });
    if (tokens <= longest) return { turns: asked, images };
    if (asked.length > 1) return fitting(asked.slice(2));
    const pictures = images.length > 1 ? 'its pictures' : 'its picture';
    throw new UserError(`the question has ${tokens} tokens with ${pictures}, and the model takes ${longest} beside the answer`);
  };

  return {
    async show(...pictures) {
      images = await session.look(pictures);
      turns = [];
    },
    async *ask(question, { signal } = {}) {
      if (question.includes(imageToken)) throw new UserError(`leave ${imageToken} out of the question: the picture is put before it`);
      const value = question.trim() + (short ? shortAnswerPrompt : '');
      const prompt = fitting([...(short ? [] : turns), { from: 'human', value }]);
      let answer = '';
      for await (const piece of session.generate(prompt, { maxNewTokens, sampling, signal })) {
        answer += piece;
        yield piece;
      }
      turns = [...prompt.turns, { from: 'gpt', value: answer }];
    },
  };
}
