import { visible } from './output.ts';

/** Rows under a header, in columns as wide as they need to be; the last column is not padded. */
export function formatTable(header: readonly string[], given: readonly (readonly string[])[]): string {
  // Names, commands and reasons are what others have written.
  const rows = given.map((row) => row.map(visible));
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)),
  );
  return [header, ...rows]
    .map((row) =>
      row
        .map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
    .concat('\n');
}

/** How long ago `time` (ms since 1970) was: `12 s ago`, `3 h ago`. */
export function formatAge(time: number, now: number): string {
  const seconds = Math.max(0, Math.round((now - time) / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} d ago`;
}
