// What `explain` shows of many questions: tables for the terminal and a page.

import type { PixelImage } from '../images/pixels.ts';
import { escapeHtml, htmlPage, textTable } from '../runs/page.ts';
import type { Mean } from '../statistics/proportion.ts';
import { type BatchLine, type BatchSummary, SCORES } from './batch.ts';
import { MAP_NAMES } from './explanation.ts';
import { KEPT_SHARES, LEAST_GAIN, RANDOM_ORDERS } from './faithfulness.ts';
import type { Grid } from './maps.ts';
import { pictureUri } from './overlay.ts';
import { MAP_STYLE, mapHtml, pictureStyle } from './page.ts';

const NAMES: Record<string, string> = { ...MAP_NAMES, oracle: 'oracle: the box', random: `random, ${RANDOM_ORDERS} orders` };

/** The maps in the order of pages. */
const inOrder = (all: Record<string, unknown>) => Object.keys(NAMES).filter((name) => name in all);

type Row = readonly string[];

const interval = ({ value, low, high }: { value: number; low: number; high: number }) =>
  `${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
const signed = ({ value, low, high }: { value: number; low: number; high: number }) =>
  `${value < 0 ? '' : '+'}${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;

interface Table {
  title: string;
  note: string;
  rows: Row[];
}

function faithfulnessTables(summary: BatchSummary): Table[] {
  const { faithfulness } = summary;
  if (!faithfulness) return [];
  const n = Math.max(...Object.values(faithfulness).map((each) => each.n));
  const table = (title: string, note: string, kind: 'mean' | 'overRandom', format: typeof interval): Table => ({
    title,
    note,
    rows: [
      ['map', ...SCORES],
      ...inOrder(faithfulness)
        .filter((name) => kind === 'mean' || name !== 'random')
        .map((name) => [
          NAMES[name],
          ...SCORES.map((score) => (faithfulness[name][kind][score] ? format(faithfulness[name][kind][score]) : '-')),
        ]),
    ],
  });
  return [
    table(
      `Faithfulness, ${n} questions`,
      `Areas under log P of the answer, 0 without the picture and 1 with it. Deletion and positive perturbation: the lower, the better; insertion and negative perturbation: the higher, the better. Perturbation keeps shares ${KEPT_SHARES.join(', ')}. Left out: ${summary.withoutGain} answers to which the picture is worth less than ${LEAST_GAIN.toFixed(2)} nats.`,
      'mean',
      interval,
    ),
    table(
      'Against a random order',
      'Difference on the same questions, bootstrap interval with pictures drawn as a whole.',
      'overRandom',
      signed,
    ),
  ];
}

function pointingTables({ pointing }: BatchSummary): Table[] {
  if (!pointing) return [];
  const { maps, chance, drawing, byTask } = pointing;
  const questions = Object.values(maps)[0].n;
  const tasks = Object.keys(byTask);
  const drawn = drawing === undefined ? '' : `, one of the drawings at random ${drawing.toFixed(3)}`;
  return [
    {
      title: `Pointing game, ${questions} questions`,
      note: `Share of maps whose largest patch lies in the box of what is asked about. A patch at random: ${chance.toFixed(3)}${drawn}. Mass: the part of the map inside the box.`,
      rows: [
        ['map', 'hits', 'mass', 'hits beyond raw attention', 'mid-p'],
        ...inOrder(maps).map((name) => {
          const { overAttention, mass } = maps[name];
          return [
            NAMES[name],
            interval(maps[name]),
            mass.toFixed(3),
            overAttention ? signed(overAttention) : '-',
            overAttention ? overAttention.midP.toPrecision(2) : '-',
          ];
        }),
      ],
    },
    {
      title: 'Hits by task',
      note: '',
      rows: [
        ['map', ...tasks.map((task) => `${task} (${Object.values(byTask[task])[0].n})`)],
        ...inOrder(maps).map((name) => [NAMES[name], ...tasks.map((task) => interval(byTask[task][name] as Mean))]),
      ],
    },
  ];
}

const tablesOf = (summary: BatchSummary) => [...pointingTables(summary), ...faithfulnessTables(summary)];

/** The tables for a terminal. */
export function batchTables(summary: BatchSummary): string {
  return tablesOf(summary)
    .map(({ title, rows }) => {
      const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
      return [
        title,
        ...rows.map((row) =>
          row
            .map((text, column) => text.padEnd(widths[column]))
            .join('  ')
            .trimEnd(),
        ),
      ].join('\n');
    })
    .join('\n\n');
}

/** Questions with their maps that a page shows. */
export const CARDS = 48;

/** A question with the relevancy map of its answer; `picture` is what the encoder sees. */
export async function batchCard(
  { id, prompt = '', answer = '', expected, maps, faithfulness }: BatchLine,
  picture: PixelImage,
  grid: Grid,
): Promise<string> {
  const random = faithfulness?.scores?.random;
  const worth = random
    ? `a random order: deletion ${random.deletion.toFixed(2)}, insertion ${random.insertion.toFixed(2)}`
    : faithfulness
      ? `the picture is worth ${(faithfulness.full - faithfulness.blank).toFixed(2)} nats: nothing to explain`
      : 'not measured';
  const figure = await mapHtml('relevancy', Float32Array.from(maps!.relevancy), grid, faithfulness?.scores);
  const right = expected === undefined ? '' : `<dt>expected</dt><dd>${escapeHtml(expected)}</dd>`;
  const style = pictureStyle(await pictureUri(picture));
  return `<div style="${style}"><small>${escapeHtml(id)}</small>${figure}<p class="note">${worth}</p><dl><dt>asked</dt><dd>${escapeHtml(prompt)}</dd><dt>answered</dt><dd>${escapeHtml(answer)}</dd>${right}</dl></div>`;
}

/** The page, with `cards` of the first questions. */
export function batchPage(summary: BatchSummary, lines: readonly BatchLine[], cards: readonly string[], title: string): string {
  const tables = tablesOf(summary).map(
    ({ title, note, rows: [head, ...rows] }) => `<h2>${escapeHtml(title)}</h2><p class="note">${escapeHtml(note)}</p>
${textTable(head, rows)}`,
  );
  const problems = lines.filter(({ problem }) => problem !== undefined);
  const list = problems.map(({ id, problem }) => `<li>${escapeHtml(`${id}: ${problem}`)}</li>`).join('');
  return htmlPage(
    title,
    `<style>td:first-child { text-align: left; } ${MAP_STYLE} .cards { display: grid; gap: 20px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); }</style>
<p class="note">${summary.questions} questions; ${summary.problems} could not be explained. The lines behind these tables are in questions.jsonl.</p>
${tables.join('\n')}${cards.length === 0 ? '' : `<h2>Relevancy of the first ${cards.length} answers</h2><div class="cards">${cards.join('\n')}</div>`}${list === '' ? '' : `<h2>Not explained</h2><ul>${list}</ul>`}`,
  );
}
