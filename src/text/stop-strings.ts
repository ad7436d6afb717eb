// Texts that end an answer. They may be spread over several tokens, so what could be the beginning of one is
// held back until it is known.

export interface StopFilter {
  /** Adds text; returns what is certain to be before any stop string. */
  push(text: string): string;
  /** What was held back, where the text ends without a stop string. */
  end(): string;
  /** Whether a stop string has come: nothing is given out any more. */
  readonly found: boolean;
}

/** Holds a text back where it may be one of `stops`, none of which is empty. */
export function createStopFilter(stops: readonly string[]): StopFilter {
  let held = '';
  let found = false;
  return {
    push(text) {
      if (found) return '';
      held += text;
      const places = stops.map((stop) => held.indexOf(stop)).filter((at) => at >= 0);
      found = places.length > 0;
      const certain = found ? Math.min(...places) : held.length - longestBeginning(held, stops);
      const out = held.slice(0, certain);
      held = found ? '' : held.slice(certain);
      return out;
    },
    end() {
      const rest = held;
      held = '';
      return rest;
    },
    get found() {
      return found;
    },
  };
}

/** Length of the longest end of `text` that is the beginning of a stop string. */
function longestBeginning(text: string, stops: readonly string[]): number {
  let longest = 0;
  for (const stop of stops)
    for (let length = Math.min(stop.length - 1, text.length); length > longest; length--)
      if (stop.startsWith(text.slice(text.length - length))) longest = length;
  return longest;
}
