// The numbers of `llava-gemma align` as text: a column for each model.
import type { Alignment } from '../../alignment/align.ts';
import type { Direction, Retrieval } from '../../alignment/retrieval.ts';
import { alignColumns } from '../../runs/columns.ts';
import { formatCount } from '../format.ts';

/** What is printed as JSON and written to --out. */
export interface AlignmentReport {
  /** Where pictures and texts are from, and what chose them. */
  data: string;
  texts: string;
  template: 'gemma' | 'plain';
  samples: number;
  seed: number;
  /** One model, or each checkpoint of a run in the order of training. */
  models: ({ name: string; path: string; textTower?: string } & Alignment)[];
}

type Row = [label: string, cell: (alignment: Alignment) => string | undefined];

const number = (value: number | undefined, digits = 3) =>
  value === undefined ? undefined : Number.isFinite(value) ? value.toFixed(digits) : '-';
const percent = (value: number | undefined) => (value === undefined ? undefined : `${(100 * value).toFixed(1)}%`);
const within = (estimate: { value: number; low: number; high: number } | undefined) =>
  estimate && `${number(estimate.value)} [${number(estimate.low)}, ${number(estimate.high)}]`;

const overview: readonly Row[] = [
  ['MIR, exact', ({ mir }) => number(mir?.mir)],
  ['  of rows of equal norm', ({ mir }) => number(mir?.equalNormMir)],
  ['  as published (fast)', ({ mir }) => number(mir?.fastMir)],
  ['image norm / text norm at the input', ({ connector }) => number(connector.inputNormRatio)],
  ['effective rank of image rows', ({ connector }) => number(connector.effectiveRank, 1)],
  ['cosine between pictures', ({ connector }) => number(connector.meanCosine)],
  ['nearest pictures kept', ({ connector: { neighborOverlap: kept } }) => `${percent(kept.overlap)} (chance ${percent(kept.chance)})`],
  ['A score v3, nats a token', ({ aScore }) => within(aScore)],
  ['  before a blank picture', ({ aScore }) => number(aScore?.blank)],
  ['  gain by the picture', ({ aScore }) => within(aScore?.imageGain)],
  ['A score v1 (another scale)', ({ aScoreV1 }) => number(aScoreV1?.value)],
  ...(['warp', 'styles'] as const).flatMap((kind): Row[] => [
    [`synthetic C score, ${kind}`, ({ syntheticCScore: c }) => c && `${percent(c[kind].connector)} (chance ${percent(c[kind].chance)})`],
    ['  before the connector', ({ syntheticCScore: c }) => percent(c?.[kind].encoder)],
  ]),
];

/** Lines of one model's retrieval. */
function retrievalLines({ retrieval, pictures, captions }: Alignment): string[] {
  if (!retrieval) return [];
  const { pooled, late, likelihood, textTower } = retrieval;
  const sets: [string, Retrieval][] = [
    ['pooled', pooled.raw],
    ['pooled, CSLS', pooled.csls],
    ['late interaction', late.raw],
    ['late interaction, CSLS', late.csls],
    ...(textTower ? ([['text tower of the encoder', textTower.raw]] as [string, Retrieval][]) : []),
  ];
  const among = likelihood
    ? ([
        [`likelihood among ${likelihood.ways}`, likelihood.withoutPrior],
        ['  with the prior of the words', likelihood.raw],
      ] as [string, Retrieval][])
    : [];
  const columns = ['R@1', '95 %', 'R@5', 'R@10', 'rank', 'hubs'];
  const shares = (of: Record<number, number>, between = '') => [percent(of[1]) ?? '', between, ...[5, 10].map((k) => percent(of[k]) ?? '')];
  const cells = ({ recall, interval: { 1: at }, medianRank, hubness }: Direction, isGroup: boolean) => [
    ...shares(recall, at && `${percent(at.low)} to ${percent(at.high)}`),
    number(medianRank, 1)!,
    // among all candidates of a group there are no hubs
    isGroup ? '' : number(hubness, 2)!,
  ];
  const chance = ({ chance, chanceRank }: Direction) => [...shares(chance), number(chanceRank, 1)!, ''];
  const table = (rows: [string, Retrieval][], isGroup: boolean) => [
    ...rows.map(([name, { imageToText, textToImage }]) => [
      `  ${name}`,
      ...cells(imageToText, isGroup),
      '',
      ...cells(textToImage, isGroup),
    ]),
    ['  chance', ...chance(rows[0][1].imageToText), '', ...chance(rows[0][1].textToImage)],
  ];
  const title = `retrieval, ${formatCount(pictures)} pictures, ${formatCount(captions)} captions`;
  const header = [title, ...columns, '', ...columns];
  const ways = ['', 'image', 'to text', '', '', '', '', '', 'text', 'to image'];
  const rows = [ways, header, ...table(sets, false), ...(among.length > 0 ? table(among, true) : [])];
  const hasTies = [...sets, ...among].some(([, { imageToText, textToImage }]) =>
    [imageToText, textToImage].some(({ recall, pessimistic }) =>
      Object.keys(recall).some((k) => recall[Number(k)] !== pessimistic[Number(k)]),
    ),
  );
  const note = hasTies ? ['scores are tied: each tie counts as the mean over its orders; with ties against the query, see --json'] : [];
  return ['', ...alignColumns(rows), ...note];
}

/** Lines of one model's layers. */
function layerLines({ mir }: Alignment): string[] {
  if (!mir) return [];
  const header = ['layer', 'distance', 'equal norm', 'image norm', 'text norm', 'ratio', 'outliers'];
  const rows = mir.layers.map((layer) => [
    String(layer.layer),
    number(layer.distance)!,
    number(layer.equalNormDistance)!,
    number(layer.imageNorm)!,
    number(layer.textNorm)!,
    number(layer.normRatio)!,
    `${layer.imageOutliers} + ${layer.textOutliers}`,
  ]);
  return ['', ...alignColumns([header, ...rows])];
}

/** Everything as tables. */
export function formatAlignment({ models, data, texts, samples, seed }: AlignmentReport): string {
  const names = models.map(({ name }) => name);
  const rows = overview.flatMap(([label, cell]) => {
    const cells = models.map((model) => cell(model));
    return cells.every((text) => text === undefined) ? [] : [[label, ...cells.map((text) => text ?? '')]];
  });
  const details = models.flatMap((model) => {
    const lines = [...layerLines(model), ...retrievalLines(model)];
    return models.length > 1 && lines.length > 0 ? ['', `=== ${model.name} ===`, ...lines] : lines;
  });
  const source = `${formatCount(samples)} pictures: ${data}; texts of MIR: ${texts}; seed ${seed}`;
  return [source, '', ...alignColumns([['', ...names], ...rows]), ...details].join('\n');
}
