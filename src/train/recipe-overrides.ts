// `--set path=value`: changes to a recipe before it is checked.
import { parseDocument } from 'yaml';
import { UserError } from '../errors.ts';

/**
 * Sets one field of a YAML tree, as `stages.0.lr=5e-4` asks. The value is read as YAML, so numbers, true,
 * lists and {a: b} are what they look like; whether they fit is checked with the recipe. An empty value takes
 * the field out. UserError, quoting the override, where there is no such place.
 */
export function applyOverride(root: unknown, override: string): void {
  const equals = override.indexOf('=');
  const keys = override.slice(0, Math.max(0, equals)).trim().split('.');
  if (equals <= 0 || keys.includes('')) throw new UserError(`--set ${override}: must look like path=value, such as stages.0.lr=5e-4`);
  const document = parseDocument(override.slice(equals + 1), { version: '1.2' });
  if (document.errors.length > 0)
    throw new UserError(`--set ${override}: the value is not YAML: ${document.errors[0].message.split('\n')[0]}`);
  let parent = root as Record<string, unknown> | unknown[];
  keys.forEach((key, depth) => {
    const place = keys.slice(0, depth).join('.') || 'the recipe';
    if (Array.isArray(parent)) {
      const index = Number(key);
      if (!/^\d+$/.test(key) || index >= parent.length) {
        throw new UserError(
          `--set ${override}: ${place} is a list of ${parent.length}; ${key} must be a number from 0 to ${parent.length - 1}`,
        );
      }
    } else if (typeof parent !== 'object' || parent === null) {
      throw new UserError(`--set ${override}: ${place} is ${JSON.stringify(parent)} and has no fields`);
    }
    const fields = parent as Record<string, unknown>;
    if (depth === keys.length - 1) {
      const given: unknown = document.toJS();
      if (given === null) delete fields[key];
      else fields[key] = given;
    } else {
      // A block that the file leaves out begins empty.
      if (fields[key] === undefined) fields[key] = {};
      parent = fields[key] as Record<string, unknown>;
    }
  });
}
