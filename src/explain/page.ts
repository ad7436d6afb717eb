// index.html of an explanation: the answer's words, each with its maps over the picture, and what they are
// worth. It opens offline and runs no script: a word is a radio button.

import type { PixelImage } from '../images/pixels.ts';
import { escapeHtml, htmlPage, textTable } from '../runs/page.ts';
import { heatGradient } from './colors.ts';
import { type Explanation, MAP_KINDS, MAP_NAMES, type MapKind } from './explanation.ts';
import type { Faithfulness, FaithfulnessScores } from './faithfulness.ts';
import type { Grid } from './maps.ts';
import { dataUri, heatUri, pictureUri, sheetOf, sheetPng } from './overlay.ts';
import { type ExplainedPart, headMaps } from './report.ts';
import { verdict } from './verdict.ts';

/** How a map lies over its picture, which is `--picture` of what it lies in: once a page, not once a map. */
export const MAP_STYLE = `.map { background: #000; border-radius: 6px; overflow: hidden; position: relative; } .map div { aspect-ratio: 1; background: var(--picture) 0 0 / 100% 100%; filter: saturate(.35); image-rendering: pixelated; print-color-adjust: exact; } .map img { display: block; image-rendering: pixelated; left: 0; position: absolute; top: 0; }`;

/** The declaration that MAP_STYLE asks for; `picture` is a data URI. */
export const pictureStyle = (picture: string) => `--picture:url(${picture})`;

