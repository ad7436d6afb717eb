// The docs stay in step with the code: the tables of docs/recipes.md are made from the recipe schema, and
// links lead to files that exist. After a change to the schema, `npx vitest run tests/docs.test.ts -u`
// rewrites the tables.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { studySchema } from '../src/study/study-schema.ts';
import { recipeSchemas } from '../src/train/recipe-schema.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

// === Tables of recipe fields ===

/** The parts of JSON Schema that zod emits for recipes. */
interface Schema {
  type?: string | string[];
  description?: string;
  default?: unknown;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Schema[];
  oneOf?: Schema[];
  properties?: Record<string, Schema>;
  required?: string[];
  additionalProperties?: Schema | boolean;
  propertyNames?: Schema;
  items?: Schema;
  prefixItems?: Schema[];
  minimum?: number;
  exclusiveMinimum?: number;
  maximum?: number;
  exclusiveMaximum?: number;
}

const code = (value: unknown) => `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;

function rangeText({ minimum, exclusiveMinimum, maximum, exclusiveMaximum: below }: Schema): string {
  // zod bounds integers by what a double holds exactly
  const bound = (value: number | undefined) => (value !== undefined && Math.abs(value) < Number.MAX_SAFE_INTEGER ? value : undefined);
  const [low, above, high] = [minimum, exclusiveMinimum, maximum].map(bound);
  if (below !== undefined) return `${above === undefined ? ` >= ${low}` : ` > ${above}`} and < ${below}`;
  if (above !== undefined) return ` > ${above}`;
  if (low !== undefined && high !== undefined) return ` ${low} to ${high}`;
  return low === undefined ? '' : ` >= ${low}`;
}

function typeText(schema: Schema): string {
  if (Array.isArray(schema.type)) return schema.type.map((type) => typeText({ type })).join(' or ');
  if (schema.const !== undefined) return code(schema.const);
  if (schema.enum) return schema.enum.map(code).join(', ');
  const alternatives = schema.anyOf ?? schema.oneOf;
  // null means the same as omitting the field
  if (alternatives) return [...new Set(alternatives.filter(({ type }) => type !== 'null').map(typeText))].join(' or ');
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeText).join(', ')}]`;
  switch (schema.type) {
    case 'array':
      return `list of ${schema.items?.properties ? 'maps' : typeText(schema.items!)}`;
    case 'object':
      return schema.properties
        ? 'map'
        : `map from ${typeText(schema.propertyNames!)} to ${typeText(schema.additionalProperties as Schema)}`;
    case 'integer':
      return `whole number${rangeText(schema)}`;
    case 'number':
      return `number${rangeText(schema)}`;
    case 'string':
      return 'text';
    case 'boolean':
      return 'true or false';
    case undefined:
      return 'any value';
    default:
      throw new Error(`no words for ${JSON.stringify(schema)}`);
  }
}

/** A row for each field, those of maps and lists of maps below them. */
function rowsOf({ properties = {}, required = [] }: Schema, prefix: string): string[] {
  return Object.entries(properties).flatMap(([name, field]) => {
    const path = prefix + name;
    const inner = [field, ...(field.anyOf ?? field.oneOf ?? [])].flatMap((schema) => [
      ...(schema.properties ? rowsOf(schema, `${path}.`) : []),
      ...(schema.items?.properties ? rowsOf(schema.items, `${path}.N.`) : []),
    ]);
    // the default of a map is made up of those of its fields
    const hasDefault = field.default !== undefined && inner.length === 0;
    const fallback = hasDefault ? code(field.default) : required.includes(name) ? 'required' : '';
    // fields of models are described where they are defined
    const meaning = field.description ?? (inner.length > 0 || !prefix.endsWith('_config.') ? '' : 'as in `config.json`');
    // what alternatives have in common is listed once
    return [`| \`${path}\` | ${typeText(field)} | ${fallback} | ${meaning} |`, ...new Set(inner)];
  });
}

function recipeTables(): string {
  return recipeSchemas
    .map((recipe) => {
      const schema = z.toJSONSchema(recipe, { io: 'input' }) as Schema;
      const { task } = schema.properties!;
      const heading = `### \`task: ${task.const}\`\n\n${task.description}.`;
      return [heading, '', '| Field | Value | Default | Meaning |', '|---|---|---|---|', ...rowsOf(schema, '')].join('\n');
    })
    .join('\n\n');
}

test('docs/recipes.md lists every field of every recipe', async () => {
  const path = join(root, 'docs', 'recipes.md');
  const [begin, end] = ['<!-- fields: begin -->', '<!-- fields: end -->'];
  const [before, rest] = readFileSync(path, 'utf8').split(begin);
  const after = rest.split(end)[1];
  await expect(`${before}${begin}\n\n${recipeTables()}\n\n${end}${after}`).toMatchFileSnapshot(path);
});

test('docs/study.md lists every field of a study', async () => {
  const path = join(root, 'docs', 'study.md');
  const [begin, end] = ['<!-- study fields: begin -->', '<!-- study fields: end -->'];
  const [before, rest] = readFileSync(path, 'utf8').split(begin);
  const rows = rowsOf(z.toJSONSchema(studySchema, { io: 'input' }) as Schema, '');
  const table = ['| Field | Value | Default | Meaning |', '|---|---|---|---|', ...rows].join('\n');
  await expect(`${before}${begin}\n\n${table}\n\n${end}${rest.split(end)[1]}`).toMatchFileSnapshot(path);
});

// === Links ===

const pages = ['README.md', 'CONTRIBUTING.md', ...readdirSync(join(root, 'docs')).map((name) => join('docs', name))].filter((name) =>
  name.endsWith('.md'),
);

describe.each(pages)('%s', (page) => {
  test('links to files that exist', () => {
    const links = [...readFileSync(join(root, page), 'utf8').matchAll(/\[[^\]]*\]\(([^)#\s]+)[^)]*\)/g)].map(([, target]) => target);
    const broken = links.filter((target) => !/^[a-z]+:/.test(target) && !existsSync(join(root, dirname(page), target)));
    expect(broken).toEqual([]);
  });
});
