// What a judge is asked to extract from an answer to MathVista: extract_answer.py of lupantech/MathVista.

import { createHash } from 'node:crypto';
import { firstOf } from './files.ts';
import { PROMPT_PLACES, readDemoPrompt } from './mathvista-files.ts';

export interface ExtractionPrompt {
  /** As reports name it. */
  name: string;
  examples: string;
}

/**
 * Examples of our own, for where the official ones were not downloaded: their license (CC BY-SA 4.0) keeps
 * them out of this package.
 */
const OWN_EXAMPLES = `Each example shows a question, the response of a model, and the answer that the response gives. Write down the answer \
of the last response in the same way: the letter of an option, a number, or a list; nothing else.

Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.
Question: How many chairs stand around the table?

Counting clockwise from the door there are two, three and one more, so six chairs stand around it.

Extracted answer: 6

Hint: Please answer the question requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.
Question: How tall is the second bar? (Unit: m)

The second bar ends halfway between 3 and 4, at 3.5 m.

Extracted answer: 3.5

Hint: Please answer the question requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.
Question: In which two months did it rain most?

Most rain fell in month 4, followed by month 11.

Extracted answer: [4, 11]

Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.
Question: Which figure comes next?
Choices:
(A) circle
(B) square
(C) star

The corners grow by one each time, so a square has to follow.

Extracted answer: B`;

/** The official examples of a folder of downloads, else those of our own. */
export function extractionPrompt(folder: string | undefined): ExtractionPrompt {
  const path = folder === undefined ? undefined : firstOf(folder, PROMPT_PLACES);
  if (path === undefined) return { name: 'a prompt of this software (extraction-1), not the official one', examples: OWN_EXAMPLES };
  const examples = readDemoPrompt(path);
  const digest = createHash('sha256').update(examples).digest('hex').slice(0, 12);
  return { name: `demo_prompt of ${path} (sha256 ${digest})`, examples };
}

/** The prompt for one response. */
export const extractionRequest = ({ examples }: ExtractionPrompt, query: string, response: string): string =>
  `${examples}\n\n${query}\n\n${response}\n\nExtracted answer: `;
