// Answers in tables, as sheets for upload are exported: a column of ids, and one of answers for each system.

import type { AnswerLine } from './answers.ts';
import { columnOf, readTable, wholeNumber } from './table.ts';

/** Columns that published tables have besides answers, in lower case. */
const KNOWN = new Set(
  (
    'index question hint a b c d e answer category l2-category source comment split image image_path question_id question_type ' +
    'question_type_id data_type data_id choice_a choice_b choice_c choice_d segment gt g_index'
  ).split(' '),
);

/** Whether a file is a table, by its name. */
export const isTable = (path: string): boolean => /\.(tsv|csv|txt|xlsx?)$/i.test(path);

/**
 * The answers of each system in a table: of the column `prediction` or, where there is none, of each column
 * that is not one of the benchmark's own. UserError where there are none.
 */
export function readAnswerTable(path: string, ...idNames: readonly string[]): Map<string, AnswerLine[]> {
  const table = readTable(path, { leave: (column) => /^image$/i.test(column) });
  const { columns } = table;
  const id = columnOf(table, path, ...idNames);
  const others = columns.filter((column) => column !== '' && !KNOWN.has(column.toLowerCase()));
  const predictions = others.filter((column) => column.toLowerCase() === 'prediction');
  const systems = predictions.length > 0 ? predictions : others;
  if (systems.length === 0) columnOf(table, path, 'prediction');
  return new Map(
    systems.map((system) => [system, table.rows.map(({ cells, where }) => ({ id: wholeNumber(cells[id]), text: cells[system], where }))]),
  );
}
