// Mutation testing: are the tests able to see a fault? Every small fault of mutants.mjs is put into a source, in memory only, and the tests
// that import the source are run until one fails. A mutant that no test sees is a survivor: it is worth a test, or changes nothing.
//
//   npm run mutate -- src/text src/evaluate/scoring.ts    with the tests beside the sources
//   npm run mutate -- src/text --survivors                only those that survived the last time, with the tests of today
//   npm run mutate -- src/text --every 5                  each fifth only: a score in a fifth of the time
//   npm run mutate -- src/train/run-checkpoints.ts --tests tests/resume.test.ts    other tests than those
//
// StrykerJS does not serve here: it wants TypeScript's API, which TypeScript 7 has not, and threads, in which tests cannot change folder.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { createVitest } from 'vitest/node';
import { mutantsOf } from './mutants.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const reports = join(root, '.cache', 'mutation');
/** What tests a source beside the test of its own name; a source without any of these is tested by all of its room that import it. */
const ALSO = {
  'src/text/chat.ts': ['src/text/labels.test.ts', 'tests/templates.test.ts'],
  'src/text/chat-template.ts': ['src/text/labels.test.ts', 'tests/templates.test.ts'],
  'src/text/tokenizer.ts': ['src/text/stream.test.ts'],
  'src/generate/forward.ts': ['src/cli/forward.test.ts', 'tests/forward.test.ts'],
  'src/train/adapters.ts': ['tests/lora.test.ts'],
  'src/train/recipe-schema.ts': ['tests/docs.test.ts'],
  'src/train/saved.ts': ['tests/lora.test.ts', 'tests/further.test.ts'],
};

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    survivors: { type: 'boolean', default: false },
    tests: { type: 'string', multiple: true },
    every: { type: 'string', default: '1' },
    lines: { type: 'string' },
  },
});
if (positionals.length === 0) {
  console.error('usage: npm run mutate -- <file or folder>... [--survivors] [--every <n>] [--lines <from>-<to>] [--tests <file>]...');
  process.exit(1);
}

function sourcesIn(path) {
  if (statSync(path).isFile()) return [path];
  return readdirSync(path, { withFileTypes: true })
    .flatMap((entry) => sourcesIn(join(path, entry.name)))
    .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'));
}

/** The source that is changed at the moment, and how it reads then. */
let active;
const vitest = await createVitest(
  'test',
  // once a test fails, the fault is seen; a test that waits for ever is as good as failed
  { root, watch: false, bail: 1, maxWorkers: 1, testTimeout: 20_000, reporters: [{}], onConsoleLog: () => false, silent: true },
  { plugins: [{ name: 'mutation', enforce: 'pre', load: (id) => (id === active?.file ? active.source : undefined) }] },
);
// vitest says on its own account when it had to give a worker up
console.error = () => {};

/** Kills the processes in which vitest runs its tests: a fault can make a loop endless. */
function killWorkers() {
  const { stdout } = spawnSync('pgrep', ['-P', String(process.pid)], { encoding: 'utf8' });
  for (const pid of stdout.match(/\d+/g) ?? [])
    try {
      process.kill(Number(pid), 'SIGKILL');
    } catch {
      // pgrep itself, which has ended
    }
}

/** Runs tests; returns what became of them and the seconds they took. */
async function run(specifications, limit = 120) {
  const began = performance.now();
  let late = false;
  const timer = setInterval(() => {
    if (performance.now() - began < limit * 1000) return;
    late = true;
    killWorkers();
  }, 500);
  // else failures of the run before would count towards `bail`
  vitest.state.filesMap.clear();
  vitest.state.idMap.clear();
  let failed;
  try {
    const { testModules, unhandledErrors } = await vitest.runTestSpecifications(specifications, false);
    failed = unhandledErrors.length > 0 || testModules.some((module) => !module.ok());
  } catch {
    failed = true;
  } finally {
    clearInterval(timer);
  }
  return { outcome: late ? 'timeout' : failed ? 'killed' : 'survived', seconds: (performance.now() - began) / 1000 };
}

