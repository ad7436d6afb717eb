// The table of scores that a terminal shows: a row for each task, its accuracy beside what it must beat.
import { createColors } from 'picocolors';
import { beatsBaselines, type Scores, type TaskScore } from '../evaluate/samples.ts';
import { alignColumns } from '../runs/columns.ts';

const share = (value: number | undefined) => (value === undefined ? '-' : value.toFixed(3));

/** Whether what is printed is looked at on a terminal that shows colors. */
export const showsColor = (): boolean => process.stdout.isTTY === true && !process.env.NO_COLOR;

/**
 * Scores as lines of text. In color, an accuracy is green when it is certainly better than its baselines,
 * else yellow. `*` marks a majority baseline taken from the evaluation itself, which is an upper bound.
 */
export function formatScores(scores: Scores, useColor: boolean): string {
  const colors = createColors(useColor);
  const rows: string[][] = [['', 'accuracy', '95 % interval', 'blind', 'majority', 'random', 'F1', 'yes-rate', 'n']];
  const scoreOfRow: (TaskScore | undefined)[] = [undefined];
  for (const [split, tasks] of Object.entries(scores)) {
    rows.push([split]);
    scoreOfRow.push(undefined);
    for (const [task, score] of Object.entries(tasks)) {
      rows.push([
        `  ${task}`,
        share(score.accuracy),
        `${share(score.ciLow)} - ${share(score.ciHigh)}`,
        share(score.blind),
        `${share(score.majority)}${score.majorityFrom === 'evaluation' ? '*' : ' '}`,
        share(score.random),
        share(score.f1),
        share(score.yesRate),
        String(score.n),
      ]);
      scoreOfRow.push(score);
    }
  }
  const lines = alignColumns(rows, (text, row, column) => {
    const score = scoreOfRow[row];
    if (row === 0) return colors.dim(text);
    if (score === undefined) return colors.bold(text);
    if (column === 1) return beatsBaselines(score) ? colors.green(text) : colors.yellow(text);
    return column >= 2 ? colors.dim(text) : text;
  });
  const isUpperBound = scoreOfRow.some((score) => score?.majorityFrom === 'evaluation');
  if (isUpperBound) lines.push(colors.dim('* most frequent answer of the evaluation itself'));
  return lines.join('\n');
}
