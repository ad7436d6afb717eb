// Signs that single passes of a model show, in the order in which one causes the next.

import { LEAST_IMAGE_GAIN } from '../train/health.ts';
import { type Finding, findingOf, percent, short, type Verdict } from './findings.ts';
import type { ModelMeasures } from './probe.ts';

interface ModelSign {
  sign: string;
  healthy: string;
  source: string;
  advice: string;
  judge(measures: ModelMeasures): Verdict;
}

/** Norm ratios: Zhang et al. 2025 (arXiv 2512.08374) on rows of high norm; the numbers are ours. */
const NORMAL = [0.3, 3] as const;
const BEARABLE = [0.1, 10] as const;
/** Share of their norm by which layers must move image rows that are large, if these are to take part. */
const LEAST_MOVEMENT = 0.01;
const LEAST_RANK = 10;
const MOST_COSINE = 0.95;
/** Nats by which a wrong token must be likelier: a model that knows nothing finds all alike. */
const LEAST_SHIFT = 0.5;
/** Nats by which the first token of an answer must depend on the picture. */
const LEAST_EFFECT = 0.01;

const isWithin = (value: number, [low, high]: readonly [number, number]) => value >= low && value <= high;

function labelShift({ loss, shiftedLoss: { before, after } }: ModelMeasures): Verdict {
  const numbers = { loss, before, after };
  const [least, which] = before < after ? [before, 'before'] : [after, 'after'];
  const found = `${short(loss)} nats for the token that comes next, ${short(before)} for the one before it, ${short(after)} for the one after it`;
  const isShifted = least < loss - LEAST_SHIFT;
  return {
    level: isShifted ? 'red' : 'green',
    numbers,
    found: isShifted ? `${found}: the model says the token ${which} the right one` : found,
  };
}

function labelMask({ labels: { least, mean, first, last } }: ModelMeasures): Verdict {
  const found = `${short(mean)} trained tokens a sample, ${least} at the least; the first one begins with ${JSON.stringify(first)} and ends with ${JSON.stringify(last)}`;
  return { level: least === 0 ? 'red' : 'green', numbers: { mean, least }, found };
}

function collapsed({ imageNorm, effectiveRank, rowsRanked }: ModelMeasures): Verdict {
  const numbers = { imageNorm, effectiveRank };
  if (!(imageNorm > 0)) return { level: 'red', numbers, found: 'the rows of the connector are all 0' };
  const found = `effective rank ${short(effectiveRank)} (singular values of ${rowsRanked} rows)`;
  return { level: effectiveRank < LEAST_RANK ? 'red' : 'green', numbers, found };
}

function sameRows({ cosineBetweenPictures }: ModelMeasures): Verdict {
  const found = `the cosine of rows of different pictures is ${short(cosineBetweenPictures)}`;
  return { level: cosineBetweenPictures > MOST_COSINE ? 'red' : 'green', numbers: { cosineBetweenPictures }, found };
}

function norms({ normRatio, movement, layerNormRatios }: ModelMeasures): Verdict {
  const numbers = { normRatio, ...(movement === undefined ? {} : { movement }), afterLayers: layerNormRatios.at(-2) ?? normRatio };
  const moved = movement === undefined ? '' : `; layers move image rows by ${percent(movement)} of their norm`;
  const found = `image rows are ${short(normRatio)} times as long as those of the text at the input, ${short(numbers.afterLayers)} before the last layer${moved}`;
  if (isWithin(normRatio, NORMAL)) return { level: 'green', numbers, found };
  // a model may be trained with long rows: it is sick where its layers add nothing that counts beside them
  const isAlive = normRatio > 1 && movement !== undefined && movement >= LEAST_MOVEMENT;
  return { level: isWithin(normRatio, BEARABLE) || isAlive ? 'amber' : 'red', numbers, found };
}

function untrainedConnector({ untouchedBiases, imageNorm }: ModelMeasures): Verdict {
  if (untouchedBiases === undefined) return { level: 'unknown', found: 'the connector has no biases to tell by' };
  const isFresh = untouchedBiases && imageNorm > 0;
  return {
    level: isFresh ? 'red' : 'green',
    found: isFresh ? 'all biases of the connector are 0, as before the first step' : 'the connector was trained',
  };
}

function ignoredImage({ loss, blankGain, exchangedGain, pictures }: ModelMeasures): Verdict {
  const numbers = { loss, blankGain, exchangedGain };
  const found = `${short(loss)} nats a token of ${pictures} captions; ${short(blankGain)} more with a blank picture, ${short(exchangedGain)} more with that of another sample`;
  return { level: Math.min(blankGain, exchangedGain) < LEAST_IMAGE_GAIN ? 'red' : 'green', numbers, found };
}

function logitEffect({ noiseEffect }: ModelMeasures): Verdict {
  const found = `with the picture drowned in noise, the first token of an answer moves by ${short(noiseEffect)} nats (KL)`;
  return { level: noiseEffect < LEAST_EFFECT ? 'amber' : 'green', numbers: { noiseEffect }, found };
}

const signs: readonly ModelSign[] = [
  {
    sign: 'label-shift',
    healthy: 'the next token is the likeliest of the three',
    source: 'ours',
    advice: 'labels are shifted twice or not at all: the position before a token is trained to say it, once',
    judge: labelShift,
  },
  {
    sign: 'label-mask',
    healthy: 'every sample has trained tokens, the whole answer and the end of its turn',
    source: 'ours',
    advice: 'look at the template and at max_length: an answer that is cut off or not found is not trained',
    judge: labelMask,
  },
  {
    sign: 'untrained-connector',
    healthy: 'biases that have moved',
    source: 'ours',
    advice: 'stage 1 was skipped or its weights were not loaded: train the connector on captions first',
    judge: untrainedConnector,
  },
  {
    sign: 'collapsed-connector',
    healthy: `an effective rank of ${LEAST_RANK} or more`,
    source: 'Roy & Vetterli 2007; threshold ours',
    advice: 'the connector says the same whatever it is shown: lower its rate, lengthen the warmup, and look whether its gradient is 0',
    judge: collapsed,
  },
  {
    sign: 'norm-mismatch',
    healthy: `a ratio of ${NORMAL.join(' to ')}; beyond ${BEARABLE.join(' to ')}, layers that still move the rows by ${percent(LEAST_MOVEMENT)}`,
    source: 'arXiv 2512.08374; thresholds ours',
    advice:
      'look at scale_image_features and at the std of a fresh connector; rows that are too long are hardly changed by the layers and learn slowly',
    judge: norms,
  },
  {
    sign: 'image-ignored',
    healthy: `${LEAST_IMAGE_GAIN} nats a token or more with a blank or another picture`,
    source: 'ours',
    advice:
      'the text alone explains the answers: look whether pictures and texts belong together, train stage 1 longer, raise the rate of the connector',
    judge: ignoredImage,
  },
  {
    sign: 'same-rows',
    healthy: `a cosine of ${MOST_COSINE} or less`,
    source: 'ours',
    advice: 'the connector has learned to say the same of every picture: see image-ignored',
    judge: sameRows,
  },
  {
    sign: 'logit-effect',
    healthy: `${LEAST_EFFECT} nats or more`,
    source: 'noise of VCD, arXiv 2311.16922; threshold ours',
    advice: 'answers do not hang on the picture: see image-ignored',
    judge: logitEffect,
  },
];

export const modelFindings = (measures: ModelMeasures): Finding[] => signs.map(({ judge, ...sign }) => findingOf(sign, judge(measures)));