/** The tests of a source in two batches: its own, which see most faults, and others. */
async function testsOf(file) {
  const own = file.replace(/\.ts$/, '.test.ts');
  vitest.config.related = [file];
  const related = await vitest.getRelevantTestSpecifications();
  vitest.config.related = undefined;
  const named = (options.tests ?? ALSO[relative(root, file)] ?? []).map((path) => join(root, path));
  const first = options.tests ? [] : related.filter(({ moduleId }) => moduleId === own);
  const second = related.filter(({ moduleId }) => moduleId !== own && named.includes(moduleId));
  const found = [first, second].filter((batch) => batch.length > 0);
  return found.length > 0 ? found : [related.filter(({ moduleId }) => moduleId.startsWith(`${dirname(file)}/`))];
}

const oneLine = (text) => {
  const flat = text.replaceAll(/\s+/g, ' ');
  return flat.length > 90 ? `${flat.slice(0, 87)}...` : flat;
};

const rows = [];
for (const file of positionals.flatMap((path) => sourcesIn(resolve(path)))) {
  const name = relative(root, file);
  const source = readFileSync(file, 'utf8');
  const report = join(reports, `${name}.json`);
  const before = options.survivors ? JSON.parse(readFileSync(report, 'utf8')) : undefined;
  const every = before?.every ?? Number(options.every);
  let mutants = mutantsOf(source).filter((_, i) => i % every === 0);
  if (options.lines) {
    const [from, to] = options.lines.split('-').map(Number);
    mutants = mutants.filter(({ line }) => line >= from && line <= to);
  }
  const all = mutants.length;
  if (before) {
    const same = (a) => (b) => a.was === b.was && a.text === b.text && a.around === b.around;
    mutants = mutants.filter((mutant) => before.survivors.some(same(described(source, mutant))));
  }
  const batches = mutants.length === 0 ? [] : await testsOf(file);
  if (batches.some((batch) => batch.length === 0)) {
    console.log(`${name}: no test of its room imports it; name some with --tests`);
    continue;
  }
  active = undefined;
  vitest.invalidateFile(file);
  const limits = [];
  for (const batch of batches) {
    const { outcome, seconds } = await run(batch);
    if (outcome !== 'survived') throw new Error(`${name}: the tests fail as they are`);
    limits.push(15 + 5 * seconds);
  }
  const survivors = [];
  const began = performance.now();
  for (const [i, mutant] of mutants.entries()) {
    active = { file, source: source.slice(0, mutant.start) + mutant.text + source.slice(mutant.end) };
    vitest.invalidateFile(file);
    let outcome = 'survived';
    for (let batch = 0; outcome === 'survived' && batch < batches.length; batch++) ({ outcome } = await run(batches[batch], limits[batch]));
    if (outcome === 'survived') {
      const was = described(source, mutant);
      survivors.push(was);
      console.log(`${name}:${mutant.line}  ${oneLine(was.was)}  ->  ${oneLine(mutant.text) || '(nothing)'}   in: ${oneLine(was.around)}`);
    } else if (outcome === 'timeout') console.log(`${name}:${mutant.line}  ran too long`);
    if (process.stderr.isTTY) process.stderr.write(`\r${name} ${i + 1}/${mutants.length} `);
  }
  active = undefined;
  vitest.invalidateFile(file);
  const seen = all - survivors.length;
  rows.push({ name, seen, all });
  const seconds = Math.round((performance.now() - began) / 1000);
  console.log(`${name}  ${seen} of ${all} seen, ${((100 * seen) / all).toFixed(1)} %  (${seconds} s)\n`);
  if (!options.lines && !options.tests) {
    mkdirSync(dirname(report), { recursive: true });
    writeFileSync(report, `${JSON.stringify({ name, every, seen, all, survivors }, null, 2)}\n`);
  }
}

function described(source, { start, end, text, line }) {
  return {
    line,
    was: source.slice(start, end),
    text,
    around: source.slice(source.lastIndexOf('\n', start) + 1, source.indexOf('\n', end)).trim(),
  };
}

console.log('| file | seen | of | % |\n|---|---|---|---|');
const seen = rows.reduce((sum, row) => sum + row.seen, 0);
const all = rows.reduce((sum, row) => sum + row.all, 0);
for (const row of [...rows, { name: 'all', seen, all }])
  console.log(`| ${row.name} | ${row.seen} | ${row.all} | ${((100 * row.seen) / Math.max(1, row.all)).toFixed(1)} |`);
await vitest.close();
process.exit(0);
