/** A stretch of ids that the system's administrator has given to a user. @see subuid(5) */
export interface SubordinateRange {
  readonly first: number;
  readonly count: number;
}

/**
 * The ranges that /etc/subuid or /etc/subgid gives to a user.
 * @param names how the file may call the user: by name, or by number
 */
export function parseSubordinateRanges(text: string, names: readonly string[]): SubordinateRange[] {
  return text.split('\n').flatMap((line) => {
    const [name, first, count] = line.split(':');
    if (name === undefined || !names.includes(name)) return [];
    if (!/^\d+$/.test(first ?? '') || !/^[1-9]\d*$/.test(count?.trim() ?? '')) return [];
    return [{ first: Number(first), count: Number(count) }];
  });
}

/** The arguments of newuidmap or newgidmap behind the process: root inside is `own`, then come the ranges. */
export function mapArguments(own: number, ranges: readonly SubordinateRange[]): string[] {
  const numbers = [0, own, 1];
  let inside = 1;
  for (const { first, count } of ranges) {
    numbers.push(inside, first, count);
    inside += count;
  }
  return numbers.map(String);
}
