// What npm packs: all that a user of the package needs, and nothing else.

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { createProgram } from '../src/cli/main.ts';
import { importsOf, isTest, root, sourceFiles } from './structure.ts';

interface Manifest {
  main: string;
  types: string;
  bin: Record<string, string>;
  exports: Record<string, string | Record<string, string>>;
  dependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
  devDependencies: Record<string, string>;
}

interface Packed {
  size: number;
  files: { path: string }[];
}

const read = (file: string) => readFileSync(join(root, file), 'utf8');
const manifest = JSON.parse(read('package.json')) as Manifest;
let packed: Packed;
let paths: string[];

beforeAll(() => {
  // on Windows, npm is a script that only a shell finds
  const { stdout } = spawnSync('npm pack --dry-run --json --ignore-scripts', { cwd: root, shell: true, encoding: 'utf8' });
  // a list before npm 12, a map since then
  [packed] = Object.values(JSON.parse(stdout) as Record<string, Packed>);
  paths = packed.files.map(({ path }) => path).sort();
}, 120_000);

/** Files under version control. */
function tracked(...folders: string[]): string[] {
  const { stdout } = spawnSync('git', ['ls-files', '--', ...folders], { cwd: root, encoding: 'utf8' });
  return stdout.split('\n').filter((line) => line !== '');
}

/** Whether dist/ is newer than every source; `npm test` sees to it first. */
function isBuilt(): boolean {
  const timeOf = (file: string) => statSync(join(root, file)).mtimeMs;
  return existsSync(join(root, 'dist/cli/main.js')) && sourceFiles('src').every((file) => timeOf(file) <= timeOf('dist/cli/main.js'));
}

describe('the package', () => {
  test.skipIf(!existsSync(join(root, '.git')))('holds the command, the assets, the recipes and the papers', () => {
    const wanted = [...tracked('assets', 'recipes'), 'bin/llava-gemma.js', 'package.json'];
    const papers = ['CHANGELOG.md', 'LICENSE', 'NOTICE', 'README.md'];
    expect(paths.filter((path) => !path.startsWith('dist/'))).toEqual([...wanted, ...papers].sort());
  });

  test.skipIf(!isBuilt())('holds every module with its types, and no test or map', () => {
    const modules = sourceFiles('src').filter((file) => !isTest(file));
    const scripts = tracked('src/export').filter((path) => path.endsWith('.py'));
    const wanted = modules.flatMap((file) => ['.js', '.d.ts'].map((end) => file.replace(/^src/, 'dist').replace(/\.ts$/, end)));
    expect(wanted.filter((path) => !paths.includes(path))).toEqual([]);
    const strange = paths.filter((path) => path.startsWith('dist/') && (!/\.(js|d\.ts)$/.test(path) || path.includes('.test.')));
    expect(strange).toEqual(scripts.map((path) => path.replace(/^src/, 'dist')));
    const entries = Object.values(manifest.exports).flatMap((entry) => (typeof entry === 'string' ? [entry] : Object.values(entry)));
    for (const path of [manifest.main, manifest.types, ...Object.values(manifest.bin), ...entries])
      expect(paths).toContain(path.replace(/^\.\//, ''));
  });

  test('stays below 46 MB', () => {
    expect(packed.size).toBeLessThan(46e6);
  });

  test('depends on what its modules import but for what the bundle of src/browser holds, and on nothing else', () => {
    const isBundled = ({ from, name }: { from: string; name: string }) =>
      from.startsWith('src/browser/') && name in manifest.devDependencies;
    const names = sourceFiles('src')
      .filter((file) => !isTest(file))
      .flatMap((file) => importsOf(file, read(file)))
      .filter(({ to }) => !to.startsWith('src/') && !to.startsWith('node:') && !builtinModules.includes(to))
      .map(({ from, to }) => ({ from, name: /^(@[^/]+\/)?[^/]+/.exec(to)![0] }))
      .filter((each) => !isBundled(each))
      .map(({ name }) => name);
    expect([...new Set(names)].sort()).toEqual(Object.keys({ ...manifest.dependencies, ...manifest.optionalDependencies }).sort());
  });
});

describe('bin/llava-gemma.js', () => {
  test('knows commands by their names', () => {
    const named = [.../\[([^\]]+)\]\.includes\(\s*command,?\s*\)/.exec(read('bin/llava-gemma.js'))![1].matchAll(/'(\w+)'/g)];
    const commands = createProgram().commands.map((command) => command.name());
    expect(named.map(([, name]) => name).filter((name) => !commands.includes(name))).toEqual([]);
  });

  test('says in one line that ONNX Runtime is missing', () => {
    const folder = mkdtempSync(join(tmpdir(), 'llava-gemma-bin-'));
    mkdirSync(join(folder, 'bin'));
    copyFileSync(join(root, 'bin', 'llava-gemma.js'), join(folder, 'bin', 'llava-gemma.js'));
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    const { status, stderr } = spawnSync(process.execPath, ['bin/llava-gemma.js', 'chat'], { cwd: folder, encoding: 'utf8' });
    rmSync(folder, { recursive: true });
    expect(status).toBe(1);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    expect(stderr).toContain(`error: ONNX Runtime cannot be loaded (Cannot find module 'onnxruntime-node'): `);
    expect(stderr).toContain('npm install --ignore-scripts');
  });
});
