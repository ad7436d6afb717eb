// Teaching the model in the tab: pictures with what they show, training with its loss, and what came of it.

import { byId, make } from './dom.ts';
import { setUpDrawing } from './drawing-board.ts';
import { curvePoints } from './loss-curve.ts';
import { pastedFiles } from './picture-panel.ts';
import type { Lesson, TabAnswerer } from './tab-answerer.ts';

export interface TeachingPanelOptions {
  tab: TabAnswerer;
  /** What is added to a question, as it is when it is asked. */
  ending(): string;
  /** The person wants to ask about this picture. */
  onShow(picture: File): void;
  /** Asks for the model as it was before. */
  onReset(): void;
  onProblem(error: unknown): void;
}

export interface TeachingPanel {
  /** Shows or hides it; training that is under way ends, and what was learnt is no longer offered. */
  show(isShown: boolean): void;
}

/** A picture that was added, and where the person says what it shows. */
interface Entry {
  picture: File;
  text: HTMLInputElement;
  /** What the model says of it, while it learns and afterwards. */
  said: HTMLElement;
  item: HTMLElement;
}

/** Steps between answers while it learns. */
const STEPS_AN_ANSWER = 5;
/** Milliseconds after which a link to a file is given back: the browser has begun to save it. */
const SAVING = 60_000;
/** Of the picture of the curve, as its viewBox says. */
const [WIDTH, HEIGHT] = [300, 80];

