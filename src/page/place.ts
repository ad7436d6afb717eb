// Where answers are made: on the server, or in this tab, where the server offers that.

import type { ModelInfo } from './answerer.ts';
import { byId } from './dom.ts';
import { recall, remember } from './memory.ts';

export type Place = 'server' | 'tab';

export interface PlaceSwitch {
  readonly place: Place;
  /** Shows the choice, where a model of the server can run in the tab, and makes that of the last visit. */
  offer(models: readonly ModelInfo[]): void;
}

export function setUpPlace(onChange: (place: Place) => void): PlaceSwitch {
  const select = byId<HTMLSelectElement>('place');
  let place: Place = 'server';

  function choose(wanted: Place): void {
    if (wanted === place) return;
    place = wanted;
    select.value = wanted;
    onChange(wanted);
  }

  select.addEventListener('change', () => {
    choose(select.value as Place);
    remember('place', place === 'tab' ? 'tab' : '');
  });
  return {
    get place() {
      return place;
    },
    offer(models) {
      const row = byId('place-row');
      if (!row.hidden || !models.some(({ files }) => files !== undefined)) return;
      row.hidden = false;
      if (recall('place') === 'tab') choose('tab');
    },
  };
}
