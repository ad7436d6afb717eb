// The questions on which two arms of a study disagree most, with their pictures and what was answered.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { escapeHtml } from '../runs/page.ts';
import type { ScoreTable } from './answers.ts';
import { drawOnce } from './execute.ts';
import { withScenes } from './pieces.ts';
import type { Study } from './variants.ts';

interface Arm {
  name: string;
  runs: ScoreTable['runs'];
}

interface Disagreement {
  question: ScoreTable['questions'][number];
  answers: { arm: string; right: number; all: number; texts: string }[];
}

/** Questions each way: at once, and in all. */
const AT_ONCE = 4;
const SHOWN = 12;

/** `yes x 3, no x 2`, the most frequent first. */
function answersText(answers: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 3);
  return sorted.map(([answer, count]) => `${answer || '(nothing)'}${count > 1 ? ` x ${count}` : ''}`).join(', ');
}

/** What two arms answer otherwise. */
interface Disagreements {
  /**
   * Those that the one arm gets right more often than the other, and the other way round: each picture once.
   */
  chosen: [Disagreement[], Disagreement[]];
  /** How many questions there are of each kind. */
  counts: [number, number];
}

function disagreements({ questions }: ScoreTable, arms: readonly [Arm, Arm]): Disagreements {
  const meanOf = ({ runs }: Arm, i: number) => runs.reduce((sum, { credits }) => sum + credits[i], 0) / runs.length;
  const differences = questions.map((_, i) => ({ i, difference: meanOf(arms[0], i) - meanOf(arms[1], i) }));
  const chosen = [1, -1].map((sign) => {
    const seen = new Set<string>();
    return differences
      .filter(({ difference }) => sign * difference > 0)
      .sort((a, b) => sign * (b.difference - a.difference) || a.i - b.i)
      .filter(({ i }) => {
        const isNew = !seen.has(questions[i].cluster);
        seen.add(questions[i].cluster);
        return isNew;
      })
      .slice(0, SHOWN);
  });
  const shown = chosen.map((those) =>
    those.map(({ i }) => ({
      question: questions[i],
      answers: arms.map(({ name, runs }) => ({
        arm: name,
        right: runs.filter(({ credits }) => credits[i] === 1).length,
        all: runs.length,
        texts: answersText(runs.map(({ answers }) => answers[i])),
      })),
    })),
  );
  const countOf = (sign: number) => differences.filter(({ difference }) => sign * difference > 0).length;
  return { chosen: shown as Disagreements['chosen'], counts: [countOf(1), countOf(-1)] };
}

/** The first picture folder in which a scene lies, drawn again where it was removed. */
async function pictureReader(study: Study): Promise<(name: string | undefined) => string | undefined> {
  const folders = new Map<string, (typeof study.variants)[number]['recipe']>();
  for (const { recipe } of study.variants) {
    const { data } = withScenes(recipe);
    if (data) folders.set(join(data.folder, 'images'), recipe);
  }
  for (const [folder, recipe] of folders) if (!existsSync(folder)) await drawOnce(recipe);
  return (name) => {
    const path = name === undefined ? undefined : [...folders.keys()].map((folder) => join(folder, name)).find((each) => existsSync(each));
    return path && `data:image/png;base64,${readFileSync(path).toString('base64')}`;
  };
}

function card({ question, answers }: Disagreement, picture: string | undefined): string {
  const prompt = escapeHtml(question.prompt.replaceAll('<image>', '').trim()).replaceAll('\n', '<br>');
  const rows = answers.map(
    ({ arm, right, all, texts }) =>
      `<dt>${escapeHtml(arm)}</dt><dd><b>${escapeHtml(texts)}</b> <span class="dim">right in ${right} of ${all}</span></dd>`,
  );
  const image = picture ? `<img src="${picture}" alt="">` : '<span></span>';
  return `<article>${image}<div class="answer"><p>${prompt}</p><dl><dt>expected</dt><dd>${escapeHtml(question.expected)}</dd>${rows.join('')}</dl></div></article>`;
}

/** For each factor, its levels against the first one, over the runs of one score. */
function ofScore(study: Study, table: ScoreTable, picture: (name: string | undefined) => string | undefined): string {
  const cards = (list: readonly Disagreement[]) =>
    `<div class="gallery arms">${list.map((each) => card(each, picture(each.question.picture))).join('\n')}</div>`;
  const parts = study.factors.flatMap(({ name, levels }, factor) =>
    levels.slice(1).map((_, last) => {
      const arm = (index: number): Arm => ({
        name: `${name}: ${levels[index].label}`,
        runs: table.runs.filter(({ run }) => run.variant.levels[factor] === index),
      });
      const arms: [Arm, Arm] = [arm(0), arm(last + 1)];
      if (arms.some(({ runs }) => runs.length === 0)) return '';
      const { chosen, counts } = disagreements(table, arms);
      const head = `<h3>${escapeHtml(arms[0].name)} against ${escapeHtml(arms[1].name)}</h3>`;
      if (counts[0] + counts[1] === 0) return `${head}<p class="note">They agree on every question.</p>`;
      const rest = chosen.flatMap((each) => each.slice(AT_ONCE));
      return `${head}<p class="note">${counts[0]} questions are answered better by ${escapeHtml(arms[0].name)}, ${counts[1]} by ${escapeHtml(arms[1].name)}, of ${table.questions.length}.</p>
        ${cards(chosen.flatMap((each) => each.slice(0, AT_ONCE)))}${rest.length > 0 ? `<details><summary>more (${rest.length})</summary>${cards(rest)}</details>` : ''}`;
    }),
  );
  return parts.join('\n');
}

/** Over all scores, the first one open. */
export async function disagreementsHtml(study: Study, tables: readonly ScoreTable[]): Promise<string> {
  const picture = await pictureReader(study);
  return tables
    .map(
      (table, i) =>
        `<details${i === 0 ? ' open' : ''}><summary>${escapeHtml(table.name)}</summary>${ofScore(study, table, picture)}</details>`,
    )
    .join('\n');
}
