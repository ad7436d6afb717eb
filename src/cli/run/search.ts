// What `llava-gemma search` does.

import { availableParallelism } from 'node:os';
import { basename, extname, join } from 'node:path';
import { alignColumns } from '../../runs/columns.ts';
import { createStatus, formatDuration } from '../../runs/status.ts';
import { planSearch, type SearchForecast } from '../../search/forecast.ts';
import { quantityOf, type SearchReport, summaryRows } from '../../search/search-report.ts';
import { searchToFolder } from '../../search/search-run.ts';
import { loadSearch } from '../../search/search-schema.ts';
import { baseRecipe } from '../../search/trial-recipe.ts';
import { withInterrupt } from '../interrupt.ts';

export interface SearchFlags {
  out?: string;
  plan?: boolean;
  json?: boolean;
}

export async function runSearchCommand(file: string, { out: folder, plan, json }: SearchFlags): Promise<void> {
  const search = loadSearch(file);
  const base = baseRecipe(search.recipe);
  const out = folder ?? join('runs', basename(file, extname(file)));
  const status = createStatus();
  const common = { search, base, file, out, status, cores: availableParallelism() };
  try {
    if (plan) {
      const forecast = await withInterrupt((signal) => planSearch({ ...common, signal }), 'nothing was written');
      status.close();
      console.log(json ? JSON.stringify(forecast, null, 2) : forecastText(file, forecast));
      return;
    }
    const report = await withInterrupt(
      (signal) => searchToFolder({ ...common, signal }),
      `go on with: llava-gemma search ${file} --out ${out}`,
    );
    status.close();
    console.log(json ? JSON.stringify(report, null, 2) : resultText(report, out));
  } finally {
    status.close();
  }
}

function forecastText(file: string, { variants, runs, wholeSchedules, seconds }: SearchForecast): string {
  const lines = variants.map(({ name, trials, confirmations, secondsPerSchedule, steps }) => {
    const rungs = trials.map(({ share, count }) => `${count} of ${share === 1 ? 'the whole schedule' : `${(100 * share).toFixed(1)} %`}`);
    return `${name}: trials: ${rungs.join(', ')}; ${confirmations} runs with fresh seeds; a schedule has ${steps.join(' + ')} steps and takes ${formatDuration(secondsPerSchedule)}`;
  });
  return [`${file}: ${runs} runs, ${wholeSchedules.toFixed(1)} whole schedules, about ${formatDuration(seconds)}`, ...lines].join('\n');
}

function resultText(report: SearchReport, out: string): string {
  const winners = report.variants.map(({ name, winner }) => {
    if (!winner) return `${name}: no whole schedule has a value`;
    const set = Object.entries(winner.values).map(
      ([path, value]) => `--set '${path}=${typeof value === 'string' ? value : JSON.stringify(value)}'`,
    );
    return `${name}: ${set.join(' ')}`;
  });
  return [
    `${quantityOf(report.objective)}, ${report.lowest ? 'low' : 'high'} is good`,
    ...alignColumns(summaryRows(report)),
    '',
    ...winners,
    `Report: ${join(out, 'search.html')}`,
  ].join('\n');
}
