// Signs in the answers of a model to questions with known answers: before their pictures, before blank ones
// and before those of other questions.

import type { Sample } from '../evaluate/samples.ts';
import { pairedDifference } from '../statistics/paired.ts';
import { type Finding, findingOf, percent, short, type Verdict } from './findings.ts';
import { constantAnswer, repetition, unparsedShare, type YesBias, yesBiases } from './measures.ts';

/** How far from a half the share of yes may lie, with its interval. */
const MOST_BIAS = 0.15;
/** How much more often than it is right one answer may be given. */
const MOST_EXCESS = 0.3;
/**
 * Share of four-word pieces that may repeat beyond those of right answers, and of answers that may be those
 * to another picture.
 */
const MOST_REPEATED = { amber: 0.1, red: 0.3 };
const MOST_SAME = { amber: 0.3, red: 0.9 };
const MOST_UNPARSED = { amber: 0.02, red: 0.1 };

const biasText = ({ split, yesRate, low, high, sensitivity, criterion, questions }: YesBias) =>
  `${split}: yes to ${percent(yesRate)} (${percent(low)} to ${percent(high)}) of ${questions} questions, were half of them so; d' ${short(sensitivity)}, c ${short(criterion)}`;

/**
 * A leaning of the model shows wherever it is asked; on one split alone, it is what the model does about
 * these questions (of things that it cannot know it says no).
 */
function yesVerdict(samples: readonly Sample[]): Verdict {
  const biases = yesBiases(samples);
  if (biases.length === 0) return { level: 'unknown', found: 'no yes/no questions with both answers' };
  const leaning = ({ low, high }: YesBias) => (low > 0.5 + MOST_BIAS ? 1 : high < 0.5 - MOST_BIAS ? -1 : 0);
  const leaningAny = biases.filter((bias) => leaning(bias) !== 0);
  const isEverywhere = leaningAny.length === biases.length && new Set(biases.map(leaning)).size === 1;
  const worst = biases.toSorted((a, b) => Math.abs(b.yesRate - 0.5) - Math.abs(a.yesRate - 0.5))[0];
  const { yesRate, low, high, sensitivity, criterion } = worst;
  return {
    level: isEverywhere ? 'red' : leaningAny.length > 0 ? 'amber' : 'green',
    numbers: { yesRate, low, high, sensitivity, criterion },
    found: [worst, ...biases.filter((bias) => bias !== worst)].map(biasText).join('; '),
  };
}

function repeatedVerdict(samples: readonly Sample[]): Verdict {
  const found = repetition(samples);
  if (!found) return { level: 'unknown', found: 'no answers of eight words or more' };
  const { within, expectedWithin, same, answers } = found;
  const excess = within - expectedWithin;
  const level =
    excess > MOST_REPEATED.red || same > MOST_SAME.red ? 'red' : excess > MOST_REPEATED.amber || same > MOST_SAME.amber ? 'amber' : 'green';
  return {
    level,
    numbers: { within, expectedWithin, same },
    found: `of ${answers} long answers, ${percent(within)} of the four-word pieces repeat one before them (of the right ones ${percent(expectedWithin)}), and ${percent(same)} are given to another picture word for word`,
  };
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
  const keyOf = ({ split, id }: Sample) => `${split} ${id}`;
  const others = new Map(exchanged.map((sample) => [keyOf(sample), sample.correct]));
  const both = samples.filter((sample) => others.has(keyOf(sample)));
  if (both.length === 0) return { level: 'unknown', found: 'there are no other pictures' };
  const { value, low, high } = difference(
    both,
    credits(both, (sample) => others.get(keyOf(sample))),
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
    healthy: `an interval that reaches into ${50 - 100 * MOST_BIAS} to ${50 + 100 * MOST_BIAS} %, where 50 is the truth; amber beyond it on one split, red on all`,
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
  repeated: {
    sign: 'repeated-answers',
    healthy: `at most ${percent(MOST_REPEATED.amber)} more repeated pieces than in right answers, ${percent(MOST_SAME.amber)} of the answers given twice`,
    source: "seq-rep-4 of Welleck et al. 2019 (arXiv 1908.04319: 0.5 % of people's text, 44 % of a model's that loops); thresholds ours",
    advice:
      'the model loops, or says one text of all pictures: fewer epochs, the repetition penalty of generation, more different texts; see image-ignored',
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

export interface Asked {
  /** Before their pictures, and perhaps before blank ones. */
  samples: readonly Sample[];
  /** Before the pictures of others, those that can be. */
  exchanged?: readonly Sample[];
  /** Long answers, for their words alone. */
  descriptions?: readonly Sample[];
}

/** Findings in answers. */
export function answerFindings({ samples, exchanged, descriptions = [] }: Asked): Finding[] {
  return [
    findingOf(signs.yes, yesVerdict(samples)),
    findingOf(signs.constant, constantVerdict(samples)),
    findingOf(signs.unparsed, unparsedVerdict(samples)),
    findingOf(signs.repeated, repeatedVerdict([...samples, ...descriptions])),
    findingOf(signs.exchanged, exchangedVerdict(samples, exchanged)),
    findingOf(signs.blind, blindVerdict(samples)),
  ];
}
