// The elements of a JSON array or the members of a JSON object, read one after the other: annotation files
// have hundreds of megabytes, of which little is kept, and a fault in one of them is to be named by its line.

import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { refusePointer } from '../git-lfs.ts';
import { decodeUtf8, isUtf16, lineOf } from '../utf8.ts';

const [LINE_BREAK, QUOTE, COMMA, COLON, BACKSLASH] = [10, 34, 44, 58, 92];
const [OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT] = [91, 93, 123, 125];

const isSpace = (byte: number) => byte === 32 || (byte >= 9 && byte <= 13);

/** An element of an array, or a member of an object, which has a key. */
export interface JsonEntry {
  key?: string;
  value: unknown;
  /** `questions.json:17` or, in a file of one line, `questions.json, entry 17`. */
  where: string;
}

/** Where a value is. */
interface Member {
  key?: string;
  from: number;
  end: number;
}

/** JSON in the bytes of a file. Nothing is parsed before it is asked for. */
export class JsonFile {
  readonly path: string;
  /** What the file should hold, in words. */
  readonly form: string;
  readonly #bytes: Buffer;
  #top: { members: readonly Member[]; end: number } | undefined;

  /** UserError if the file is missing, not UTF-8 or a pointer of git-lfs. `form` says what it should hold. */
  constructor(path: string, form: string) {
    this.path = path;
    this.form = form;
    const bytes = onDisk(path, () => readFileSync(path));
    refusePointer(bytes, path);
    if (isUtf16(bytes) || !isUtf8(bytes)) decodeUtf8(bytes, path);
    this.#bytes = bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? bytes.subarray(3) : bytes;
    if (this.#space(0) === this.#bytes.length) throw new UserError(`${path}: is empty; it should be ${form}`);
  }

  /** What the file begins with. */
  get kind(): 'array' | 'object' | 'other' {
    const byte = this.#bytes[this.#space(0)];
    return byte === OPEN_ARRAY ? 'array' : byte === OPEN_OBJECT ? 'object' : 'other';
  }

  /** Whether the file is one JSON value, and not JSON Lines. */
  get isWhole(): boolean {
    return this.kind !== 'other' && this.#space(this.#outermost().end) === this.#bytes.length;
  }

  /** The keys of the object that the file is; none if it is an array. */
  keys(): string[] {
    return this.kind === 'object' ? this.#outermost().members.map(({ key }) => key!) : [];
  }

  /** The entries of the file's array or object; with `within`, of the one that its member of that name is. */
  *entries(within?: string): Generator<JsonEntry> {
    const where = this.#places();
    let index = 0;
    for (const { key, from, end } of within === undefined ? this.#outermost().members : this.#members(this.#startOf(within))) {
      index++;
      yield { key, value: this.#parse(from, end), where: where(from, index) };
    }
  }

  #startOf(within: string): number {
    const member = this.kind === 'object' && this.#outermost().members.find(({ key }) => key === within);
    if (!member) throw new UserError(`${this.path}: has no ${within}; it should be ${this.form}`);
    return member.from;
  }

  /** The file's own array or object, the first in JSON Lines. */
  #outermost(): { members: readonly Member[]; end: number } {
    if (this.#top) return this.#top;
    const start = this.#space(0);
    const members = [...this.#members(start)];
    const last = members.at(-1);
    this.#top = { members, end: this.#space(last ? last.end : start + 1) + 1 };
    return this.#top;
  }

  #fail(at: number, fault: string): UserError {
    return new UserError(`${this.path}:${lineOf(this.#bytes, at)}: ${fault}; the file should be ${this.form}`);
  }

  /** Names places, which must come in their order. */
  #places(): (at: number, index: number) => string {
    const [bytes, name] = [this.#bytes, basename(this.path)];
    let line = 1;
    let lineBreak = bytes.indexOf(LINE_BREAK);
    const several = lineBreak >= 0 && lineBreak < bytes.length - 1;
    return (at, index) => {
      for (; lineBreak >= 0 && lineBreak < at; lineBreak = bytes.indexOf(LINE_BREAK, lineBreak + 1)) line++;
      return several ? `${name}:${line}` : `${name}, entry ${index}`;
    };
  }

  #parse(from: number, end: number): unknown {
    try {
      return JSON.parse(this.#bytes.toString('utf8', from, end));
    } catch (error) {
      throw this.#fail(from, `is not JSON (${(error as Error).message})`);
    }
  }

  *#members(start: number): Generator<Member> {
    const bytes = this.#bytes;
    const isObject = bytes[start] === OPEN_OBJECT;
    if (!isObject && bytes[start] !== OPEN_ARRAY) throw this.#fail(start, 'is neither an array nor an object');
    const close = isObject ? CLOSE_OBJECT : CLOSE_ARRAY;
    let at = this.#space(start + 1);
    if (bytes[at] === close) return;
    for (;;) {
      let key: string | undefined;
      if (isObject) {
        if (bytes[at] !== QUOTE) throw this.#fail(at, 'is not JSON (a key is missing)');
        const end = this.#endOfString(at);
        key = String(this.#parse(at, end));
        at = this.#space(end);
        if (bytes[at] !== COLON) throw this.#fail(at, 'is not JSON (a colon is missing)');
        at = this.#space(at + 1);
      }
      const end = this.#end(at);
      yield { key, from: at, end };
      at = this.#space(end);
      if (bytes[at] === close) return;
      if (bytes[at] !== COMMA) throw this.#fail(at, 'is not JSON (a comma is missing, or the end of the file)');
      at = this.#space(at + 1);
    }
  }

  #space(from: number): number {
    let at = from;
    while (at < this.#bytes.length && isSpace(this.#bytes[at])) at++;
    return at;
  }

  /** Where a value ends that begins at `start`. */
  #end(start: number): number {
    const bytes = this.#bytes;
    if (bytes[start] === QUOTE) return this.#endOfString(start);
    let depth = 0;
    for (let at = start; at < bytes.length; at++) {
      const byte = bytes[at];
      if (byte === QUOTE) at = this.#endOfString(at) - 1;
      else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) depth++;
      else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) {
        if (depth === 0) return at;
        if (--depth === 0) return at + 1;
      } else if (depth === 0 && (byte === COMMA || isSpace(byte))) return at;
    }
    if (depth === 0) return bytes.length;
    throw this.#fail(start, 'is not JSON (what begins here does not end; a bracket is missing, or the end of the file)');
  }

  /** Behind the quote that ends the string which begins at `start`. */
  #endOfString(start: number): number {
    const bytes = this.#bytes;
    for (let at = bytes.indexOf(QUOTE, start + 1); at >= 0; at = bytes.indexOf(QUOTE, at + 1)) {
      let run = at;
      while (bytes[run - 1] === BACKSLASH) run--;
      if ((at - run) % 2 === 0) return at + 1;
    }
    throw this.#fail(start, 'is not JSON (the text that begins here does not end)');
  }
}
