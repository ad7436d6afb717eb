// How LLaVA words its questions (docs/Evaluation.md of haotian-liu/LLaVA, llava-1.5).

/** A question that one word answers. */
export const shortAnswer = (question: string) => `${question}\nAnswer the question using a single word or phrase.`;

/** A question with its options, one a line, of which the letter is asked for. */
export const letterAnswer = (question: string) => `${question}\nAnswer with the option's letter from the given choices directly.`;

/** The same in Chinese, as model_vqa_mmbench.py asks with --lang cn. */
export const letterAnswerInChinese = (question: string) => `${question}\n请直接回答选项字母。`;

/** A question of VizWiz, which may have no answer. */
export const unanswerableOrShort = (question: string) =>
  shortAnswer(`${question}\nWhen the provided information is insufficient, respond with 'Unanswerable'.`);

/** A question of TextVQA with the words that a reader of text found in the picture. */
export const withOcrTokens = (question: string, tokens: readonly string[]) =>
  shortAnswer(`${question}\nReference OCR token: ${tokens.join(', ')}`);
