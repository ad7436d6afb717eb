// Questions with their pictures and what was answered, for pages.

import { UserError } from '../errors.ts';
import { thumbnail } from '../images/thumbnail.ts';
import { escapeHtml } from '../runs/page.ts';
import type { QuestionPicture } from './benchmark.ts';

/** What a page shows of a question. */
export interface Card {
  /** Where it belongs: benchmark and id. */
  from: string;
  prompt: string;
  pictures: readonly QuestionPicture[];
  references: readonly string[];
  /** Who answered what, and what it earned in [0, 1]. */
  answers: readonly { by: string; text: string; credit: number }[];
}

/** A picture as HTML; one that cannot be read is named. */
async function pictureHtml({ name, read }: QuestionPicture): Promise<string> {
  try {
    return `<img src="${await thumbnail(await read(), name)}" alt="${escapeHtml(name)}">`;
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return `<small>${escapeHtml(error.message)}</small>`;
  }
}

const referencesOf = (references: readonly string[]) => {
  const counts = new Map<string, number>();
  for (const reference of references) counts.set(reference, (counts.get(reference) ?? 0) + 1);
  return [...counts].map(([reference, count]) => (count > 1 ? `${reference} (${count})` : reference)).join(', ');
};

function verdictHtml(credit: number): string {
  const sign = credit === 1 ? '&#10003;' : credit === 0 ? '&#10007;' : credit.toFixed(2);
  return `<span class="verdict ${credit >= 0.5 ? 'good' : 'bad'}">${sign}</span>`;
}

async function cardHtml({ from, prompt, pictures, references, answers }: Card): Promise<string> {
  const images = await Promise.all(pictures.map(pictureHtml));
  const text = escapeHtml(prompt.replaceAll('<image>', '').trim()).replaceAll('\n', '<br>');
  const items = answers.map(
    ({ by, text: answer, credit }) =>
      `<dt>${escapeHtml(by)}</dt><dd><b>${escapeHtml(answer) || '(nothing)'}</b> ${verdictHtml(credit)}</dd>`,
  );
  const expected = references.length === 0 ? '' : `<dt>expected</dt><dd>${escapeHtml(referencesOf(references))}</dd>`;
  const isRight = answers.every(({ credit }) => credit === 1);
  return `<article><div>${images.join('\n')}</div><div><small>${escapeHtml(from)}</small>
    <div class="answer ${isRight ? 'right' : 'wrong'}"><p>${text}</p><dl>${expected}${items.join('\n')}</dl></div></div></article>`;
}

/** Cards side by side, read one after the other: pictures may be large. */
export async function galleryHtml(cards: readonly Card[]): Promise<string> {
  const all: string[] = [];
  for (const card of cards) all.push(await cardHtml(card));
  return `<div class="gallery">${all.join('\n')}</div>`;
}
