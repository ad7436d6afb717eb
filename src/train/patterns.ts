// Names with stars: how a recipe speaks of a part of a model, be it layers that get an adapter or parameters
// with a learning rate of their own.

import { UserError } from '../errors.ts';
import { editDistance } from './recipe-problems.ts';

/** A pattern in which a star stands for any text. */
export const patternOf = (pattern: string) => new RegExp(`^${pattern.replaceAll(/[.+?^${}()|[\]\\]/g, '\\$&').replaceAll('*', '.*')}$`);

/** A parameter as patterns name it: its module stands before it, also where its own name leaves that out. */
export const pathOf = (module: string, parameter: string) => (parameter.startsWith(`${module}.`) ? parameter : `${module}.${parameter}`);

/** What a pattern says of the parameters that it names, and the pattern; without one, what holds for all. */
export interface Chosen {
  value: number;
  pattern?: string;
}

/** Characters that a parameter must have where the pattern has them. */
const literals = (pattern: string) => pattern.replaceAll('*', '').length;

/**
 * Of each path (`pathOf`), the value of the pattern that names it or something that it lies in. Of several,
 * the one with most characters beside its stars decides, wherever it stands. The UserError of two that have
 * as many begins with `where`.
 */
export function byPattern(values: Readonly<Record<string, number>>, fallback: number, where: string): (path: string) => Chosen {
  const patterns = Object.entries(values)
    .map(([pattern, value]) => ({ pattern, value, expressions: [patternOf(pattern), patternOf(`${pattern}.*`)] }))
    .sort((a, b) => literals(b.pattern) - literals(a.pattern));
  return (path) => {
    const [first, second] = patterns.filter(({ expressions }) => expressions.some((expression) => expression.test(path)));
    if (second && literals(second.pattern) === literals(first.pattern) && second.value !== first.value)
      throw new UserError(
        `${where}: ${first.pattern} and ${second.pattern} both name ${path}, and neither says more than the other: add a longer pattern for it`,
      );
    return first ? { value: first.value, pattern: first.pattern } : { value: fallback };
  };
}

/** A pattern that would name a path: its module and the layer at its end. */
function formOf(path: string): string {
  const parts = path.replace(/(\.lora_[AB])?\.(weight|bias)$/, '').split('.');
  return parts.length > 2 ? `${parts[0]}.*.${parts.at(-1)}` : parts.join('.');
}

const lastPart = (pattern: string) => pattern.split(/[.*]+/).findLast((part) => part !== '') ?? '';

/** Patterns for what there is, those like `pattern`, which names nothing, first: the end of a sentence. */
export function likest(paths: readonly string[], pattern: string): string {
  const distance = (form: string) =>
    editDistance(lastPart(form), lastPart(pattern)) + Number(form[0] !== pattern[0] && pattern[0] !== '*') * pattern.length;
  const forms = [...new Set(paths.map(formOf))].sort((a, b) => distance(a) - distance(b));
  return `there ${forms.length === 1 ? 'is' : 'are'} ${forms.slice(0, 8).join(', ')}${forms.length > 8 ? ', ...' : ''}`;
}

/** UserError, beginning with `where`, for a pattern that decides nothing for any of `paths`. */
export function checkPatterns(values: Readonly<Record<string, number>>, paths: readonly string[], where: string): void {
  const choose = byPattern(values, 0, where);
  const chosen = new Set(paths.map((path) => choose(path).pattern));
  const idle = Object.keys(values).find((pattern) => !chosen.has(pattern));
  if (idle === undefined) return;
  const expressions = [patternOf(idle), patternOf(`${idle}.*`)];
  const names = paths.some((path) => expressions.some((expression) => expression.test(path)));
  if (names) throw new UserError(`${where}: other patterns say more of all that ${idle} names: take it out`);
  throw new UserError(`${where}: nothing that is trained is called ${idle}: ${likest(paths, idle)}`);
}
