/**
 * What LLaVA's training data says after a question that wants a short answer (Liu et al. 2023, "Improved
 * Baselines", table 7).
 */
export const shortAnswerPrompt = '\nAnswer the question using a single word or phrase.';
