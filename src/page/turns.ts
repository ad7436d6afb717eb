// Questions and answers as they are shown: text while it comes, words to choose when it is whole.

import { byId, make } from './dom.ts';
import { piecesOf } from './words.ts';

/** What is known of an answer when it has ended. */
export interface Timing {
  /** Milliseconds until its first text; undefined where none came. */
  first?: number;
  tokens?: number;
  /** Milliseconds in all. */
  whole?: number;
}

/** One answer on the page. */
export interface AnswerView {
  append(text: string): void;
  /** The answer is over: `note` says why it is not whole, and `onWord` makes its words buttons. */
  end(timing: Timing, note: string | undefined, onWord: ((word: Chosen) => void) | undefined): void;
  /** No word is chosen any more; the one that was has the focus again where `focuses` says so. */
  release(focuses: boolean): void;
}

/** A word that was chosen. */
export interface Chosen {
  text: string;
  /** Where it is in the answer. */
  start: number;
}

/** How far from its end a conversation still follows what is written, in pixels. */
const NEAR = 80;

/** The part of the page that scrolls: the conversation, or all of it where the window is narrow. */
function scroller(turns: HTMLElement): HTMLElement {
  return turns.scrollHeight > turns.clientHeight ? turns : document.documentElement;
}

export function addTurn(question: string): AnswerView {
  const turns = byId('turns');
  const words = make('p', { class: 'words waiting' });
  const facts = make('p', { class: 'facts' });
  turns.append(
    make(
      'article',
      { class: 'turn' },
      make('p', { class: 'question' }, make('span', { class: 'hidden' }, 'You asked: '), question),
      make('div', { class: 'answer' }, make('span', { class: 'hidden' }, 'Answer: '), words, facts),
    ),
  );
  const follow = (always = false) => {
    const box = scroller(turns);
    if (always || box.scrollHeight - box.scrollTop - box.clientHeight < NEAR) box.scrollTop = box.scrollHeight;
  };
  turns.setAttribute('aria-busy', 'true');
  follow(true);
  return {
    append(text) {
      words.append(text);
      follow();
    },
    end(timing, note, onWord) {
      turns.setAttribute('aria-busy', 'false');
      words.classList.remove('waiting');
      facts.append(...factsOf(timing).map((text) => make('span', {}, text)));
      if (note) facts.append(make('span', { class: 'failed' }, note));
      if (onWord && words.textContent) makeChoosable(words, onWord);
      follow();
    },
    release(focuses) {
      for (const button of words.querySelectorAll<HTMLButtonElement>('[aria-pressed="true"]')) {
        button.setAttribute('aria-pressed', 'false');
        if (focuses) button.focus();
      }
    },
  };
}

/** Of fewer tokens, a speed says little. */
const ENOUGH = 4;

function factsOf({ first, tokens, whole }: Timing): string[] {
  const time = (ms: number) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
  const speed =
    first !== undefined && whole !== undefined && tokens !== undefined && tokens >= ENOUGH
      ? (1000 * (tokens - 1)) / (whole - first)
      : undefined;
  return [
    ...(first === undefined ? [] : [`first token ${time(first)}`]),
    ...(speed === undefined ? [] : [`${speed < 10 ? speed.toFixed(1) : Math.round(speed)} tokens/s`]),
    ...(tokens === undefined ? [] : [`${tokens} ${tokens === 1 ? 'token' : 'tokens'}`]),
    ...(whole === undefined ? [] : [`${time(whole)} in all`]),
  ];
}

/** Words become buttons; one of them is in the order of Tab, the arrow keys go from one to the next. */
function makeChoosable(words: HTMLElement, onWord: (word: Chosen) => void): void {
  const pieces = piecesOf(words.textContent ?? '');
  const buttons: HTMLButtonElement[] = [];
  const moveTo = (at: number) => {
    buttons.forEach((button, i) => {
      button.tabIndex = i === at ? 0 : -1;
    });
  };
  const nodes = pieces.map(({ text, start, isWord }) => {
    if (!isWord) return text;
    const at = buttons.length;
    const button = make('button', { type: 'button', 'aria-pressed': 'false', title: 'What does it rest on?' }, text);
    button.addEventListener('click', () => {
      const wasChosen = button.getAttribute('aria-pressed') === 'true';
      moveTo(at);
      onWord({ text, start });
      if (!wasChosen) button.setAttribute('aria-pressed', 'true');
    });
    buttons.push(button);
    return button;
  });
  words.replaceChildren(...nodes);
  words.setAttribute('role', 'group');
  words.setAttribute('aria-label', 'Words of the answer: choose one to see what it rests on');
  words.addEventListener('keydown', (event) => {
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = Math.min(buttons.length - 1, Math.max(0, to));
    moveTo(next);
    buttons[next].focus();
  });
  moveTo(0);
}
