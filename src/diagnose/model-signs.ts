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

/** Least share of attention that some layer must pay to the picture: nothing else carries it to the text. */
const LEAST_ATTENTION = 0.01;
/** Most that sinks may take of the attention on the picture. */
const MOST_SINK = 0.5;

const most = (values: readonly number[]) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

function attention({ looks, imageShare }: ModelMeasures): Verdict {
  const layer = most(looks.map(({ text }) => text));
  const numbers = { mass: looks[layer].text, answerMass: looks[layer].answer, layer: layer + 1, imageShare };
  const byLayer = looks.map(({ answer }) => percent(answer)).join(', ');
  const found = `layer ${layer + 1} looks at the picture most: ${percent(looks[layer].text)} of the attention of the text; where answers are said, by layer, ${byLayer}; of what they could look at, ${percent(imageShare)} is picture`;
  return { level: looks[layer].text < LEAST_ATTENTION ? 'amber' : 'green', numbers, found };
}

function sinks({ looks }: ModelMeasures): Verdict {
  const layer = most(looks.map(({ sinkAttention }) => sinkAttention));
  const { sinks: share, sinkAttention } = looks[layer];
  const numbers = { sinkAttention, sinks: share, layer: layer + 1 };
  const found =
    share === 0
      ? 'no image row peaks where the first token does'
      : `in layer ${layer + 1}, ${percent(share)} of the image rows are sinks and take ${percent(sinkAttention)} of the attention on the picture`;
  return { level: sinkAttention > MOST_SINK ? 'amber' : 'green', numbers, found };
}

function gap({ modalityGap, neighbors }: ModelMeasures): Verdict {
  const found = `the means of image rows and of text rows, each row of length 1, are ${short(modalityGap)} apart; the connector keeps ${percent(neighbors.overlap)} of the nearest pictures, chance ${percent(neighbors.chance)}`;
  return { level: 'info', numbers: { modalityGap, overlap: neighbors.overlap, chance: neighbors.chance }, found };
}

function integration({ mir: { mir, equalNormMir } }: ModelMeasures): Verdict {
  const found = `MIR ${mir.toFixed(2)}, ${equalNormMir.toFixed(2)} with rows of equal norm`;
  return { level: 'info', numbers: { mir, equalNormMir }, found };
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
    sign: 'no-attention',
    healthy: `${percent(LEAST_ATTENTION)} or more in some layer; how much is no measure of use (arXiv 2607.03358)`,
    source: 'ours: attention is the only way from image rows to the text',
    advice: 'no layer looks at the picture: see image-ignored, and look whether the rows stand in their places',
    judge: attention,
  },
  {
    sign: 'visual-sinks',
    healthy: `sinks that take at most ${percent(MOST_SINK)} of the attention on the picture`,
    source: 'arXiv 2503.03321, its 20 at a width of 4096 as a share of the energy; threshold ours',
    advice:
      'heads look at rows that mean nothing, mostly background: maps of attention show them, not what is seen; train longer, or take maps by relevancy',
    judge: sinks,
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
  {
    sign: 'modality-gap',
    healthy: 'no threshold: compare with other runs of the same models; a good connector keeps 40 to 60 % of the neighbors',
    source: 'Liang et al. 2022 (arXiv 2203.02053); neighbors: arXiv 2509.11986',
    advice: '',
    judge: gap,
  },
  {
    sign: 'mir',
    healthy: 'no threshold: lower is closer, it falls while stage 1 is trained, and two runs of one recipe differ by 0.2',
    source: 'arXiv 2410.07167',
    advice: '',
    judge: integration,
  },
];

export const modelFindings = (measures: ModelMeasures): Finding[] => signs.map(({ judge, ...sign }) => findingOf(sign, judge(measures)));