export function setUpTeaching({ tab, ending, onShow, onReset, onProblem }: TeachingPanelOptions): TeachingPanel {
  const [train, stop, download, reset, add] = ['train', 'stop-training', 'download-model', 'reset-model', 'add-lessons'].map((id) =>
    byId<HTMLButtonElement>(id),
  );
  const [files, question, steps] = ['lesson-files', 'lesson-question', 'lesson-steps'].map((id) => byId<HTMLInputElement>(id));
  const [panel, list, taught, curve] = ['teach', 'lessons', 'taught', 'loss'].map((id) => byId(id));
  let entries: Entry[] = [];
  let training: AbortController | undefined;

  function addPicture(picture: File): void {
    const url = URL.createObjectURL(picture);
    const text = make('input', { type: 'text', 'aria-label': `What ${picture.name} shows`, placeholder: 'what it shows' });
    const look = make('button', { type: 'button', title: 'Ask about it' }, make('img', { src: url, alt: `Ask about ${picture.name}` }));
    const away = make('button', { type: 'button', class: 'link', 'aria-label': `Remove ${picture.name}` }, 'Remove');
    const said = make('span', { class: 'said fine' });
    const item = make('li', {}, look, text, away, said);
    const entry = { picture, text, said, item };
    look.addEventListener('click', () => onShow(picture));
    away.addEventListener('click', () => {
      entries = entries.filter((each) => each !== entry);
      item.remove();
      URL.revokeObjectURL(url);
      add.focus();
    });
    entries.push(entry);
    list.append(item);
  }

  /** Adds what of these is a picture. */
  function addPictures(given: Iterable<File>): void {
    const before = entries.length;
    for (const file of given) if (file.type.startsWith('image/')) addPicture(file);
    taught.textContent = '';
    entries[before]?.text.focus();
  }

  /** What the model says by now of this picture. */
  async function showAnswer(entry: Entry, signal: AbortSignal): Promise<void> {
    const answer = await tab.recite({ picture: entry.picture, question: question.value.trim() + ending() }, signal);
    entry.said.textContent = `It says: ${answer === '' ? '(nothing)' : answer}`;
  }

  /** What is to be learnt; undefined, and said, where something is missing. */
  function lessons(): Lesson[] | undefined {
    if (entries.length === 0) {
      taught.textContent = 'Add a picture first.';
      add.focus();
      return undefined;
    }
    const untold = [question, ...entries.map(({ text }) => text)].find(({ value }) => value.trim() === '');
    if (untold) {
      taught.textContent = untold === question ? 'Say what is asked.' : 'Say what each picture shows.';
      untold.focus();
      return undefined;
    }
    const asked = question.value.trim() + ending();
    return entries.map(({ picture, text }) => ({ picture, question: asked, answer: text.value.trim() }));
  }

  function showTraining(isSo: boolean): void {
    const hadFocus = document.activeElement === (isSo ? train : stop);
    train.hidden = isSo;
    stop.hidden = !isSo;
    if (hadFocus) (isSo ? stop : train).focus();
    download.disabled = reset.disabled = isSo;
  }

  function showLosses(losses: readonly number[], all: number): void {
    const told = `Step ${losses.length} of ${all}, loss ${losses.at(-1)!.toFixed(3)}`;
    byId('loss-text').textContent = told;
    const line = curve.querySelector('polyline')!;
    line.setAttribute('points', curvePoints(losses, all, WIDTH, HEIGHT));
    curve.querySelector('svg')!.setAttribute('aria-label', `Loss of each step. ${told}`);
    curve.hidden = download.hidden = reset.hidden = false;
  }

  async function learn(): Promise<void> {
    const all = Number(steps.value);
    if (training || !steps.reportValidity()) return;
    const taughtWith = lessons();
    if (!taughtWith) return;
    const own = new AbortController();
    training = own;
    const losses: number[] = [];
    taught.textContent = 'Training has begun.';
    showTraining(true);
    let asked = 0;
    let answering: Promise<void> | undefined;
    const onStep = ({ loss }: { loss: number }) => {
      losses.push(loss);
      if (training !== own) return;
      showLosses(losses, all);
      // one picture after the other: an answer costs about as much as a step
      const isDue = losses.length === 1 || losses.length % STEPS_AN_ANSWER === 0;
      if (answering || !isDue || entries.length === 0) return;
      answering = showAnswer(entries[asked++ % entries.length], own.signal)
        .catch(() => {})
        .finally(() => {
          answering = undefined;
        });
    };
    try {
      await tab.train(taughtWith, { steps: all, onStep, signal: own.signal });
    } catch (error) {
      if (!own.signal.aborted) onProblem(error);
    }
    // the panel may be another model's by now
    if (training !== own) return;
    await answering;
    // what it has learnt in the end; Stop ends that too
    const last = new AbortController();
    training = last;
    if (losses.length > 0)
      for (const entry of own.signal.aborted ? entries.slice(0, 1) : entries)
        if (!last.signal.aborted) await showAnswer(entry, last.signal).catch(() => {});
    if (training !== last) return;
    training = undefined;
    showTraining(false);
    taught.textContent = losses.length === 0 ? 'Nothing was learnt.' : resultOf(losses);
  }

  async function save(): Promise<void> {
    download.disabled = true;
    try {
      const href = URL.createObjectURL(await tab.download());
      make('a', { href, download: 'model.zip' }).click();
      setTimeout(() => URL.revokeObjectURL(href), SAVING);
    } catch (error) {
      onProblem(error);
    } finally {
      download.disabled = false;
    }
  }

  function forget(): void {
    training?.abort();
    training = undefined;
    showTraining(false);
    curve.hidden = download.hidden = reset.hidden = true;
    taught.textContent = '';
    for (const { said } of entries) said.textContent = '';
  }

  add.addEventListener('click', () => files.click());
  files.addEventListener('change', () => {
    addPictures([...(files.files ?? [])]);
    files.value = '';
  });
  panel.addEventListener('drop', (event) => {
    event.preventDefault();
    addPictures(event.dataTransfer?.files ?? []);
  });
  panel.addEventListener('paste', (event) => {
    const pasted = pastedFiles(event);
    if (!pasted) return;
    event.preventDefault();
    addPictures(pasted);
  });
  setUpDrawing((picture) => addPictures([picture]));
  byId('lesson').addEventListener('submit', (event) => {
    event.preventDefault();
    void learn();
  });
  stop.addEventListener('click', () => training?.abort());
  download.addEventListener('click', () => void save());
  reset.addEventListener('click', () => {
    forget();
    onReset();
    taught.textContent = 'The model is as it was before.';
    train.focus();
  });

  return {
    show(isShown) {
      forget();
      panel.hidden = !isShown;
    },
  };
}

function resultOf(losses: readonly number[]): string {
  const [first, last] = [losses[0], losses.at(-1)!].map((loss) => loss.toFixed(2));
  return `${losses.length} ${losses.length === 1 ? 'step' : 'steps'} learnt: the loss went from ${first} to ${last}. Choose a picture and ask again.`;
}
