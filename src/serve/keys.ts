// API keys: whoever guesses learns nothing from how long a refusal takes.

import { createHash, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { reasonOf, UserError } from '../errors.ts';

const digestOf = (text: string) => createHash('sha256').update(text).digest();

/** Whether a value of the Authorization header carries one of the keys. */
export type KeyCheck = (authorization: string | undefined) => boolean;

/** Every key is compared, and digests of equal length are: the time hangs on the number of keys alone. */
export function createKeyCheck(keys: readonly string[]): KeyCheck {
  const digests = keys.map(digestOf);
  return (authorization = '') => {
    const given = digestOf(/^Bearer +(\S+) *$/i.exec(authorization)?.[1] ?? '');
    return digests.map((digest) => timingSafeEqual(digest, given)).some((isEqual) => isEqual);
  };
}

/** The keys in a file: one a line; empty lines and those that begin with # are none. */
export function readKeys(path: string): string[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new UserError(`--api-key-file: ${path}: ${reasonOf(error)}`);
  }
  const keys = text
    .split(/\r?\n/)
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'));
  if (keys.length === 0) throw new UserError(`--api-key-file: ${path}: it has no key; write one a line`);
  const broken = keys.findIndex((key) => /\s/.test(key));
  if (broken >= 0) throw new UserError(`--api-key-file: ${path}: key ${broken + 1} has white space in it`);
  return keys;
}