const style = (parts: number) => `<style>
.words input { opacity: 0; position: absolute; } .words label { border: 1px solid var(--line); border-radius: 6px; cursor: pointer; display: inline-block; font-size: 18px; margin: 0 6px 8px 0; padding: 4px 12px; }
.words input:checked + label { background: var(--blue); border-color: var(--blue); color: #fff; } .words input:focus-visible + label { outline: 3px solid var(--text); outline-offset: 2px; }
.part { display: none; } .maps { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 200px), 1fr)); } .maps figure:first-child { grid-column: span 2; grid-row: span 2; max-width: none; }
.tokens { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)); }
@media (max-width: 460px) { .maps figure:first-child { grid-column: auto; } }
${MAP_STYLE}
td:first-child { text-align: left; } .scale { border-radius: 4px; height: 10px; max-width: 240px; } .prompt span { border-radius: 4px; padding: 1px 3px; } .heads { width: auto; } .heads th { text-align: center; } .heads td { font-size: 12px; padding: 2px 4px; text-align: center; } .heads i { background: var(--heads); border-radius: 3px; display: block; image-rendering: pixelated; margin: 0 auto; print-color-adjust: exact; } .lens td { font-size: 12px; text-align: center; }
${Array.from({ length: parts }, (_, i) => `body:has(#word-${i}:checked) #part-${i}`).join(', ')} { display: block; }
</style>`;

const percent = (share: number) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** A map over the picture (MAP_STYLE), with what is said of it. */
async function figureHtml(map: Float32Array, grid: Grid, alt: string, caption: string): Promise<string> {
  const [width, height] = [grid.columns, grid.rows].map((count) => `${((100 * count * grid.patch) / grid.size).toFixed(3)}%`);
  return `<figure><div class="map"><div></div><img style="width:${width};height:${height}" src="${await heatUri(map, grid)}" alt="${escapeHtml(alt)} over the picture"></div><figcaption>${caption}</figcaption></figure>`;
}

/** A map of a kind over the picture (MAP_STYLE), with what it is worth. */
export async function mapHtml(kind: MapKind, map: Float32Array, grid: Grid, scores: Faithfulness['scores']): Promise<string> {
  const name = MAP_NAMES[kind];
  const own = scores?.[kind];
  const worth = own ? `<br>deletion ${own.deletion.toFixed(2)}, insertion ${own.insertion.toFixed(2)}` : '';
  return figureHtml(map, grid, name, `${escapeHtml(name)}${worth}`);
}

function scoresHtml({ scores }: Faithfulness): string {
  if (!scores) return '';
  const hasPerturbation = scores.random.positive !== undefined;
  const row = ([name, { deletion, insertion, positive, negative }]: readonly [string, FaithfulnessScores]) => {
    const cells = [deletion, insertion, ...(hasPerturbation ? [positive, negative] : [])];
    return [MAP_NAMES[name as MapKind] ?? 'random order, mean of 5', ...cells.map((value) => value?.toFixed(3) ?? '\u2013')];
  };
  const more = hasPerturbation ? ['positive perturbation (low)', 'negative (high)'] : [];
  const ordered = [...MAP_KINDS, 'random'].filter((name) => scores[name]).map((name) => [name, scores[name]] as const);
  return textTable(['map', 'deletion (low is good)', 'insertion (high is good)', ...more], ordered.map(row));
}

/** The words of the prompt, shaded by their share. */
function promptHtml({ promptWords }: Explanation, { onPrompt }: ExplainedPart): string {
  const most = Math.max(...onPrompt, 1e-9);
  const word = (text: string, share: number) =>
    `<span style="background:color-mix(in srgb, var(--blue) ${Math.round((70 * share) / most)}%, transparent)" title="${percent(share)}">${escapeHtml(text === '' ? '\u21b5' : text)}</span>`;
  return `<p class="prompt">${promptWords.map(({ text }, i) => word(text, onPrompt[i])).join(' ')}</p>`;
}

/** A part's `headMaps` as a PNG, a line a layer. */
export const headSheet = (explanation: Explanation, part: ExplainedPart): Promise<Buffer> => {
  const { heads, layout } = explanation;
  return sheetPng(headMaps(explanation, part), sheetOf(heads.heads, layout.grid), layout.grid);
};

/** The attention of each layer and head on the picture, and how much of it lies there. */
function headsHtml(explanation: Explanation, part: ExplainedPart, sheetOfPart: Buffer): string {
  const { heads, layout } = explanation;
  const maps = headMaps(explanation, part);
  const sheet = sheetOf(heads.heads, layout.grid);
  const [width, height] = [layout.grid.columns, layout.grid.rows].map((patches) => patches * sheet.scale);
  const cell = (layer: number, head: number) => {
    const share = maps[layer * heads.heads + head].reduce((sum, value) => sum + value, 0);
    const place = `${-head * (width + sheet.gap)}px ${-layer * (height + sheet.gap)}px`;
    return `<td><i style="background-position:${place}"></i>${share.toFixed(2)}</td>`;
  };
  const across = Array.from({ length: heads.heads }, (_, head) => head);
  const rows = Array.from(
    { length: heads.layers },
    (_, layer) => `<tr><th scope="row">layer ${layer + 1}</th>${across.map((head) => cell(layer, head)).join('')}</tr>`,
  );
  const names = across.map((head) => `<th>head ${head + 1}</th>`).join('');
  return `<details><summary>Attention on the picture, by layer and head</summary><p class="note">Each from 0 to its own largest value; below, the share of the head's attention that lies on the picture.</p>
<style>#heads-${part.first}-${part.count} { --heads: url(${dataUri(sheetOfPart)}) } #heads-${part.first}-${part.count} i { height: ${height}px; width: ${width}px }</style>
<div class="scroll" tabindex="0"><table class="heads" id="heads-${part.first}-${part.count}"><thead><tr><td></td>${names}</tr></thead><tbody>${rows.join('')}</tbody></table></div></details>`;
}

/** The relevancy of each token of a word that has several. */
async function tokensHtml({ tokens, maps, layout }: Explanation, { first, count }: ExplainedPart): Promise<string> {
  if (count < 2) return '';
  const figures = tokens.slice(first, first + count).map(({ text, probability }, i) => {
    const shown = text.trim() === '' ? JSON.stringify(text) : text.trim();
    const caption = `${escapeHtml(shown)}<br>P = ${probability.toPrecision(3)}`;
    return figureHtml(maps.relevancy[first + i], layout.grid, `relevancy of ${shown}`, caption);
  });
  return `<details><summary>Relevancy token by token</summary><div class="tokens">${(await Promise.all(figures)).join('')}</div></details>`;
}

async function partHtml(explanation: Explanation, part: ExplainedPart, index: number, sheet: Buffer): Promise<string> {
  const kinds = MAP_KINDS.filter((kind) => part.maps[kind]);
  const figures = await Promise.all(
    kinds.map((kind) => mapHtml(kind, part.maps[kind], explanation.layout.grid, part.faithfulness?.scores)),
  );
  const { tokens } = explanation;
  const probability = tokens.slice(part.first, part.first + part.count).reduce((product, token) => product * token.probability, 1);
  return `<section class="part" id="part-${index}">
<p>P = ${probability.toPrecision(3)}; ${percent(part.onImage)} of its relevancy lies on the picture. <b>${escapeHtml(verdict(part))}</b></p>
<div class="maps">${figures.join('')}</div>
<p class="note">Each map is colored from 0 to its own largest value: <span class="scale" style="background:${heatGradient()};display:inline-block;vertical-align:middle;width:120px"></span></p>
${part.faithfulness ? scoresHtml(part.faithfulness) : ''}
<h2>On the words of the prompt</h2>${promptHtml(explanation, part)}
${await tokensHtml(explanation, part)}
${headsHtml(explanation, part, sheet)}
</section>`;
}

/** The likeliest token of each patch's row, layer by layer. */
function lensHtml({ lens, layout }: Explanation): string {
  if (!lens) return '';
  const { grid, rowOf, patchOf } = layout;
  const layer = ({ texts, probabilities }: NonNullable<Explanation['lens']>[number], number: number) => {
    const cells = new Array<string>(grid.rows * grid.columns).fill('<td></td>');
    texts.forEach((text, token) => {
      const patch = patchOf(rowOf(token));
      if (patch >= 0) cells[patch] = `<td title="P = ${probabilities[token].toPrecision(2)}">${escapeHtml(text.trim())}</td>`;
    });
    const rows = Array.from(
      { length: grid.rows },
      (_, row) => `<tr>${cells.slice(row * grid.columns, (row + 1) * grid.columns).join('')}</tr>`,
    );
    const name = number === 0 ? 'As the rows come in' : `After layer ${number}`;
    return `<details><summary>${name}</summary><div class="scroll" tabindex="0"><table class="lens"><tbody>${rows.join('')}</tbody></table></div></details>`;
  };
  return `<h2>Logit lens of the image rows</h2><p class="note">The token that each patch's row would predict if its layer were the last. Early layers say little.</p>${lens.map(layer).join('')}`;
}

