// Reads the sources as text: which file imports which, what the rooms of docs/design.md allow, and where
// comments are too wide. A regular expression is enough, because the formatter writes every import in one
// way.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('..', import.meta.url));

const slashes = (path: string) => path.split(sep).join('/');

/** TypeScript files below a folder of this repository, or the file itself, as `src/nn/rope.ts`. */
export function sourceFiles(path: string): string[] {
  if (statSync(join(root, path)).isFile()) return [path];
  return readdirSync(join(root, path), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.split(sep).includes('node_modules'))
    .map((name) => `${path}/${slashes(name)}`)
    .sort();
}

export const isTest = (file: string) => file.endsWith('.test.ts');

/** Whether a program wrote the file, according to its first lines. */
export const isGenerated = (text: string) => /@generated|automatically generated/.test(text.slice(0, 1000));

// === Imports ===

export interface Import {
  from: string;
  /** A file as `src/nn/rope.ts`, or the name of a package. */
  to: string;
}

// `import ... from 'x'`, `export ... from 'x'`, `import 'x'`, `import('x')` in code and in types;
// 'from' in quotes is a word
const importPattern = /(?<!')\bfrom\s*'([^']+)'|\bimport\s*\(\s*'([^']+)'|^\s*import\s+'([^']+)'/gm;

/** Every import in the text of a file: static, type and dynamic. */
export function importsOf(file: string, text: string): Import[] {
  const code = text.replace(/^\s*(\/\/|\/?\*).*$/gm, '');
  return [...code.matchAll(importPattern)].map(([, ...names]) => {
    const name = names.find((each) => each !== undefined)!;
    return { from: file, to: name.startsWith('.') ? slashes(relative(root, join(root, dirname(file), name))) : name };
  });
}

/** A path from a file back to itself along imports, each file once; undefined if there is none. */
export function findCycle(imports: readonly Import[]): string[] | undefined {
  const next = new Map<string, string[]>();
  for (const { from, to } of imports) next.set(from, [...(next.get(from) ?? []), to]);
  const done = new Set<string>();
  const way: string[] = [];
  const visit = (file: string): string[] | undefined => {
    const start = way.indexOf(file);
    if (start >= 0) return way.slice(start);
    if (done.has(file)) return undefined;
    way.push(file);
    for (const each of next.get(file) ?? []) {
      const cycle = visit(each);
      if (cycle) return cycle;
    }
    way.pop();
    done.add(file);
    return undefined;
  };
  for (const file of next.keys()) {
    const cycle = visit(file);
    if (cycle) return cycle;
  }
  return undefined;
}

// === Rooms ===

/** The rooms that each room may import besides itself, from lines like `train > runs > evaluate, explain`. */
export function parseRooms(text: string): Map<string, Set<string>> {
  const allowed = new Map<string, Set<string>>();
  const tiersOf = (line: string) => line.split('>').map((tier) => tier.split(',').map((room) => room.trim()));
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  for (const tiers of lines.map(tiersOf))
    tiers.forEach((tier, i) => {
      for (const room of tier) allowed.set(room, new Set([...(allowed.get(room) ?? []), ...(tiers[i + 1] ?? [])]));
    });
  // what a room may import may be imported by those above it; a set grows while it is iterated over
  for (const below of allowed.values()) for (const room of below) for (const each of allowed.get(room)!) below.add(each);
  return allowed;
}

/** The block of docs/design.md that begins with ```rooms. */
export function readRooms(): Map<string, Set<string>> {
  const block = /^```rooms\n([\s\S]*?)^```$/m.exec(readFileSync(join(root, 'docs', 'design.md'), 'utf8'));
  if (!block) throw new Error('docs/design.md has no block that begins with ```rooms');
  return parseRooms(block[1]);
}

/** The room of a file, `''` for one outside the rooms. */
export function roomOf(file: string): string {
  const parts = file.split('/');
  return parts.length > 2 ? parts[1] : '';
}

/** The rule that an import breaks, or undefined. */
export function objection({ from, to }: Import, rooms: ReadonlyMap<string, ReadonlySet<string>>): string | undefined {
  if (!to.startsWith('src/')) {
    if (to.startsWith('.') || to.includes('/src/')) return 'leads out of src';
    if (to.startsWith('onnxruntime') && roomOf(from) !== 'engine') return 'only engine imports ONNX Runtime';
    return undefined;
  }
  if (from === 'src/index.ts') return undefined;
  const [room, other] = [roomOf(from), roomOf(to)];
  if (to === 'src/index.ts') return 'the public API is for others';
  if (other === '' || other === room) return undefined;
  if (room === '') return 'files beside the rooms import only each other';
  if (!rooms.has(room)) return `docs/design.md gives ${room} no place`;
  return rooms.get(room)!.has(other) ? undefined : `${room} may not import ${other}`;
}

// === Lines ===

const isComment = (line: string) => /^\s*(\/\/|\/?\*)/.test(line);

/** Comment lines wider than `columns`, as `src/x.ts:12 (125 columns)`; none for a generated file. */
export function longComments(file: string, text: string, columns = 110): string[] {
  if (isGenerated(text)) return [];
  return text
    .split('\n')
    .flatMap((line, i) => (isComment(line) && line.length > columns ? [`${file}:${i + 1} (${line.length} columns)`] : []));
}
