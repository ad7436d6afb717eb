// Python's string methods as official scorers use them. JavaScript's own differ in what is white space.

const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';
const AROUND = new RegExp(`^[${SPACE}]+|[${SPACE}]+$`, 'g');
const BETWEEN = new RegExp(`[${SPACE}]+`);

/** `str.strip()`. */
export const pythonStrip = (text: string): string => text.replace(AROUND, '');

/** `str.split()`: the words, none of them empty. */
export const pythonSplit = (text: string): string[] => text.split(BETWEEN).filter((word) => word !== '');

/** `str.capitalize()`: a capital, and all else in lower case. */
export function pythonCapitalize(text: string): string {
  const [first = ''] = text;
  return first.toUpperCase() + text.slice(first.length).toLowerCase();
}
