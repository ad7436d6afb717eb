// LLaVA's answers.jsonl (llava/eval/model_vqa_loader.py of haotian-liu/LLaVA), as official scripts read it.

import { createHash } from 'node:crypto';
import type { Answer } from './asking.ts';

/** One line of LLaVA's answers.jsonl. */
export interface OpenAnswer {
  question_id: string | number;
  prompt: string;
  text: string;
  /** The same for the same answer of the same model. */
  answer_id: string;
  model_id: string;
  metadata: {
    /** Why the question could not be asked. */
    problem?: string;
    /** Tokens of the prompt, pictures included, and of the answer. */
    prompt_tokens?: number;
    tokens?: number;
    /** What the answer took, a batch's time being shared by its answers. */
    seconds?: number;
  };
}

/** The line of an answer; `metadata` is what else is to be said of it. */
export function openAnswer(
  modelId: string,
  questionId: string | number,
  prompt: string,
  { text, problem }: Answer,
  metadata: OpenAnswer['metadata'] = {},
): OpenAnswer {
  const digest = createHash('sha256').update(JSON.stringify([modelId, questionId, prompt, text]));
  const answer_id = digest.digest('base64url').slice(0, 22);
  const said = problem === undefined ? metadata : { problem, ...metadata };
  return { question_id: questionId, prompt, text, answer_id, model_id: modelId, metadata: said };
}