/** The page; `picture` is what the encoder sees, `sheets` the `headSheet` of each part. */
export async function explanationPage(
  explanation: Explanation,
  parts: readonly ExplainedPart[],
  picture: PixelImage,
  sheets: readonly Buffer[],
): Promise<string> {
  const uri = pictureStyle(await pictureUri(picture));
  const radio = ({ text }: ExplainedPart, i: number) =>
    `<input type="radio" name="word" id="word-${i}"${i === 0 ? ' checked' : ''}><label for="word-${i}">${escapeHtml(i === 0 && parts.length > 1 ? 'the whole answer' : text)}</label>`;
  const sections = await Promise.all(parts.map((part, i) => partHtml(explanation, part, i, sheets[i])));
  return htmlPage(
    explanation.answer,
    `${style(parts.length)}<style>body { ${uri} }</style><p class="note">${escapeHtml(explanation.prompt)}</p>
<fieldset class="words" style="border:0;padding:0"><legend class="dim">What does this word rest on?</legend>${parts.map(radio).join('')}</fieldset>
${sections.join('\n')}
${lensHtml(explanation)}
<p class="note">Deletion: patches are replaced by the mean row, the most relevant first, and log P of the words is followed from 1 (all of the picture) to 0 (none): the area under it. Insertion: they are put back in that order.</p>`,
  );
}
