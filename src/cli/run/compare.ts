// What `llava-gemma compare` does.

import { compareEvaluations } from '../../benchmarks/compare.ts';
import { comparisonPage, comparisonTable, picturesIn } from '../../benchmarks/compare-report.ts';
import { writeWhole } from '../../disk.ts';
import { UserError } from '../../errors.ts';

export interface CompareFlags {
  out?: string;
  data?: string;
  limit: number;
  json?: boolean;
}

export async function compare(a: string, b: string, { out, data, limit, json }: CompareFlags): Promise<void> {
  if (data !== undefined && out === undefined) throw new UserError('--data is for the pictures of the page that --out names');
  const { pairs, ...comparison } = compareEvaluations(a, b);
  if (out !== undefined) writeWhole(out, await comparisonPage(comparison, pairs, limit, await picturesIn(comparison, data)));
  console.log(json ? JSON.stringify(comparison, null, 2) : comparisonTable(comparison));
  if (out !== undefined && !json) console.log(`page: ${out}`);
}
