// The files that modules written for Node see in a browser: folders that were opened, and what was written,
// in memory. Paths are absolute, with slashes.

import type { FileSource } from './sources.ts';

const files = new Map<string, FileSource>();
const folders = new Set<string>(['/']);

const parentOf = (path: string) => path.slice(0, path.lastIndexOf('/')) || '/';

/** The path in one form: without `.`, `..` and a slash at its end. */
export function normalized(path: string): string {
  const parts: string[] = [];
  for (const part of path.split('/'))
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  return `/${parts.join('/')}`;
}

export const fileAt = (path: string): FileSource | undefined => files.get(normalized(path));
export const isFolderAt = (path: string): boolean => folders.has(normalized(path));

export function makeFolderAt(path: string): void {
  for (let at = normalized(path); at !== '/'; at = parentOf(at)) folders.add(at);
}

/** Puts a file there; the folders above it are made. */
export function putFile(path: string, source: FileSource): void {
  const at = normalized(path);
  makeFolderAt(parentOf(at));
  files.set(at, source);
}

/** Names in a folder. */
export function namesIn(path: string): string[] {
  const at = normalized(path);
  return [...files.keys(), ...folders]
    .filter((each) => each !== '/' && parentOf(each) === at)
    .map((each) => each.slice(each.lastIndexOf('/') + 1));
}

/** All that is at a path and below it, by what follows the path. */
export function filesBelow(path: string): Map<string, FileSource> {
  const at = `${normalized(path)}/`;
  return new Map([...files].flatMap(([each, source]) => (each.startsWith(at) ? [[each.slice(at.length), source]] : [])));
}

export function removeAt(path: string): void {
  const at = normalized(path);
  const isThere = (each: string) => each === at || each.startsWith(`${at}/`);
  for (const each of files.keys()) if (isThere(each)) files.delete(each);
  for (const each of folders) if (isThere(each)) folders.delete(each);
}

export function moveTo(from: string, to: string): void {
  const [source, target] = [normalized(from), normalized(to)];
  const file = files.get(source);
  const below = filesBelow(source);
  removeAt(source);
  removeAt(target);
  if (file) putFile(target, file);
  else makeFolderAt(target);
  for (const [name, each] of below) putFile(`${target}/${name}`, each);
}
