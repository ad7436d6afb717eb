// What a chosen word rests on: its map over the picture, and what the map is worth.

import { heatGradient } from '../explain/colors.ts';
import { MAP_KINDS, MAP_NAMES, type MapKind } from '../explain/explanation.ts';
import type { AnswerExplanation, Explainer, Question } from './answerer.ts';
import { byId, make } from './dom.ts';
import type { PicturePanel } from './picture-panel.ts';
import { Problem } from './problems.ts';
import type { AnswerView, Chosen } from './turns.ts';
import { partAt } from './words.ts';

/**
 * Milliseconds: where the maps themselves take longer, what they are worth is measured only when it is asked
 * for. The first ones of a model wait for its programs.
 */
const QUICK = 6000;
/** Times that measuring takes longer than making the maps. */
const MEASURING = 20;

/** An answer that can be explained. */
export interface Explainable {
  question: Question;
  answer: string;
  view: AnswerView;
}

export interface ExplanationPanel {
  show(of: Explainable, word: Chosen): void;
  close(): void;
  readonly isOpen: boolean;
}

/** What was asked for about an answer. It ends where the word that it was asked for is left. */
interface Asked {
  explanation: Promise<AnswerExplanation>;
  signal: AbortSignal;
  state: 'running' | 'done' | 'failed';
  /** Milliseconds that it took. */
  took: number;
}

/** Explanations of an answer, each map of a part measured once. */
interface Found {
  maps: Asked;
  /** By part and kind of map. */
  measured: Map<string, Asked>;
}

/** What was asked for before, unless it failed or was left; or the same anew. */
function again(before: Asked | undefined, ask: () => Promise<AnswerExplanation>, signal: AbortSignal): Asked {
  if (before?.state === 'done' || (before?.state === 'running' && !before.signal.aborted)) return before;
  const start = performance.now();
  const asked: Asked = { explanation: ask(), signal, state: 'running', took: 0 };
  asked.explanation.then(
    () => Object.assign(asked, { state: 'done', took: performance.now() - start }),
    () => Object.assign(asked, { state: 'failed' }),
  );
  return asked;
}

