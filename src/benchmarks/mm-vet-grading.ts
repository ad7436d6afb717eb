// How a judge grades an answer of MM-Vet, from 0.0 to 1.0: mm-vet_evaluator.py of yuweihao/MM-Vet.

import type { Judge } from './judge.ts';
import { pythonFloat } from './python-numbers.ts';

/** What is graded. */
export interface GradedPair {
  question: string;
  /** With `<AND>` between what all must be said, and `<OR>` between alternatives. */
  reference: string;
  answer: string;
}

export interface Grade {
  /** undefined where no reply was a grade. */
  score: number | undefined;
  /** What the judge calls its model. */
  model?: string;
}

export const GRADING_PROMPT = 'the few-shot prompt of mm-vet_evaluator.py';
export const GRADING_RULE = 'the first word of the reply as a number from 0.0 to 1.0; else asked again, up to four times, ever warmer';

/**
 * The instruction and examples of mm-vet_evaluator.py, word by word: others' grades are replies to it.
 * Copyright the authors of MM-Vet, Apache License 2.0 (NOTICE).
 */
const meme =
  'Can you explain this meme? | This meme is poking fun at the fact that the names of the countries Iceland and Greenland are misleading. ' +
  'Despite its name, Iceland is known for its beautiful green landscapes, while Greenland is mostly covered in ice and snow. The meme is ' +
  'saying that the person has trust issues because the names of these countries do not accurately represent their landscapes.';
const equation = 'What is x in the equation? | -1 <AND> -5';
const INSTRUCTION = `Compare the ground truth and prediction from AI models, to give a correctness score for the prediction. \
<AND> in the ground truth means it is totally right only when all elements in the ground truth are present in the prediction, and <OR> \
means it is totally right when any one element in the ground truth is present in the prediction. The correctness score is 0.0 (totally \
wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, or 1.0 (totally right). Just complete the last space of the correctness score.

Question | Ground truth | Prediction | Correctness
--- | --- | --- | ---
${equation} | x = 3 | 0.0
${equation} | x = -1 | 0.5
${equation} | x = -5 | 0.5
${equation} | x = -5 or 5 | 0.5
${equation} | x = -1 or x = -5 | 1.0
${meme} | The meme talks about Iceland and Greenland. It's pointing out that despite their names, Iceland is not very icy and Greenland \
isn't very green. | 0.4
${meme} | The meme is using humor to point out the misleading nature of Iceland's and Greenland's names. Iceland, despite its name, has \
lush green landscapes while Greenland is mostly covered in ice and snow. The text 'This is why I have trust issues' is a playful way to \
suggest that these contradictions can lead to distrust or confusion. The humor in this meme is derived from the unexpected contrast \
between the names of the countries and their actual physical characteristics. | 1.0
`;

/** Longest reply in tokens. */
const GRADE_TOKENS = 3;
/**
 * Temperatures at which a judge is asked again that gave no grade. The official script asks a fifth time,
 * and does not read the reply.
 */
const WARMER = [0, 0.5, 1, 1.5];

export function gradingPrompt({ question, reference, answer }: GradedPair): string {
  const spaced = reference.replaceAll('<AND>', ' <AND> ').replaceAll('<OR>', ' <OR> ');
  return `${INSTRUCTION}\n${[question, spaced, answer, ''].join(' | ')}`;
}

/** A grade out of a judge's reply; undefined where there is none. */
export function parseGrade(reply: string): number | undefined {
  const score = pythonFloat(reply.split(' ')[0]);
  return score !== undefined && score >= 0 && score <= 1 ? score : undefined;
}

/** Asks the judge for one grade. */
export async function gradeWith(reply: NonNullable<Judge['reply']>, pair: GradedPair, run: number): Promise<Grade> {
  const prompt = gradingPrompt(pair);
  let { text, model } = await reply(prompt, { maxTokens: GRADE_TOKENS, run });
  let score = parseGrade(text);
  for (const temperature of WARMER) {
    if (score !== undefined) break;
    const again = `${prompt}\nPredict the correctness of the answer (digit): `;
    ({ text, model } = await reply(again, { maxTokens: GRADE_TOKENS, temperature, run }));
    score = parseGrade(text);
  }
  return { score, model };
}

export const LEXICAL_RULE =
  'share of the elements of the best alternative of the ground truth whose words the answer has, to one decimal; not the official grade';

/** Words in lower case; what stands between them does not count. */
const wordsOf = (text: string) => ` ${(text.toLowerCase().match(/-?\d+(?:\.\d+)?|[\p{L}\p{M}\p{N}]+/gu) ?? []).join(' ')} `;

/** A grade without a judge: are the words of the ground truth, in their order, in the answer? */
export function gradeByWords({ reference, answer }: GradedPair): Grade {
  const said = wordsOf(answer);
  const shares = reference.split('<OR>').map((alternative) => {
    const elements = alternative.split('<AND>').map(wordsOf);
    return elements.filter((element) => element.trim() !== '' && said.includes(element)).length / elements.length;
  });
  return { score: Math.round(Math.max(...shares) * 10) / 10 };
}
