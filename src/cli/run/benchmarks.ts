// What `llava-gemma benchmarks` does.
import type { Benchmark } from '../../benchmarks/benchmark.ts';
import { benchmarkNamed, benchmarks } from '../../benchmarks/benchmarks.ts';
import { type Download, downloadsOf, isReady } from '../../benchmarks/downloads.ts';
import { alignColumns } from '../../runs/columns.ts';
import { formatBytes, formatCount } from '../format.ts';

export interface BenchmarksFlags {
  data?: string;
  json?: boolean;
}

function stateOf({ found, only, count }: Download, looked: boolean): string {
  if (!looked) return '';
  if (found === undefined) return 'missing';
  return only === undefined ? `there: ${found}` : `only ${formatCount(only)} of ${formatCount(count!)} files: ${found}`;
}

const NEEDS = { score: 'scoring and asking need it', ask: 'asking a model needs it', judge: 'a judge that is a model needs it' };

/** Everything of one benchmark. */
function describe({ name, title, source, harnesses, headline }: Benchmark, downloads: readonly Download[], looked: boolean): string {
  const lines = [`${name}: ${title}`, `  ${source}`, `  headline: ${headline.name}`, '  harnesses (the first is the default):'];
  for (const harness of harnesses) lines.push(`    ${harness.name}: ${harness.about}`);
  lines.push(`  files, in a folder ${name} of --data:`);
  for (const file of downloads) {
    lines.push(`    ${file.places[0]}: ${file.holds}`);
    lines.push(`      ${file.url}`);
    lines.push(`      ${formatBytes(file.bytes)}; ${file.license}; ${NEEDS[file.needed]}`);
    const state = stateOf(file, looked);
    if (state !== '') lines.push(`      ${state}`);
  }
  return lines.join('\n');
}

function readiness(downloads: readonly Download[], looked: boolean): string {
  if (!looked) return '';
  if (isReady(downloads, 'ask')) return 'ready';
  if (isReady(downloads, 'score')) return 'can be scored, not asked';
  return downloads.some(({ found }) => found !== undefined) ? 'incomplete' : 'missing';
}

/** Of all archives, each once. */
const bytesOf = (downloads: readonly Download[]) =>
  [...new Map(downloads.map(({ url, bytes }) => [url, bytes])).values()].reduce((sum, bytes) => sum + bytes, 0);

export function list(name: string | undefined, { data, json }: BenchmarksFlags): void {
  const chosen = name === undefined ? benchmarks : [benchmarkNamed(name)];
  const found = chosen.map((benchmark) => ({ benchmark, downloads: downloadsOf(benchmark, data) }));
  const looked = data !== undefined;
  if (json) {
    const entries = found.map(({ benchmark: { name, title, source, harnesses, headline }, downloads }) => {
      return { name, title, source, harnesses, headline, files: downloads };
    });
    console.log(JSON.stringify(entries, null, 2));
  } else if (name !== undefined) console.log(describe(found[0].benchmark, found[0].downloads, looked));
  else {
    const rows = found.map(({ benchmark, downloads }) => [
      benchmark.name,
      formatBytes(bytesOf(downloads)),
      readiness(downloads, looked),
      benchmark.title,
    ]);
    console.log(alignColumns([['', 'downloads', '', ''], ...rows]).join('\n'));
  }
}
