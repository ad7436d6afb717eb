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

/** Questions each way. */
const SHOWN = 4;

/** `yes x 3, no x 2`, the most frequent first. */
function answersText(answers: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 3);
  return sorted.map(([answer, count]) => `${answer || '(nothing)'}${count > 1 ? ` x ${count}` : ''}`).join(', ');
}

/**
 * Those that the one arm gets right more often than the other, and the other way round: each picture once.
 */
function disagreements({ questions }: ScoreTable, arms: readonly [Arm, Arm]): Disagreement[] {
  const meanOf = ({ runs }: Arm, i: number) => runs.reduce((sum, { credits }) => sum + credits[i], 0) / runs.length;
  const differences = questions.map((_, i) => ({ i, difference: meanOf(arms[0], i) - meanOf(arms[1], i) }));
  const chosen = [1, -1].flatMap((sign) => {
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
  return chosen.map(({ i }) => ({
    question: questions[i],
    answers: arms.map(({ name, runs }) => ({
      arm: name,
      right: runs.filter(({ credits }) => credits[i] === 1).length,
      all: runs.length,
      texts: answersText(runs.map(({ answers }) => answers[i])),
    })),
  }));
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

/** For each factor, its last level against its first, over the runs of one score. */
export async function disagreementsHtml(study: Study, table: ScoreTable): Promise<string> {
  const picture = await pictureReader(study);
  const parts = study.factors.map(({ name, levels }, factor) => {
    const arm = (index: number): Arm => ({
      name: `${name}: ${levels[index].label}`,
      runs: table.runs.filter(({ run }) => run.variant.levels[factor] === index),
    });
    const arms: [Arm, Arm] = [arm(0), arm(levels.length - 1)];
    if (arms.some(({ runs }) => runs.length === 0)) return '';
    const found = disagreements(table, arms);
    const body =
      found.length === 0
        ? '<p class="note">They agree on every question.</p>'
        : `<div class="gallery arms">${found.map((each) => card(each, picture(each.question.picture))).join('\n')}</div>`;
    return `<h3>${escapeHtml(arms[0].name)} against ${escapeHtml(arms[1].name)}</h3>${body}`;
  });
  return parts.join('\n');
}
