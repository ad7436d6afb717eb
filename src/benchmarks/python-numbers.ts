// Python's numbers as official scorers use them: what `float` reads, and how `round` rounds.

/** `float(text)`, spaces around it allowed; undefined where Python raises. */
export function pythonFloat(text: string): number | undefined {
  const number = text.trim().toLowerCase();
  const special = /^([+-]?)(inf|infinity|nan)$/.exec(number);
  if (special) return special[2] === 'nan' ? Number.NaN : special[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const digits = String.raw`\d+(?:_\d+)*`;
  const form = new RegExp(`^[+-]?(?:${digits}\\.?(?:${digits})?|\\.${digits})(?:e[+-]?${digits})?$`);
  return form.test(number) ? Number(number.replaceAll('_', '')) : undefined;
}

/** `round(value, digits)`: of the exact binary value, halves to the even digit. */
export function pythonRound(value: number, digits: number): number {
  if (!Number.isFinite(value) || Math.abs(value) >= 1e21) return value;
  // toFixed is exact, but takes halves up
  const exact = Math.abs(value).toFixed(Math.min(100, digits + 60));
  const point = exact.indexOf('.') + 1 + digits;
  const isHalf = /^50*$/.test(exact.slice(point));
  const down = exact.slice(0, point);
  const isEven = '02468'.includes(down.replace(/\.$/, '').at(-1)!);
  const rounded = isHalf && isEven ? Number(down) : Number(Math.abs(value).toFixed(digits));
  return value < 0 ? -rounded : rounded;
}