export function setUpExplanations(answerer: Explainer, pictures: PicturePanel): ExplanationPanel {
  const panel = byId('explanation');
  const known = new WeakMap<AnswerView, Found>();
  let shown: { of: Explainable; start: number; stop: AbortController } | undefined;
  let kind: MapKind = 'relevancy';

  function close(): void {
    shown?.stop.abort();
    shown?.of.view.release(panel.contains(document.activeElement));
    shown = undefined;
    panel.hidden = true;
    panel.replaceChildren();
    pictures.hideMap();
    byId('examples').hidden = pictures.picture !== undefined;
  }

  const keyOf = (part: number) => `${part} ${kind}`;

  /** Maps of an answer. */
  function mapsOf({ question, answer, view }: Explainable, signal: AbortSignal): Found {
    const before = known.get(view);
    const maps = again(before?.maps, () => answerer.explain(question, answer, { parts: [], kind }, signal), signal);
    const found = maps === before?.maps ? before : { maps, measured: new Map() };
    known.set(view, found);
    return found;
  }

  function measure({ measured }: Found, { question, answer }: Explainable, part: number, signal: AbortSignal): Promise<AnswerExplanation> {
    const key = keyOf(part);
    const asked = again(measured.get(key), () => answerer.explain(question, answer, { parts: [part], kind }, signal), signal);
    measured.set(key, asked);
    return asked.explanation;
  }

  async function show(of: Explainable, word: Chosen): Promise<void> {
    const isSame = shown?.of === of && shown.start === word.start;
    close();
    if (isSame) return;
    const stop = new AbortController();
    shown = { of, start: word.start, stop };
    const body = make('div', {}, make('p', { class: 'fine' }, 'Looking inside...'));
    const name = `“${word.text}”`;
    panel.replaceChildren(headOf(name, close), body);
    panel.hidden = false;
    byId('examples').hidden = true;
    // in a narrow window the picture is above the words
    if (getComputedStyle(document.body).display === 'block') byId('stage').scrollIntoView({ block: 'start' });
    try {
      const found = mapsOf(of, stop.signal);
      const explanation = await found.maps.explanation;
      stop.signal.throwIfAborted();
      const part = partAt(explanation.parts, of.answer, word.start);
      const worth = make('div', {});
      const measureKind = (own: MapKind) =>
        showWorth(worth, found, of, part, stop.signal).catch((error: unknown) => {
          if (!stop.signal.aborted && kind === own) worth.replaceChildren(make('p', { class: 'problem' }, (error as Error).message));
        });
      body.replaceWith(...mapParts(explanation, part, name, () => void measureKind(kind)), worth);
      await showWorth(worth, found, of, part, stop.signal);
    } catch (error) {
      if (stop.signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      panel.replaceChildren(headOf(name, close), make('p', { class: 'problem', role: 'alert' }, error.message));
    }
  }

  /** The list of maps, the shares and the scale; draws the map that is chosen. */
  function mapParts(explanation: AnswerExplanation, part: number, name: string, onKind: () => void): HTMLElement[] {
    const { maps, onImage, first, count } = explanation.parts[part];
    const kinds = MAP_KINDS.filter((each) => maps[each]);
    const select = make('select', {}, ...kinds.map((each) => make('option', { value: each, selected: each === kind }, MAP_NAMES[each])));
    const draw = () => pictures.showMap(maps[kind]!, explanation, `${name}, ${MAP_NAMES[kind]}`);
    select.addEventListener('change', () => {
      kind = select.value as MapKind;
      draw();
      onKind();
    });
    draw();
    const bar = make('i', {});
    bar.style.background = heatGradient();
    const probability = explanation.tokens.slice(first, first + count).reduce((product, token) => product * token.probability, 1);
    return [
      make('label', {}, 'Map', select),
      make('p', { class: 'scale' }, 'none', bar, 'most'),
      make(
        'p',
        { class: 'fine' },
        `${percent(onImage)} of its relevancy lies on the picture, the rest on words. The model gave it a probability of ${probability.toPrecision(2)}.`,
      ),
    ];
  }

  async function showWorth(into: HTMLElement, found: Found, of: Explainable, part: number, signal: AbortSignal): Promise<void> {
    const own = kind;
    const run = async () => {
      into.replaceChildren(make('p', { class: 'fine' }, 'Measuring what the map is worth...'));
      const measured = await measure(found, of, part, signal);
      signal.throwIfAborted();
      // another map may be looked at by now
      if (kind === own) into.replaceChildren(...worthParts(measured.parts[part], own));
    };
    if (found.maps.took < QUICK || found.measured.get(keyOf(part))?.state === 'done') return run();
    const button = make('button', { type: 'button' }, 'Measure what the map is worth');
    const minutes = Math.ceil((found.maps.took * MEASURING) / 60_000);
    const time = `about ${minutes} ${minutes === 1 ? 'minute' : 'minutes'}`;
    into.replaceChildren(
      make('p', { class: 'fine' }, `Nobody has measured what it is worth, which takes ${time} with this model.`),
      button,
    );
    button.addEventListener('click', () => {
      run().catch((error: unknown) => {
        if (!signal.aborted) into.replaceChildren(make('p', { class: 'problem' }, (error as Error).message));
      });
    });
  }

  return {
    show: (of, word) => void show(of, word),
    close,
    get isOpen() {
      return shown !== undefined;
    },
  };
}

function headOf(name: string, close: () => void): HTMLElement {
  const button = make('button', { class: 'link', type: 'button' }, 'Close');
  button.addEventListener('click', close);
  return make('header', {}, make('h3', {}, `What ${name} rests on`), button);
}

const percent = (share: number) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

/** The scores of the map beside those of raw attention and of a random order, and the verdict. */
function worthParts({ faithfulness, verdict }: AnswerExplanation['parts'][number], kind: MapKind): HTMLElement[] {
  const said = make('p', { class: 'fine' }, verdict ?? '');
  const scores = faithfulness?.scores;
  if (!scores) return [said];
  const row = (name: string, value: number, isOwn = false) => {
    const fill = make('i', {});
    fill.style.width = `${Math.min(100, Math.max(0, 100 * value))}%`;
    const track = make('span', { class: isOwn ? 'track own' : 'track' }, fill);
    return make(
      'tr',
      {},
      make('th', { scope: 'row' }, name),
      make('td', {}, make('span', { class: 'cell' }, track, make('span', {}, value.toFixed(2)))),
    );
  };
  const group = (title: string, score: 'deletion' | 'insertion') => [
    make('tr', {}, make('th', { scope: 'colgroup', colspan: '2' }, title)),
    row(MAP_NAMES[kind], scores[kind][score], true),
    ...(kind === 'attention' ? [] : [row('raw attention', scores.attention[score])]),
    row('random order', scores.random[score]),
  ];
  const table = make(
    'table',
    { class: 'worth' },
    make('caption', { class: 'hidden' }, `Faithfulness of the map: ${MAP_NAMES[kind]}`),
    make('tbody', {}, ...group('Its patches taken away: low is good', 'deletion'), ...group('Put back: high is good', 'insertion')),
  );
  return [said, table];
}
