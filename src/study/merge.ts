// Shares of a study put together: what the folder then holds is what one run of the whole would have left,
// but for checkpoints, which stay where they are.

import { existsSync, rmSync } from 'node:fs';
import { UserError } from '../errors.ts';
import {
  contentReader,
  linkTree,
  openStudyFolder,
  readRecord,
  readSettings,
  type StudySettings,
  studyDifference,
  studyFolder,
  writeJson,
} from './folder.ts';
import { piecesOf, runsOf } from './pieces.ts';
import type { Study } from './variants.ts';

/**
 * Fills the folder `out`. UserError for shares of other studies, and for one that is missing, given twice or
 * not at its end.
 */
export function mergeShares(
  study: Study,
  settings: StudySettings,
  shares: readonly string[],
  out: string,
  note: (text: string) => void,
): void {
  const found = shares.map((path) => ({ path, ...readSettings(path) }));
  const [{ threads, ...first }] = found;
  const count = first.shard?.count;
  for (const share of found) {
    const { path, shard } = share;
    const difference = studyDifference(share, settings);
    if (difference !== undefined) throw new UserError(`${path}: is of another study (${difference})`);
    if (shard === null) throw new UserError(`${path}: is no share of a study, but a whole one`);
    if (shard.count !== count) throw new UserError(`${path}: is one of ${shard.count} shares, and ${first.path} one of ${count}`);
  }
  for (let index = 1; index <= count!; index++) {
    const those = found.filter(({ shard }) => shard!.index === index);
    if (those.length === 0) throw new UserError(`share ${index}/${count} is missing`);
    if (those.length > 1) throw new UserError(`share ${index}/${count} was given twice: ${those.map(({ path }) => path).join(' and ')}`);
  }
  for (const { path, shard, contents } of found) {
    const open = runsOf(study, shard!, contentReader(contents)).filter(({ id }) => !readRecord(path, id)).length;
    if (open > 0) throw new UserError(`${path}: has not come to its end (${open} of its runs are open); go on with it first`);
  }
  const other = found.find((share) => share.threads !== threads);
  if (other)
    note(
      `${other.path} was run with ${other.threads} threads a run, and ${first.path} with ${threads}: last bits may differ from those of one machine`,
    );
  openStudyFolder(out, { ...settings, contents: first.contents, threads });
  // pieces are called by what each share has kept of the content of models
  for (const { path, ...share } of found) takeShare(path, out, study, share);
}

function takeShare(from: string, to: string, study: Study, { shard, contents }: StudySettings): void {
  const contentOf = contentReader(contents);
  const runs = runsOf(study, shard!, contentOf);
  const [source, target] = [studyFolder(from), studyFolder(to)];
  for (const { id } of piecesOf(runs, from, contentOf)) {
    const record = readRecord(from, id);
    for (const place of ['run', 'measures'] as const) {
      rmSync(target[place](id), { recursive: true, force: true });
      if (existsSync(source[place](id))) linkTree(source[place](id), target[place](id), (path) => !path.endsWith('checkpoints'));
    }
    // the record last: with it, the run is there
    if (record) writeJson(target.record(id), record);
  }
}
