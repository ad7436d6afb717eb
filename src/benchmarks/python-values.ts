// Python's values as text, where official scorers compare numbers as strings.

import { pythonFloat } from './python-numbers.ts';

/** Decimal digits of any script as ASCII ones, as `int` and `float` read them. */
function asciiDigits(text: string): string {
  return text.replace(/\p{Nd}/gu, (digit) => {
    const code = digit.codePointAt(0)!;
    let first = code;
    // digits come in runs of ten, or of several tens
    while (/\p{Nd}/u.test(String.fromCodePoint(first - 1))) first--;
    return String((code - first) % 10);
  });
}

/** `float(value)` of a JSON value; undefined where Python raises. */
export function floatOf(value: unknown): number | undefined {
  if (typeof value === 'string') return pythonFloat(asciiDigits(value));
  if (typeof value === 'boolean') return value ? 1 : 0;
  return typeof value === 'number' ? value : undefined;
}

/** `str(int(text))`; undefined where Python raises. */
export function integerText(text: string): string | undefined {
  const digits = asciiDigits(text.trim());
  if (!/^[+-]?\d+(_\d+)*$/.test(digits)) return undefined;
  return BigInt(digits.replaceAll('_', '').replace(/^\+/, '')).toString();
}

/** `str(int(value))` of a float: cut off towards zero; undefined where Python raises: inf, nan. */
export const truncatedText = (value: number): string | undefined =>
  Number.isFinite(value) ? BigInt(Math.trunc(value)).toString() : undefined;

/** `str(value)` of a float. */
export function floatText(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  const [digits, exponent] = Math.abs(value).toExponential().split('e').map(String);
  const sign = value < 0 || Object.is(value, -0) ? '-' : '';
  const power = Number(exponent);
  if (value !== 0 && (power < -4 || power >= 16))
    return `${sign}${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
  const plain = power < 0 ? Math.abs(value).toFixed(digits.replace('.', '').length - 1 - power) : String(Math.abs(value));
  return sign + (plain.includes('.') ? plain : `${plain}.0`);
}

/** `repr(text)`, of the common characters. */
function quoted(text: string): string {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replaceAll('\\', '\\\\').replaceAll(quote, `\\${quote}`);
  return quote + escaped.replaceAll('\n', '\\n').replaceAll('\r', '\\r').replaceAll('\t', '\\t') + quote;
}

/** `str(value)` of a JSON value. A whole number is an `int`: JSON.parse does not tell 5 from 5.0. */
export function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value === null || value === undefined) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (typeof value === 'number') return Number.isInteger(value) ? BigInt(value).toString() : floatText(value);
  const inner = (member: unknown) => (typeof member === 'string' ? quoted(member) : textOf(member));
  if (Array.isArray(value)) return `[${value.map(inner).join(', ')}]`;
  return `{${Object.entries(value as object)
    .map(([key, member]) => `${quoted(key)}: ${inner(member)}`)
    .join(', ')}}`;
}
