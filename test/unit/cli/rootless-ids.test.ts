import { describe, expect, test } from 'bun:test';
import { mapArguments, parseSubordinateRanges } from '../../../src/cli/rootless-ids.ts';

describe('subordinate ids', () => {
  const file = 'alice:100000:65536\nbob:165536:65536\n1000:300000:10\nalice:400000:5\n';

  test('are those of the user, by name or number, in the file’s order', () => {
    expect(parseSubordinateRanges(file, ['1000', 'alice'])).toEqual([
      { first: 100_000, count: 65_536 },
      { first: 300_000, count: 10 },
      { first: 400_000, count: 5 },
    ]);
    expect(parseSubordinateRanges(file, ['1001', 'carol'])).toEqual([]);
  });

  test('are not taken from lines that are no ranges', () => {
    const broken = 'alice\nalice:1\nalice:x:5\nalice:5:0\nalice:-1:5\n# alice:1:1\nalice:7:8 \n';
    expect(parseSubordinateRanges(broken, ['alice'])).toEqual([{ first: 7, count: 8 }]);
  });

  test('follow the user’s own id, which is root inside', () => {
    const ranges = [
      { first: 100_000, count: 65_536 },
      { first: 400_000, count: 5 },
    ];
    expect(mapArguments(1000, ranges).join(' ')).toBe('0 1000 1 1 100000 65536 65537 400000 5');
  });
});
