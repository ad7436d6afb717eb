// Answers as other systems write them, matched with questions by id: never by order, and never half.

import { z } from 'zod';
import { UserError } from '../errors.ts';
import type { Answered, BenchmarkQuestion } from './benchmark.ts';
import { readJsonLines } from './files.ts';

/** One answer and where it stands. */
export interface AnswerLine {
  id: string;
  text: string;
  /** The prompt, where the file has it. */
  prompt?: string;
  /** Written in the benchmark's own form, as for an upload: an answer that is scored as it stands. */
  submitted?: boolean;
  /** `answers.jsonl:17`, for what is to be said of it. */
  where: string;
}

/** A line of LLaVA's answers.jsonl (llava/eval/model_vqa_loader.py). */
const llavaAnswer = z
  .looseObject({
    question_id: z.union([z.string(), z.number()]),
    text: z.union([z.string(), z.number()]).transform(String),
    prompt: z.string().optional(),
  })
  // a question.jsonl has question_id and text as well
  .refine((line) => !('image' in line || 'label' in line) || 'prompt' in line || 'answer_id' in line, 'this is a question, not an answer')
  .transform(({ question_id, text, prompt }) => ({ question_id, text, prompt }));

/** LLaVA's answers.jsonl. UserError for a line that is none, with its number. */
export async function readLlavaAnswers(path: string): Promise<AnswerLine[]> {
  const lines = await readJsonLines(path, llavaAnswer, "LLaVA's answers: question_id and text in each line");
  return lines.map(({ value, where }) => ({ id: String(value.question_id), text: value.text, prompt: value.prompt, where }));
}

const SHOWN = 3;
const listed = (ids: readonly string[]) =>
  `${ids.slice(0, SHOWN).join(', ')}${ids.length > SHOWN ? `, and ${ids.length - SHOWN} others` : ''}`;

/** UserError for an id that comes twice: which is meant? `things` are questions, or answers. */
export function refuseRepeated(path: string, things: string, lines: readonly { id: string; where?: string }[]): void {
  const seen = new Map<string, string | undefined>();
  for (const { id, where } of lines) {
    if (seen.has(id)) {
      const places = where === undefined ? '' : ` (${seen.get(id)} and ${where})`;
      throw new UserError(`${path}: question ${id} comes twice among the ${things}${places}; each must come once`);
    }
    seen.set(id, where);
  }
}

/**
 * Joins answers with the questions that they are to, in the order of the questions. UserError that names
 * repeated ids, questions without an answer and answers to no question: a file is scored whole or not at all.
 * `advice` is what is known of the benchmark's question files.
 */
export function joinById<Q extends BenchmarkQuestion>(
  path: string,
  questions: readonly Q[],
  lines: readonly AnswerLine[],
  advice = 'is it of another split or date?',
): Answered<Q>[] {
  refuseRepeated(path, 'answers', lines);
  const byId = new Map(lines.map((line) => [line.id, line]));
  const missing = questions.filter(({ id }) => !byId.has(id)).map(({ id }) => id);
  if (missing.length > 0)
    throw new UserError(
      `${path}: ${missing.length} of ${questions.length} questions have no answer: ${listed(missing)}; nothing was scored: ${advice}`,
    );
  if (lines.length > questions.length) {
    const known = new Set(questions.map(({ id }) => id));
    const strange = lines.filter(({ id }) => !known.has(id));
    throw new UserError(
      `${path}: ${strange.length} answers are to questions that are not in the question file: ${listed(strange.map(({ where, id }) => `${id} (${where})`))}; ${advice}`,
    );
  }
  return questions.map((question) => {
    const { text: answer, submitted } = byId.get(question.id)!;
    return submitted ? { question, answer, submitted } : { question, answer };
  });
}
