// Tables in plain text.

/**
 * Pads cells to columns: the first to the left, the others to the right. Widths are counted before coloring.
 */
export function alignColumns(
  rows: readonly (readonly string[])[],
  paint: (text: string, row: number, column: number) => string = (text) => text,
): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  return rows.map((row, rowIndex) =>
    row
      .map((cell, column) => {
        const padding = ' '.repeat(widths[column] - cell.length);
        const painted = paint(cell, rowIndex, column);
        return column === 0 ? painted + padding : padding + painted;
      })
      .join('  ')
      .trimEnd(),
  );
}
