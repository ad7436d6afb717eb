// The search inside a study: every cell is searched with the same budget before its runs, so that a cell is
// judged with the values of the recipe and with its own best ones. Trials have a seed that no run has.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { mapConcurrently } from '../concurrent.ts';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { StatusLine } from '../runs/status.ts';
import { searchFolder } from '../search/search-folder.ts';
import type { SearchReport, VariantResult } from '../search/search-report.ts';
import { planOf, searchToFolder } from '../search/search-run.ts';
import { parseSearch, type SearchFile } from '../search/search-schema.ts';
import { overridesOf } from '../search/space.ts';
import { type BaseRecipe, checkSpace, trialRecipe } from '../search/trial-recipe.ts';
import { type LlavaRecipe, recipeToYaml } from '../train/recipe.ts';
import { askedScores } from './checks.ts';
import { drawOnce } from './execute.ts';
import { studyFolder } from './folder.ts';
import { withScenes } from './pieces.ts';
import type { Study, Tuned, Variant } from './variants.ts';

/** What came of the search of each cell; `name` is the label of the cell. */
export interface StudySearch {
  objective: SearchReport['objective'];
  lowest: boolean;
  cells: VariantResult[];
}

/** The search of one cell; undefined where no field of the space is in its recipe. */
export interface CellSearch {
  cell: string;
  search: SearchFile;
  base: BaseRecipe;
}

/** Cells, each once. */
const searchedCells = ({ variants }: Study): Variant[] => variants.filter(({ searched }) => searched && !searched.isTuned);

const STAGE = /^stages\.(\d+)\.(.+)$/;

/**
 * The space by the stages that a cell has: the file counts those of the recipe, of which a cell may leave
 * some out.
 */
function spaceOf(space: SearchFile['space'], names: readonly string[], { stages }: LlavaRecipe): SearchFile['space'] {
  return Object.fromEntries(
    Object.entries(space).flatMap(([path, dimension]) => {
      const [, number, field] = STAGE.exec(path) ?? [];
      if (number === undefined) return [[path, dimension]];
      const place = stages.findIndex(({ name }) => name === names[Number(number)]);
      return place < 0 && names[Number(number)] !== undefined ? [] : [[place < 0 ? path : `stages.${place}.${field}`, dimension]];
    }),
  );
}

/** UserError for a space or an objective that a cell cannot have. */
export function cellSearches(study: Study): CellSearch[] {
  const { search } = study.file;
  if (!search) return [];
  const { objective, space, ...rest } = search;
  if ('accuracy' in objective && askedScores(study).includes(objective.accuracy))
    throw new UserError(
      `${study.path}: search.objective: ${objective.accuracy} is what the study scores, and would be chosen for: take {held_out: STAGE}, or a split that is not scored`,
    );
  const names = study.stageNames;
  return searchedCells(study).flatMap(({ recipe, searched }) => {
    const cell = searched!.cell;
    const own = spaceOf(space, names, recipe);
    if (Object.keys(own).length === 0) return [];
    const where = `${study.path}: search of cell ${cell || study.file.name}`;
    const file = parseSearch(
      {
        ...rest,
        space: own,
        objective,
        name: `${study.file.name}: ${cell}`,
        recipe: study.file.recipe,
        confirm: { seeds: 0, base: false },
      },
      where,
    );
    const seed = Math.max(...study.seeds) + 1;
    const base = { name: where, text: recipeToYaml(withScenes({ ...recipe, seed })) };
    checkSpace(base, file, file.variants, planOf(file, where).space);
    return [{ cell, search: file, base }];
  });
}

/** How many steps of each stage a trial with the values of the recipe takes. */
export const trialSteps = ({ base, search }: CellSearch): { name: string; steps?: number; epochs?: number }[] =>
  trialRecipe(base, search, { set: [], values: {}, share: 1 }).stages.map(({ name, steps, epochs }) => ({ name, steps, epochs }));

const folderOf = (folder: string, place: number) => join(studyFolder(folder).search, String(place).padStart(2, '0'));

export interface CellSearchOptions {
  folder: string;
  /** Cells that are searched at a time, and threads of a trial. */
  jobs: number;
  threads: number;
  status: StatusLine;
  signal: AbortSignal;
}

/** Searches the cells that have not been yet. Throws what ends a search, and the signal's reason. */
export async function searchCells(study: Study, { folder, jobs, threads, status, signal }: CellSearchOptions): Promise<void> {
  const searches = cellSearches(study);
  const place = (search: CellSearch) => searches.indexOf(search);
  const open = searches.filter((search) => !existsSync(searchFolder(folderOf(folder, place(search))).result));
  for (const { recipe } of open.length > 0 ? searchedCells(study) : []) {
    signal.throwIfAborted();
    await drawOnce(recipe);
  }
  const lines = { update() {}, progress: (text: string) => status.draw(text), note: status.note, close() {} };
  await mapConcurrently(open, jobs, (each) =>
    searchToFolder({
      search: each.search,
      base: each.base,
      file: study.path,
      out: folderOf(folder, place(each)),
      status: { ...lines, note: (text) => status.note(`${each.cell}: ${text.replace(/^base: /, '')}`) },
      signal,
      cores: threads,
      threads,
      scenesAreDrawn: true,
    }),
  );
}

/** What the searches in the folder of a study have found. UserError where one has not come to its end. */
export function readSearch(study: Study, folder: string): StudySearch | undefined {
  const searches = cellSearches(study);
  if (searches.length === 0) return undefined;
  const reports = searches.map(({ cell }, i) => {
    const path = searchFolder(folderOf(folder, i)).result;
    if (!existsSync(path)) throw new UserError(`${folder}: the search of cell ${cell} has not come to its end; go on with the study first`);
    return JSON.parse(onDisk(path, () => readFileSync(path, 'utf8'))) as SearchReport;
  });
  const [{ objective, lowest }] = reports;
  return { objective, lowest, cells: reports.map(({ variants: [variant] }, i) => ({ ...variant, name: searches[i].cell })) };
}

/** The winners, by cell. A cell without one keeps the values of the recipe. */
export const tunedOf = (found: StudySearch | undefined): Tuned =>
  new Map((found?.cells ?? []).map(({ name, winner }) => [name, winner ? overridesOf(winner.values) : []]));
