// What the page remembers: in this tab, or until it is told otherwise. A browser may forbid both.

function safely<T>(run: () => T): T | undefined {
  try {
    return run();
  } catch {
    return undefined;
  }
}

/** Where a value is kept: `localStorage`, or `sessionStorage` for what ends with the tab. */
type Place = 'localStorage' | 'sessionStorage';

export const recall = (name: string, place: Place = 'localStorage'): string | undefined =>
  safely(() => window[place].getItem(`llava-gemma.${name}`)) ?? undefined;

/** Keeps a value; an empty one is forgotten. */
export function remember(name: string, value: string, place: Place = 'localStorage'): void {
  safely(() => (value === '' ? window[place].removeItem(`llava-gemma.${name}`) : window[place].setItem(`llava-gemma.${name}`, value)));
}
