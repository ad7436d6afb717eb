// Many prompts answered by a model, with what could not be asked and why.

import { UserError } from '../errors.ts';
import { checkLength } from '../generate/generator.ts';
import {
  createSession,
  type NumberedAnswer,
  type Picture,
  type SeenPicture,
  type Session,
  type SessionPrompt,
} from '../generate/session.ts';
import type { LoadedModel } from '../pretrained/load.ts';
import { pictureReader } from '../pretrained/pictures.ts';

/** What answering needs of a loaded model. */
export type AskedModel = Pick<LoadedModel, 'generator' | 'tokenizer' | 'processor'> & Partial<Pick<LoadedModel, 'generation'>>;

/** A picture as an asker takes it. */
export type ShownPicture = Picture | SeenPicture;

/** What was answered to one of many prompts. */
export interface Answer {
  /** Empty where the question could not be asked. */
  text: string;
  /** Why it could not: too long, a picture that is missing or damaged. */
  problem?: string;
  /** Tokens of the prompt with its pictures, and of the answer, where they are known. */
  promptTokens?: number;
  tokens?: number;
}

export interface AskOptions {
  /** Questions answered at a time. */
  batchSize: number;
  /** Longest answer in tokens. */
  maxNewTokens: number;
  /** Ends the work by throwing `signal.reason`. */
  signal?: AbortSignal;
  /** Called with answers as they come, each with the place of its prompt. */
  onAnswers?: (answers: readonly (Answer & { index: number })[]) => void;
}

/** Whoever answers: a model that is loaded here, or a server. */
export interface Asker {
  /** A picture of the mean color, which shows nothing. */
  blankPicture(): Promise<ShownPicture>;
  /** The greedy answers, in the order of the prompts. What cannot be asked has a `problem`. */
  ask(prompts: readonly SessionPrompt[], options: AskOptions): Promise<Answer[]>;
}

/** Asks a model that is loaded. */
export function createAsker(model: AskedModel): Asker {
  const session = createSession({ ...model, ...pictureReader(model) });
  return { blankPicture: session.blankPicture, ask: (prompts, options) => ask(session, prompts, options) };
}

async function ask(session: Session, prompts: readonly SessionPrompt[], { onAnswers, ...options }: AskOptions): Promise<Answer[]> {
  const answers = new Array<Answer>(prompts.length);
  const keep = (found: readonly (Answer & { index: number })[]) => {
    for (const { index, ...answer } of found) answers[index] = answer;
    if (found.length > 0) onAnswers?.(found);
  };
  const problems = (found: ReadonlyMap<number, string>) => keep([...found].map(([index, problem]) => ({ index, text: '', problem })));
  const asked = (places: readonly number[]) => {
    const numbered = (found: readonly NumberedAnswer[]) => keep(found.map((answer) => ({ ...answer, index: places[answer.index] })));
    return session.answerAll(
      places.map((place) => prompts[place]),
      { ...options, onAnswers: numbered },
    );
  };

  const malformed = lengthProblems(session, prompts);
  problems(malformed);
  const places = [...prompts.keys()].filter((place) => !malformed.has(place));
  try {
    if (places.length > 0) await asked(places);
  } catch (error) {
    // a picture: all are read before the first answer
    if (!(error instanceof UserError)) throw error;
    const unseen = await pictureProblems(session, prompts, places);
    if (unseen.size === 0) throw error;
    problems(unseen);
    const rest = places.filter((place) => !unseen.has(place));
    if (rest.length > 0) await asked(rest);
  }
  return answers;
}

/** What is wrong with prompts before any picture is read. */
function lengthProblems(session: Session, prompts: readonly SessionPrompt[]): Map<number, string> {
  const problems = new Map<number, string>();
  prompts.forEach((prompt, place) => {
    try {
      checkLength(session.promptTokens(prompt), session.contextLength);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      problems.set(place, error.message);
    }
  });
  return problems;
}

/** The prompts of `places` whose pictures cannot be read. */
async function pictureProblems(
  session: Session,
  prompts: readonly SessionPrompt[],
  places: readonly number[],
): Promise<Map<number, string>> {
  const problems = new Map<number, string>();
  for (const place of places) {
    const pictures = (prompts[place].images ?? []).filter((image) => typeof image === 'string' || image instanceof Uint8Array);
    try {
      await session.look(pictures);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      problems.set(place, error.message);
    }
  }
  return problems;
}
