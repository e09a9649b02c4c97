import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { isNormalPath, LONGEST_NAME, LONGEST_PATH, normalisePath } from '../../../src/index/entry-name.ts';

/** The slow way: a path is normal when making it so changes nothing. */
function changesNothing(path: Uint8Array): boolean {
  if (path.length === 0) return true;
  try {
    return !path.includes(0) && Buffer.from(normalisePath(path)).equals(path);
  } catch {
    return false;
  }
}

// Bytes that make a difference, and one that stands for all others.
const bytes = fc.array(fc.constantFrom(0, 0x2e, 0x2f, 0x61), { maxLength: 12 });

test('a path is normal if making it so changes nothing', () => {
  fc.assert(
    fc.property(bytes, (values) => {
      const path = new Uint8Array(values);
      expect(isNormalPath(path)).toBe(changesNothing(path));
    }),
    { numRuns: 3000 },
  );
});

const ends = 'nn/'.repeat(LONGEST_PATH / 3);

test.each([
  ['two parts', 'a/b', true],
  ['none', '', true],
  ['three dots', '...', true],
  ['dots and more', '..a', true],
  ['a way up', 'a/../b', false],
  ['where it is', './a', false],
  ['the root first', '/a', false],
  ['a slash last', 'a/', false],
  ['two slashes', 'a//b', false],
  ['a long part', 'n'.repeat(LONGEST_NAME), true],
  ['a part that is too long', 'n'.repeat(LONGEST_NAME + 1), false],
  ['a long path', `${ends}n`, true],
  ['a path that is too long', `${ends}nnn`, false],
])('%s', (_, path, normal) => {
  expect(isNormalPath(Buffer.from(path))).toBe(normal);
  expect(changesNothing(Buffer.from(path))).toBe(normal);
});
