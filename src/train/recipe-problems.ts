// What is wrong with a recipe, in words for the person who wrote it.
import { z } from 'zod';

type Path = readonly PropertyKey[];

const pathText = (path: Path) => path.map(String).join('.');

const valueAt = (path: Path, value: unknown) =>
  path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value);

/** Edits (insert, delete, replace, swap of neighbors) that turn one word into another. */
export function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    rows.push([i]);
    for (let j = 1; j <= b.length; j++) {
      const replaced = rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(replaced, rows[i - 1][j] + 1, rows[i][j - 1] + 1);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, rows[i - 2][j - 2] + 1);
      rows[i].push(best);
    }
  }
  return rows[a.length][b.length];
}

/** The known word that is spelled most like `word`, if one is. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const ranked = known.map((name) => ({ name, distance: editDistance(word.toLowerCase(), name) })).sort((a, b) => a.distance - b.distance);
  return ranked[0] && ranked[0].distance <= Math.max(2, word.length / 3) ? ranked[0].name : undefined;
}

/** What the schema has at `path` of `value`: several where alternatives have it. */
function schemasAt(schema: z.core.$ZodType, path: Path, value: unknown): z.core.$ZodType[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault)
    return path.length === 0 ? [schema, ...schemasAt(schema.unwrap(), path, value)] : schemasAt(schema.unwrap(), path, value);
  if (schema instanceof z.ZodUnion) {
    // Of unions by task or model_type, the alternative that the recipe names; of others, every one.
    const key = schema instanceof z.ZodDiscriminatedUnion ? schema.def.discriminator : '';
    const named = (value as Record<string, unknown>)?.[key];
    const isChosen = (option: z.core.$ZodType) =>
      !(option instanceof z.ZodObject) || !option.shape[key] || option.shape[key].safeParse(named).success;
    const inner = schema.options.filter(isChosen).flatMap((option) => schemasAt(option, path, value));
    return path.length === 0 ? [schema, ...inner] : inner;
  }
  if (path.length === 0) return [schema];
  const [key, ...rest] = path;
  const child = (value as Record<PropertyKey, unknown> | undefined)?.[key];
  if (schema instanceof z.ZodArray) return schemasAt(schema.element, rest, child);
  const field = schema instanceof z.ZodObject ? schema.shape[key as string] : undefined;
  return field ? schemasAt(field, rest, child) : [];
}

/** The fields that the schema knows at `path` of `value`; none where it is no object. */
const knownFields = (schema: z.core.$ZodType, path: Path, value: unknown): string[] => {
  const found = schemasAt(schema, path, value).filter((each) => each instanceof z.ZodObject);
  // alternatives may share fields
  return [...new Set(found.flatMap(({ shape }) => Object.keys(shape)))];
};

/** What a field means, if the schema says so. */
function meaningOf(schema: z.core.$ZodType, path: Path, value: unknown): string | undefined {
  for (const found of schemasAt(schema, path, value)) if (found instanceof z.ZodType && found.description) return found.description;
  return undefined;
}

const typeNames: Record<string, string> = {
  number: 'a number',
  int: 'a whole number',
  string: 'text',
  boolean: 'true or false',
  array: 'a list',
  tuple: 'a list',
  object: 'a map of fields',
  record: 'a map of fields',
};

const anyOf = (words: readonly unknown[]) =>
  words.length > 1 ? `one of ${words.slice(0, -1).join(', ')} or ${words.at(-1)}` : String(words[0]);

/** What a value must be, where the schema has no words of its own for that. */
function demandOf(issue: z.core.$ZodIssue, found: unknown): string | undefined {
  // what the schema says itself does not begin as zod does
  if (!/^(Invalid input|Invalid option|Too small|Too big)/.test(issue.message)) return undefined;
  const elements = (count: number | bigint) => `${count} element${count === 1 ? '' : 's'}`;
  switch (issue.code) {
    case 'invalid_type':
      return `must be ${typeNames[issue.expected] ?? issue.expected}`;
    case 'invalid_value': {
      const guess = typeof found === 'string' ? nearest(found, issue.values.map(String)) : undefined;
      return `must be ${anyOf(issue.values)}${guess ? `; did you mean ${guess}?` : ''}`;
    }
    case 'too_small':
      if (issue.origin === 'array') return `must have ${issue.exact ? '' : 'at least '}${elements(issue.minimum)}`;
      return `must be ${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`;
    case 'too_big':
      if (issue.origin === 'array') return `must have ${issue.exact ? '' : 'at most '}${elements(issue.maximum)}`;
      return `must be ${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}`;
    default:
      return undefined;
  }
}

/**
 * The first problem that `schema` found in a recipe, in one sentence. An unknown field goes first, since
 * other problems come from it; the known field that is spelled most like it is offered.
 */
export function describeProblem(schema: z.core.$ZodType, error: z.ZodError, value: unknown): string {
  const issues = error.issues.flatMap((issue) => flattenUnion(issue, []));
  const issue = issues.find(({ code }) => code === 'unrecognized_keys') ?? issues[0];
  const place = pathText(issue.path);
  const found = valueAt(issue.path, value);
  if (issue.code === 'unrecognized_keys') {
    const name = issue.keys[0];
    const fields = knownFields(schema, issue.path, value);
    // of another alternative
    if (fields.includes(name)) {
      const given = Object.keys(found as object);
      const others = given.filter((key) => !issue.keys.includes(key));
      return `${pathText([...issue.path, name])} cannot be given beside ${others.join(', ')}`;
    }
    // alternatives with a field each: what they say together is better than what is wrong with one of them
    const together = error.issues.find(({ code, path }) => code === 'invalid_union' && pathText(path) === place);
    if (fields.length === 0 && together) return `${place}: ${together.message} (it is ${JSON.stringify(found)})`;
    const guess = nearest(name, fields);
    return `unknown field ${pathText([...issue.path, name])}; ${guess ? `did you mean ${guess}?` : `known fields are ${fields.join(', ')}`}`;
  }
  if (issue.code === 'invalid_union' && issue.path.at(-1) === 'task') {
    return `task must be contrastive, instance-discrimination, language-model or llava, and is ${found === undefined ? 'missing' : JSON.stringify(found)}`;
  }
  if (found === undefined) {
    const meaning = meaningOf(schema, issue.path, value);
    return `${place || 'the recipe'} is missing${meaning ? ` (${meaning})` : ''}`;
  }
  const demand = demandOf(issue, found) ?? issue.message.replace(/^Invalid input: /, '');
  const message = issue.code === 'custom' ? issue.message : `${demand} (it is ${JSON.stringify(found)})`;
  return place === '' ? message : `${place}: ${message}`;
}

/**
 * Takes the problems of the alternative that fits best out of a union's, when it is an object with a wrong
 * field.
 */
function flattenUnion(issue: z.core.$ZodIssue, prefix: Path): z.core.$ZodIssue[] {
  const path = [...prefix, ...issue.path] as PropertyKey[];
  if (issue.code === 'invalid_union') {
    const alternatives = issue.errors.map((problems) => problems.flatMap((problem) => flattenUnion(problem, path)));
    const deeper = alternatives
      .map((problems) => problems.filter(({ code, path: inner }) => code === 'unrecognized_keys' || inner.length > path.length))
      .filter((problems) => problems.length > 0)
      .sort((a, b) => a.length - b.length);
    if (deeper.length > 0) return deeper[0];
    // a discriminated union has none
    const [first] = alternatives;
    if (first && alternatives.every(([problem]) => problem.message === first[0].message)) return first;
  }
  return [{ ...issue, path }];
}
