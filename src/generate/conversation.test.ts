import { expect, test } from 'vitest';
import type { Turn } from '../text/chat.ts';
import { shortAnswerPrompt } from '../text/short-answer.ts';
import { type ConversationOptions, startConversation } from './conversation.ts';
import type { SeenPicture, Session, SessionPrompt } from './session.ts';

const CONTEXT = 30;

/** A session that counts letters as tokens, 5 for a picture, and answers with the number of turns. */
function sessionOf(asked: SessionPrompt[]): Session {
  const seen: SeenPicture = { rows: new Float32Array(1) };
  return {
    contextLength: CONTEXT,
    promptTokens: ({ turns, images = [] }) => turns.reduce((sum, { value }) => sum + value.length, 0) + 5 * images.length,
    look: async (pictures) => pictures.map(() => seen),
    blankPicture: async () => seen,
    async *generate(prompt) {
      asked.push(prompt);
      yield `${prompt.turns.length}`;
      yield '!';
    },
    answerAll: async () => [],
  };
}

function started(options: Partial<ConversationOptions> = {}) {
  const asked: SessionPrompt[] = [];
  const conversation = startConversation(sessionOf(asked), { maxNewTokens: 10, ...options });
  const ask = async (question: string) => {
    const pieces: string[] = [];
    for await (const piece of conversation.ask(question)) pieces.push(piece);
    return pieces;
  };
  return { conversation, asked, ask, lastTurns: () => asked.at(-1)!.turns };
}

const human = (value: string): Turn => ({ from: 'human', value });
const gpt = (value: string): Turn => ({ from: 'gpt', value });

test('each question comes with what was said before, until another picture is shown', async () => {
  const { conversation, ask, asked, lastTurns } = started();
  expect(await ask(' one ')).toEqual(['1', '!']);
  expect(lastTurns()).toEqual([human('one')]);
  expect(await ask('two')).toEqual(['3', '!']);
  expect(lastTurns()).toEqual([human('one'), gpt('1!'), human('two')]);
  await conversation.show('a.png');
  await ask('three');
  expect(lastTurns()).toEqual([human('three')]);
  expect(asked.map(({ images }) => images?.length)).toEqual([0, 0, 1]);
});

test('the oldest questions are forgotten, one with its answer at a time, when all of them do not fit', async () => {
  const { ask, lastTurns } = started();
  await ask('a'.repeat(8));
  await ask('b'.repeat(8));
  // 8 + 2 + 8 + 2 and one letter do not fit into 20
  await ask('c');
  expect(lastTurns()).toEqual([human('b'.repeat(8)), gpt('3!'), human('c')]);
});

test('a question may fill what the answer leaves, and not a token more', async () => {
  const { conversation, ask } = started();
  expect(await ask('a'.repeat(20))).toEqual(['1', '!']);
  await expect(ask('a'.repeat(21))).rejects.toThrow(
    'the question has 21 tokens with its picture, and the model takes 20 beside the answer',
  );
  await conversation.show('a.png', 'b.png');
  expect(await ask('a'.repeat(10))).toEqual(['1', '!']);
  await expect(ask('a'.repeat(11))).rejects.toThrow('21 tokens with its pictures');
});

test('short questions stand alone, in the words of the training data', async () => {
  const asked: SessionPrompt[] = [];
  const short = startConversation({ ...sessionOf(asked), contextLength: 200 }, { maxNewTokens: 2, short: true });
  for (const question of ['one', 'two']) for await (const _ of short.ask(question));
  expect(asked.map(({ turns }) => turns)).toEqual([[human(`one${shortAnswerPrompt}`)], [human(`two${shortAnswerPrompt}`)]]);
});

test('answers must leave room for a question, and a question has no <image> of its own', async () => {
  const room = (maxNewTokens: number) => () => startConversation(sessionOf([]), { maxNewTokens });
  expect(room(CONTEXT - 1)).not.toThrow();
  expect(room(CONTEXT)).toThrow('answers of 30 tokens leave no room for a question: the model has 30 positions in all');
  const { ask, asked } = started();
  await expect(ask('what is <image>?')).rejects.toThrow('leave <image> out of the question');
  expect(asked).toEqual([]);
});
