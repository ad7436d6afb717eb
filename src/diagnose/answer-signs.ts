// Signs in the answers of a model to questions with known answers: before their pictures, before blank ones
// and before those of other questions.

import type { Sample } from '../evaluate/samples.ts';
import { pairedDifference } from '../statistics/paired.ts';
import { type Finding, findingOf, percent, short, type Verdict } from './findings.ts';
import { constantAnswer, unparsedShare, yesBias } from './measures.ts';

/** How far from a half the share of yes may lie. */
const MOST_BIAS = 0.15;
/** How much more often than it is right one answer may be given. */
const MOST_EXCESS = 0.3;
const MOST_UNPARSED = { amber: 0.02, red: 0.1 };

function yesVerdict(samples: readonly Sample[]): Verdict {
  const bias = yesBias(samples);
  if (!bias) return { level: 'unknown', found: 'no yes/no questions with both answers' };
  const { yesRate, sensitivity, criterion, questions } = bias;
  const found = `yes to ${percent(yesRate)} of ${questions} questions, were half of them so; d' ${short(sensitivity)}, c ${short(criterion)}`;
  return { level: Math.abs(yesRate - 0.5) > MOST_BIAS ? 'red' : 'green', numbers: { yesRate, sensitivity, criterion }, found };
}

function constantVerdict(samples: readonly Sample[]): Verdict {
  const constant = constantAnswer(samples);
  if (!constant) return { level: 'unknown', found: 'no questions' };
  const { task, answer, share, expectedShare, different, accuracy, majority } = constant;
  const found = `${task}: ${percent(share)} of the answers are ${JSON.stringify(answer)}, right is the same one in ${percent(expectedShare)}; as if of ${short(different)} answers; accuracy ${percent(accuracy)}, always one answer ${percent(majority)}`;
  const excess = share - expectedShare;
  return {
    level: share > 0.95 && excess > 0.05 ? 'red' : excess > MOST_EXCESS ? 'amber' : 'green',
    numbers: { share, expectedShare, different, accuracy, majority },
    found,
  };
}

function unparsedVerdict(samples: readonly Sample[]): Verdict {
  const share = unparsedShare(samples);
  const level = share > MOST_UNPARSED.red ? 'red' : share > MOST_UNPARSED.amber ? 'amber' : 'green';
  return { level, numbers: { unparsed: share }, found: `${percent(share)} of ${samples.length} answers have no form of an answer` };
}

const credits = (samples: readonly Sample[], isRight: (sample: Sample) => boolean | undefined) =>
  samples.map((sample) => (isRight(sample) ? 1 : 0));

/** Paired by question, clustered by picture. */
function difference(samples: readonly Sample[], others: readonly number[]) {
  return pairedDifference(
    credits(samples, ({ correct }) => correct),
    others,
    { clusters: samples.map(({ split, image }) => `${split} ${image}`) },
  );
}

/** S(image) - S(other image): whether answers hang on the picture. */
function exchangedVerdict(samples: readonly Sample[], exchanged: readonly Sample[] | undefined): Verdict {
  if (!exchanged) return { level: 'unknown', found: 'not asked: give the model, not its run' };
  const { value, low, high } = difference(
    samples,
    credits(exchanged, ({ correct }) => correct),
  );
  const found = `${short(100 * value)} points more than with the pictures of other questions (${short(100 * low)} to ${short(100 * high)})`;
  return { level: low > 0 ? 'green' : 'red', numbers: { gain: value, low, high }, found };
}

/**
 * MG = S(image) - S(blank), ML = max(0, S(blank) - S(always one answer)): MMStar's, with the majority for
 * the base LM.
 */
function blindVerdict(samples: readonly Sample[]): Verdict {
  const seen = samples.filter(({ blindCorrect }) => blindCorrect !== undefined);
  if (seen.length === 0) return { level: 'unknown', found: 'not asked before blank pictures' };
  const { value, low, high } = difference(
    seen,
    credits(seen, ({ blindCorrect }) => blindCorrect),
  );
  const blind = seen.filter(({ blindCorrect }) => blindCorrect).length / seen.length;
  const tasks = [...new Set(seen.map(({ task }) => task))];
  const majority = tasks.reduce((sum, task) => {
    const some = seen.filter((sample) => sample.task === task);
    return sum + (constantAnswer(some)?.majority ?? 0) * (some.length / seen.length);
  }, 0);
  const leakage = Math.max(0, blind - majority);
  const found = `MG ${short(100 * value)} points over a blank picture (${short(100 * low)} to ${short(100 * high)}); ML ${short(100 * leakage)} points of blind answers over always the same one`;
  return { level: low > 0 ? 'green' : 'red', numbers: { gain: value, low, high, leakage }, found };
}

const signs = {
  yes: {
    sign: 'yes-bias',
    healthy: `yes to ${50 - 100 * MOST_BIAS} to ${50 + 100 * MOST_BIAS} %; d' above 1`,
    source: 'LRV-Instruction #19; arXiv 2305.10355 (POPE)',
    advice: 'train on as many questions with no as with yes, wrong things that are often seen together among them',
  },
  constant: {
    sign: 'constant-answer',
    healthy: 'no answer much more often than it is right',
    source: "ours, after Prismatic's rows of VSR 51.47",
    advice: 'a score that equals the majority baseline is no score: look at the rate of stage 2 and at the balance of its answers',
  },
  unparsed: {
    sign: 'unparsed-answers',
    healthy: `at most ${percent(MOST_UNPARSED.amber)}`,
    source: "ours; POPE's script takes them for yes, VLMEvalKit for no",
    advice: 'the answer format was lost: ask as the training data do, and look at the end token and max_new_tokens',
  },
  exchanged: {
    sign: 'image-ignored (answers)',
    healthy: 'an interval above 0',
    source: 'ours, after MMStar (arXiv 2403.20330)',
    advice: 'see image-ignored',
  },
  blind: {
    sign: 'multi-modal gain',
    healthy: 'an interval of MG above 0; how large it is depends on the questions',
    source: 'MMStar (arXiv 2403.20330); ML with the majority answer in place of the base model',
    advice: 'questions that are answered as well without the picture say nothing about seeing',
  },
};

/**
 * Findings in answers, which may have been asked before blank pictures too; `exchanged` before those of
 * others.
 */
export function answerFindings(samples: readonly Sample[], exchanged?: readonly Sample[]): Finding[] {
  return [
    findingOf(signs.yes, yesVerdict(samples)),
    findingOf(signs.constant, constantVerdict(samples)),
    findingOf(signs.unparsed, unparsedVerdict(samples)),
    findingOf(signs.exchanged, exchangedVerdict(samples, exchanged)),
    findingOf(signs.blind, blindVerdict(samples)),
  ];
}
