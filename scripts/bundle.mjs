// Bundles src/browser to dist/browser/llava-gemma.js, and to llava-gemma-worker.js the same in a worker: the code of
// Node over modules that a browser has. It fails if anything of Node's own would be in a bundle. Then copies to
// dist/ what is no TypeScript.
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** What is put in place of modules, by their names or places. */
const swapped = {
  'node:crypto': 'src/browser/node/crypto.ts',
  'node:fs': 'src/browser/node/fs.ts',
  'node:fs/promises': 'src/browser/node/fs-promises.ts',
  'node:path': 'pathe',
  'src/engine/devices.ts': 'src/engine/web.ts',
  'src/images/decode.ts': 'src/browser/decode.ts',
  'src/paths.ts': 'src/browser/paths.ts',
  'src/pretrained/scratch.ts': 'src/browser/scratch.ts',
};

const swap = {
  name: 'swap',
  setup({ onLoad, onResolve, resolve }) {
    onLoad({ filter: /.*/, namespace: 'empty' }, () => ({ contents: 'export {};' }));
    onResolve({ filter: /.*/ }, async ({ path, resolveDir, kind, pluginData, importer }) => {
      if (pluginData === 'resolved') return undefined;
      // messages of zod in fifty languages, of which English is imported by itself
      if (path === '../locales/index.js' && importer.includes('zod')) return { path, namespace: 'empty' };
      const place = path.startsWith('.') ? relative(root, join(resolveDir, path)).replaceAll('\\', '/') : path;
      // imported for what it does, which package.json denies of all modules
      if (place === 'src/browser/no-eval.ts') return { path: join(root, place), sideEffects: true };
      const other = swapped[place];
      if (other?.startsWith('src/')) return { path: join(root, other) };
      if (other) return resolve(other, { resolveDir: root, kind, pluginData: 'resolved' });
      if (path.startsWith('node:'))
        return { errors: [{ text: `${path} is of Node, and nothing stands in for it (${relative(root, importer)})` }] };
      return undefined;
    });
  },
};

/** Names of the packages that modules are of. */
const packagesOf = (modules) => [...new Set(modules.flatMap((path) => /^node_modules\/((@[^/]+\/)?[^/]+)/.exec(path)?.[1] ?? []))];

/** The license of a package, as a comment. */
function licenseOf(name) {
  const folder = join(root, 'node_modules', name);
  const { version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const text = file ? readFileSync(join(folder, file), 'utf8').trim() : license;
  return `/*! ${name} ${version}\n\n${text.replaceAll('*/', '* /')}\n*/\n`;
}

const { metafile, outputFiles } = await build({
  absWorkingDir: root,
  entryPoints: { 'llava-gemma': 'src/browser/index.ts', 'llava-gemma-worker': 'src/browser/worker.ts' },
  outdir: 'dist/browser',
  write: false,
  bundle: true,
  minify: true,
  format: 'esm',
  platform: 'browser',
  target: 'es2023',
  external: ['onnxruntime-web'],
  define: { 'process.pid': '0' },
  legalComments: 'none',
  plugins: [swap],
  metafile: true,
  logLevel: 'error',
}).catch(() => process.exit(1));

for (const { path, text } of outputFiles) {
  const { inputs } = metafile.outputs[relative(root, path).replaceAll('\\', '/')];
  writeFileSync(path, text + packagesOf(Object.keys(inputs)).map(licenseOf).join(''));
}

const SCRIPTS = 'export/peers';
for (const name of readdirSync(join(root, 'src', SCRIPTS)))
  if (name.endsWith('.py')) copyFileSync(join(root, 'src', SCRIPTS, name), join(root, 'dist', SCRIPTS, name));
