// The sources have the structure that docs/design.md describes: who imports whom, without cycles, in files
// that can be read in one go. After a change to the rooms, `npx vitest run tests/structure.test.ts -u`
// rewrites biome.rooms.json.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  findCycle,
  importsOf,
  isGenerated,
  isTest,
  longComments,
  objection,
  parseRooms,
  readRooms,
  root,
  sourceFiles,
} from './structure.ts';

const read = (file: string) => readFileSync(join(root, file), 'utf8');
const files = sourceFiles('src').filter((file) => !isTest(file));
const imports = files.flatMap((file) => importsOf(file, read(file)));
const rooms = readRooms();

/** Rooms that must also run in a browser. */
const withoutNode = ['graph', 'nn', 'models', 'text', 'generate', 'browser', 'page', 'engine/onnx', 'engine/webgpu'];

/** Files and folders whose comments are at most 110 columns wide. */
const narrow = ['bench', 'src', 'tests'];

describe('imports', () => {
  test('go down the list of rooms in docs/design.md', () => {
    const broken = imports.flatMap((each) => {
      const reason = objection(each, rooms);
      return reason ? [`${each.from} -> ${each.to}: ${reason}`] : [];
    });
    expect(broken).toEqual([]);
  });

  test('make no circle', () => {
    const cycle = findCycle(imports);
    expect(cycle && [...cycle, cycle[0]].join(' -> ')).toBeUndefined();
  });

  test('lead to files that exist', () => {
    expect(imports.filter(({ to }) => to.startsWith('src/') && !existsSync(join(root, to)))).toEqual([]);
  });

  test.each(withoutNode)('of %s name nothing from node:', (room) => {
    expect(imports.filter(({ from, to }) => from.startsWith(`src/${room}/`) && to.startsWith('node:'))).toEqual([]);
  });

  test('are all seen', () => {
    const text = `import a from './a.ts';
import type { B } from '../nn/b.ts';
import {
  c,
} from '../../src/text/c.ts';
import './d.ts';
export * from 'zod';
// import x from './x.ts';
type T = import('./e.ts').E;
const f = await import('./f.ts');`;
    expect(importsOf('src/models/m.ts', text).map(({ to }) => to)).toEqual([
      'src/models/a.ts',
      'src/nn/b.ts',
      'src/text/c.ts',
      'src/models/d.ts',
      'zod',
      'src/models/e.ts',
      'src/models/f.ts',
    ]);
  });
});

describe('rooms', () => {
  test('in docs/design.md are the folders of src', () => {
    const folders = readdirSync(join(root, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory());
    expect(folders.map(({ name }) => name).filter((name) => !rooms.has(name))).toEqual([]);
  });

  test('may import what stands below them, by way of other lines too', () => {
    const drawn = parseRooms('a > b, c > d\nc > e\n');
    expect(Object.fromEntries([...drawn].map(([room, below]) => [room, [...below].sort()]))).toEqual({
      a: ['b', 'c', 'd', 'e'],
      b: ['d'],
      c: ['d', 'e'],
      d: [],
      e: [],
    });
    const reasonOf = (from: string, to: string) => objection({ from: `src/${from}.ts`, to: to.includes(':') ? to : `src/${to}.ts` }, drawn);
    expect(reasonOf('a/x', 'e/sub/y')).toBeUndefined();
    expect(reasonOf('b/x', 'b/y')).toBeUndefined();
    expect(reasonOf('b/x', 'errors')).toBeUndefined();
    expect(reasonOf('index', 'a/x')).toBeUndefined();
    expect(reasonOf('b/x', 'c/y')).toBe('b may not import c');
    expect(reasonOf('d/x', 'a/y')).toBe('d may not import a');
    expect(reasonOf('errors', 'a/y')).toBe('files beside the rooms import only each other');
    expect(reasonOf('new/x', 'a/y')).toBe('docs/design.md gives new no place');
  });

  test('make no circle among themselves', () => {
    expect([...rooms].filter(([room, below]) => below.has(room))).toEqual([]);
  });

  test('are told to Biome, which says it while one types', async () => {
    await expect(biomeRooms()).toMatchFileSnapshot(join(root, 'biome.rooms.json'));
  });
});

test('circles are found', () => {
  const arrows = (...pairs: string[]) => pairs.map((pair) => ({ from: pair[0], to: pair[1] }));
  expect(findCycle(arrows('ab', 'bc', 'ac'))).toBeUndefined();
  expect(findCycle(arrows('ab', 'bc', 'cd', 'db'))).toEqual(['b', 'c', 'd']);
  expect(findCycle(arrows('aa'))).toEqual(['a']);
});

describe('files', () => {
  test('have 500 lines at most', () => {
    const long = files.filter((file) => {
      const text = read(file);
      return !isGenerated(text) && text.trimEnd().split('\n').length > 500;
    });
    expect(long).toEqual([]);
  });

  test.each(narrow)('%s: comments have 110 columns at most', (path) => {
    expect(sourceFiles(path).flatMap((file) => longComments(file, read(file)))).toEqual([]);
  });

  test('with long comments are found', () => {
    const wide = 'x'.repeat(110);
    expect(longComments('a.ts', `// ${wide}\nconst a = '${wide}';\n  /** ${wide} */\n// short`)).toEqual([
      'a.ts:1 (113 columns)',
      'a.ts:3 (119 columns)',
    ]);
  });
});

/** biome.rooms.json: one override for each room, on one line. */
function biomeRooms(): string {
  const restricted = (names: readonly string[], outside: boolean) => ({
    level: 'error',
    options: {
      ...(outside ? { paths: { 'onnxruntime-node': 'Only engine imports ONNX Runtime.' } } : {}),
      patterns: [{ group: names.map((name) => `**/${name}/**`), message: 'See Imports in docs/design.md.' }],
    },
  });
  const override = (includes: string[], rules: object) => JSON.stringify({ includes: [...includes, '!**/*.test.ts'], linter: { rules } });
  const names = [...rooms.keys()];
  const ofRooms = names.map((room) => {
    const closed = names.filter((name) => name !== room && !rooms.get(room)!.has(name));
    return override([`src/${room}/**`], { style: { noRestrictedImports: restricted(closed, room !== 'engine') } });
  });
  const overrides = [
    override(['src/*.ts', '!src/index.ts'], { style: { noRestrictedImports: restricted(names, true) } }),
    ...ofRooms,
    override(
      withoutNode.map((room) => `src/${room}/**`),
      { correctness: { noNodejsModules: 'error' } },
    ),
  ];
  return `{\n  "overrides": [\n    ${overrides.join(',\n    ')}\n  ]\n}\n`;
}
