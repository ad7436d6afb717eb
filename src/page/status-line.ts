// The models to choose from, and how the server is: looked at now and then while the page is seen.

import type { Answerer, ModelInfo } from './answerer.ts';
import { byId, make } from './dom.ts';
import { recall, remember } from './memory.ts';
import { Problem } from './problems.ts';

export interface StatusLine {
  /** The model that is chosen; undefined until the server has told its models. */
  readonly model: string | undefined;
  /** Looks now. */
  look(): Promise<void>;
}

/** Milliseconds between looks; shorter while something changes. */
const PAUSE = 5000;
const SHORT_PAUSE = 1000;

const STATES: Record<ModelInfo['state'], string> = {
  idle: 'loads when asked',
  loading: 'loading',
  ready: 'ready',
  failed: 'cannot be loaded',
};

export interface StatusLineOptions {
  answerer: Answerer;
  /** The server asks for a key, or for another one. */
  onKeyWanted(): Promise<void>;
}

export function setUpStatus({ answerer, onKeyWanted }: StatusLineOptions): StatusLine {
  const select = byId<HTMLSelectElement>('model');
  const line = byId('status');
  let models: ModelInfo[] = [];
  let timer: ReturnType<typeof setTimeout> | undefined;

  function showModels(): void {
    const shown = [...select.options].map(({ value }) => value).join('\n');
    if (shown === models.map(({ id }) => id).join('\n')) return;
    const chosen = select.disabled ? recall('model') : select.value;
    select.replaceChildren(...models.map(({ id }) => make('option', { value: id, selected: id === chosen }, id)));
    select.disabled = models.length === 0;
  }

  function showState(state: string, text: string, long = ''): void {
    const whole = `${text}\n${long}`;
    if (line.dataset.shown === `${state}\n${whole}`) return;
    line.dataset.shown = `${state}\n${whole}`;
    line.dataset.state = state;
    line.replaceChildren(text, ...(long ? [make('span', { class: 'long' }, `· ${long}`)] : []));
  }

  async function look(): Promise<void> {
    clearTimeout(timer);
    let pause = PAUSE;
    try {
      const signal = AbortSignal.timeout(PAUSE);
      models = await answerer.models(signal);
      showModels();
      const memory = await answerer.memory(signal);
      const state = models.find(({ id }) => id === select.value)?.state ?? 'failed';
      showState(state, STATES[state], memory === undefined ? '' : `${Math.round(memory / 1e6)} MB`);
      if (state === 'loading') pause = SHORT_PAUSE;
    } catch (error) {
      if (error instanceof Problem && error.kind === 'key') {
        showState('failed', 'API key wanted');
        await onKeyWanted();
        pause = 0;
      } else {
        showState('away', 'server away');
        pause = SHORT_PAUSE;
      }
    }
    if (!document.hidden) timer = setTimeout(look, pause);
  }

  select.addEventListener('change', () => {
    remember('model', select.value);
    void look();
  });
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) clearTimeout(timer);
    else void look();
  });

  return {
    get model() {
      return select.disabled ? undefined : select.value;
    },
    look,
  };
}
