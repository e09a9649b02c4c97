import { expect, test } from 'bun:test';
import { formatAge, formatTable } from '../../../src/cli/table.ts';

test('columns are as wide as their widest cell, and no line ends in a space', () => {
  const text = formatTable(
    ['ID', 'NAME', 'LAST'],
    [
      ['1', 'a-long-name', 'x'],
      ['22', '', ''],
    ],
  );
  expect(text).toBe('ID  NAME         LAST\n1   a-long-name  x\n22\n');
});

test('a table without rows is its header', () => {
  expect(formatTable(['A', 'B'], [])).toBe('A  B\n');
});

const ages: [seconds: number, text: string][] = [
  [-5, '0 s ago'],
  [0, '0 s ago'],
  [119, '119 s ago'],
  [120, '2 min ago'],
  [7199, '120 min ago'],
  [7200, '2 h ago'],
  [172_799, '48 h ago'],
  [172_800, '2 d ago'],
];
for (const [seconds, text] of ages) {
  test(`${seconds} s are '${text}'`, () => {
    expect(formatAge(0, seconds * 1000)).toBe(text);
  });
}
