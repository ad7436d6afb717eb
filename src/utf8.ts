// Text as it is read from files: UTF-8, with or without a byte order mark. Anything else is named, instead of
// being taken for something that it is not.

import { UserError } from './errors.ts';

const strict = new TextDecoder('utf-8', { fatal: true });
const lenient = new TextDecoder('utf-8', { ignoreBOM: true });

/** Whether `bytes` begin as UTF-16 does: with its mark, or with a zero beside the first character. */
export function isUtf16(bytes: Uint8Array): boolean {
  const [first, second] = bytes;
  return (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff) || first === 0 || second === 0;
}

/** Line of the byte `at`, from 1. */
export function lineOf(bytes: Uint8Array, at: number): number {
  let line = 1;
  for (let i = bytes.indexOf(10); i >= 0 && i < at; i = bytes.indexOf(10, i + 1)) line++;
  return line;
}

/** Place of the first byte that is not UTF-8. */
function firstFault(bytes: Uint8Array): number {
  const replaced = new TextEncoder().encode(lenient.decode(bytes));
  return replaced.findIndex((byte, i) => byte !== bytes[i]);
}

/**
 * The text of UTF-8 `bytes`; a byte order mark at the beginning is left out. UserError that begins with
 * `name`: UTF-16, or a byte that is not UTF-8, with the line that `lineAt` makes of its place in `bytes`.
 */
export function decodeUtf8(bytes: Uint8Array, name: string, lineAt: (at: number) => number = (at) => lineOf(bytes, at)): string {
  try {
    if (!isUtf16(bytes)) return strict.decode(bytes);
  } catch {
    const at = firstFault(bytes);
    const byte = `0x${(bytes[at] ?? 0).toString(16).toUpperCase().padStart(2, '0')}`;
    throw new UserError(
      `${name}: line ${lineAt(at)} is not UTF-8 (it has the byte ${byte}): save the file as UTF-8, for example with iconv -f ISO-8859-1 -t UTF-8.`,
    );
  }
  throw new UserError(`${name}: is in UTF-16; save the file as UTF-8.`);
}
