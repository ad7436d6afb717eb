// The dialog of settings: how answers are made, and the key of a server that asks for one.

import type { AnswerSettings } from './answerer.ts';
import { byId } from './dom.ts';
import { recall, remember } from './memory.ts';

export interface Settings {
  /** As they stand. */
  read(): AnswerSettings;
  /** Asks for a key: settles when the dialog is closed. */
  askForKey(): Promise<void>;
}

const numberOf = (text: string): number | undefined => (text.trim() === '' || !Number.isFinite(Number(text)) ? undefined : Number(text));

/** `onKey` is told the key that was typed, or kept from before. */
export function setUpSettings(onKey: (key: string) => void): Settings {
  const dialog = byId<HTMLDialogElement>('settings');
  const [temperature, maxTokens, seed, key] = ['temperature', 'max-tokens', 'seed', 'key'].map((id) => byId<HTMLInputElement>(id));
  const shown = byId('temperature-value');
  const fields = { temperature, maxTokens, seed };

  const showTemperature = () => {
    shown.textContent = Number(temperature.value).toFixed(1);
  };
  temperature.value = recall('temperature') ?? '0';
  maxTokens.value = recall('maxTokens') ?? '';
  seed.value = recall('seed') ?? '';
  showTemperature();
  temperature.addEventListener('input', showTemperature);
  for (const [name, field] of Object.entries(fields)) field.addEventListener('change', () => remember(name, field.value));

  const kept = recall('key', 'sessionStorage');
  if (kept) {
    key.value = kept;
    byId('key-row').hidden = false;
    onKey(kept);
  }
  byId('open-settings').addEventListener('click', () => dialog.showModal());
  dialog.addEventListener('close', () => {
    remember('key', key.value.trim(), 'sessionStorage');
    onKey(key.value.trim());
  });
  dialog.addEventListener('click', ({ target }) => {
    // beside the dialog is the dialog itself, in it are its parts
    if (target === dialog) dialog.close();
  });

  return {
    read: () => ({
      temperature: numberOf(temperature.value),
      maxTokens: numberOf(maxTokens.value),
      seed: numberOf(seed.value),
    }),
    askForKey() {
      byId('key-row').hidden = false;
      if (!dialog.open) dialog.showModal();
      key.focus();
      return new Promise((resolve) => dialog.addEventListener('close', () => resolve(), { once: true }));
    },
  };
}
