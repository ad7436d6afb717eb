import fc from 'fast-check';
import { expect, it } from 'vitest';
import { UserError } from './errors.ts';
import { decodeUtf8 } from './utf8.ts';

const bytesOf = (text: string) => new TextEncoder().encode(text);

it('gives the text of UTF-8, without a byte order mark', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', minLength: 2 }), (text) => {
      fc.pre(text[0] !== '\ufeff' && text[0] !== '\0' && text[1] !== '\0');
      expect(decodeUtf8(bytesOf(text), 'a')).toBe(text);
      expect(decodeUtf8(bytesOf(`\ufeff${text}`), 'a')).toBe(text);
    }),
  );
});

it.each([
  ['a byte of ISO-8859-1', [97, 10, 98, 0xe9, 99], 'a.txt: line 2 is not UTF-8 (it has the byte 0xE9)'],
  ['a character that is cut', [97, 10, 10, 0xe6, 0xbc], 'a.txt: line 3 is not UTF-8'],
  ['a fault behind a real U+FFFD', [0xef, 0xbf, 0xbd, 10, 0x80], 'a.txt: line 2 is not UTF-8 (it has the byte 0x80)'],
  ['UTF-16, little end first', [0xff, 0xfe, 97, 0], 'a.txt: is in UTF-16'],
  ['UTF-16, big end first', [0xfe, 0xff, 0, 97], 'a.txt: is in UTF-16'],
  ['UTF-16 without a mark', [97, 0, 98, 0], 'a.txt: is in UTF-16'],
])('refuses %s by name', (_, bytes, message) => {
  expect(() => decodeUtf8(Uint8Array.from(bytes), 'a.txt')).toThrow(UserError);
  expect(() => decodeUtf8(Uint8Array.from(bytes), 'a.txt')).toThrow(message);
});
