// The page: asks about a picture, shows the answer as it comes, and what its words rest on.

import { shortAnswerPrompt } from '../text/short-answer.ts';
import type { Message, Question, ServerAnswerer } from './answerer.ts';
import { byId, make } from './dom.ts';
import { setUpExplanations } from './explanation-panel.ts';
import { createHttpAnswerer } from './http-answerer.ts';
import { recall, remember } from './memory.ts';
import { setUpPicture } from './picture-panel.ts';
import { setUpPlace } from './place.ts';
import { Problem } from './problems.ts';
import { setUpSettings } from './settings.ts';
import { setUpStatus } from './status-line.ts';
import { createTabAnswerer } from './tab-answerer.ts';
import { setUpTeaching } from './teaching-panel.ts';
import { setUpTheme } from './theme.ts';
import { type AnswerView, addTurn } from './turns.ts';

const SUGGESTIONS = ['How many things are in the picture?', 'What is at the top left?', 'What is at the bottom right?'];

function setUp(server: ServerAnswerer): void {
  const [question, short] = [byId<HTMLTextAreaElement>('question'), byId<HTMLInputElement>('short')];
  const [ask, stop, fresh] = ['ask', 'stop', 'fresh'].map((id) => byId<HTMLButtonElement>(id));
  const problem = byId('problem');
  let messages: Message[] = [];
  let answering: AbortController | undefined;

  setUpTheme(byId<HTMLButtonElement>('theme'));
  const settings = setUpSettings(server.identify);
  const tab = createTabAnswerer(server);
  const place = setUpPlace(move);
  const answerer = () => (place.place === 'tab' ? tab : server);
  const status = setUpStatus({ answerer, onModels: place.offer, onModel, onKeyWanted: settings.askForKey });
  const pictures = setUpPicture({ onChange: begin, onProblem: tell });
  const explanations = setUpExplanations(server, pictures);

  const ending = () => (short.checked ? shortAnswerPrompt : '');
  const teaching = setUpTeaching({ tab, ending, onShow: pictures.show, onReset: reset, onProblem: fail });

  /** The model of the tab as the server has it. */
  function reset(): void {
    tab.close();
    prepare();
  }

  /** Loads the model into the tab. */
  function prepare(): void {
    begin();
    if (status.model !== undefined) tab.load(status.model).catch(fail).finally(status.look);
    void status.look();
  }

  /** Others answer from here on: in another place, or another model. */
  function move(): void {
    const isTab = place.place === 'tab';
    teaching.show(isTab);
    tab.close();
    if (isTab) prepare();
    else {
      begin();
      void status.look();
    }
  }

  function onModel(): void {
    if (place.place === 'tab') move();
  }

  /** Tells what went wrong. */
  function fail(error: unknown): void {
    tell(error instanceof Problem ? error.message : 'Something went wrong in the page itself. Load it again.');
    if (!(error instanceof Problem)) console.error(error);
    else if (error.kind === 'key') void settings.askForKey();
  }

  function tell(text: string): void {
    problem.textContent = text;
    problem.hidden = text === '';
  }

  /** A new conversation. */
  function begin(): void {
    answering?.abort();
    answering = undefined;
    showAnswering(false);
    explanations.close();
    messages = [];
    tell('');
    for (const turn of document.querySelectorAll('.turn')) turn.remove();
    byId('welcome').hidden = false;
    fresh.hidden = true;
  }

  function showAnswering(isSo: boolean): void {
    ask.hidden = isSo;
    stop.hidden = !isSo;
  }

  async function submit(text: string): Promise<void> {
    if (answering || text.trim() === '') return;
    const { model } = status;
    if (model === undefined) {
      tell('The server has not told its models yet. Ask again in a moment.');
      return;
    }
    tell('');
    explanations.close();
    question.value = '';
    byId('welcome').hidden = true;
    fresh.hidden = false;
    const asked: Message = { role: 'user', text: text.trim() + ending() };
    const request: Question = { model, messages: [...messages, asked], picture: pictures.picture, settings: settings.read() };
    const view = addTurn(text.trim());
    const own = new AbortController();
    answering = own;
    const keepsFocus = document.activeElement === ask;
    showAnswering(true);
    if (keepsFocus) stop.focus();
    try {
      await receive(request, view, own.signal);
    } finally {
      if (answering === own) {
        answering = undefined;
        const hadFocus = document.activeElement === stop;
        showAnswering(false);
        if (hadFocus) question.focus();
      }
      void status.look();
    }
  }

  /** Reads an answer into its place. One that was stopped stays in the conversation as far as it came. */
  async function receive(request: Question, view: AnswerView, signal: AbortSignal): Promise<void> {
    const asked = answerer();
    const start = performance.now();
    let first: number | undefined;
    let answer = '';
    let tokens: number | undefined;
    let note: string | undefined;
    try {
      for await (const event of asked.answer(request, signal)) {
        if (event.type === 'text') {
          first ??= performance.now() - start;
          answer += event.text;
          view.append(event.text);
        } else {
          tokens = event.tokens;
          if (event.finish === 'length') note = 'cut off at the longest answer';
          else if (answer === '') note = 'the model said nothing';
        }
      }
    } catch (error) {
      if (signal.aborted) note = 'stopped';
      else {
        note = 'not answered';
        fail(error);
      }
    }
    // another conversation may have begun
    if (answer !== '' && answering?.signal === signal) messages = [...request.messages, { role: 'assistant', text: answer }];
    const explainable = { question: request, answer, view };
    const isExplained = asked === server && answer !== '' && request.picture !== undefined;
    view.end(
      { first, tokens, whole: performance.now() - start },
      note,
      isExplained ? (word) => explanations.show(explainable, word) : undefined,
    );
  }

  byId('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    void submit(question.value);
  });
  question.addEventListener('keydown', (event) => {
    // Enter also ends a word that an input method composes; Safari says so by 229 alone
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    void submit(question.value);
  });
  stop.addEventListener('click', () => answering?.abort());
  fresh.addEventListener('click', () => {
    begin();
    question.focus();
  });
  document.addEventListener('keydown', ({ key }) => {
    if (key !== 'Escape' || byId<HTMLDialogElement>('settings').open) return;
    if (answering) answering.abort();
    else explanations.close();
  });
  short.checked = recall('short') !== 'no';
  short.addEventListener('change', () => remember('short', short.checked ? '' : 'no'));
  for (const text of SUGGESTIONS) {
    const button = make('button', { type: 'button' }, text);
    button.addEventListener('click', () => void submit(text));
    byId('suggestions').append(make('li', {}, button));
  }
  void status.look();
}

setUp(createHttpAnswerer());
