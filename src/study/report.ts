import { writeFileSync } from 'node:fs';
import { studyFolder } from './folder.ts';
import type { Analyzed } from './results.ts';
import type { Study } from './variants.ts';
export async function writeStudyReport(_study: Study, out: string, { results }: Analyzed): Promise<void> {
  writeFileSync(studyFolder(out).report, JSON.stringify(results));
}
