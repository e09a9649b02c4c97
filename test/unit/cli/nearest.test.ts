import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { editDistance, nearest } from '../../../src/cli/nearest.ts';

const word = fc.stringMatching(/^[abc]{0,7}$/);

const distances: [a: string, b: string, distance: number][] = [
  ['', '', 0],
  ['', 'abc', 3],
  ['abc', 'abc', 0],
  ['abc', 'acb', 1],
  ['abc', 'ab', 1],
  ['abc', 'abd', 1],
  ['kitten', 'sitting', 3],
];
for (const [a, b, distance] of distances) {
  test(`from '${a}' to '${b}' are ${distance} steps`, () => {
    expect(editDistance(a, b)).toBe(distance);
  });
}

test('property: the distance is symmetric, zero only for equal words, and at most the longer length', () => {
  fc.assert(
    fc.property(word, word, (a, b) => {
      const distance = editDistance(a, b);
      expect(distance).toBe(editDistance(b, a));
      expect(distance === 0).toBe(a === b);
      expect(distance).toBeLessThanOrEqual(Math.max(a.length, b.length));
      expect(distance).toBeGreaterThanOrEqual(Math.abs(a.length - b.length));
    }),
  );
});

test('property: one edit is one step away', () => {
  fc.assert(
    fc.property(word, fc.nat(), fc.constantFrom('x', 'y'), (text, at, letter) => {
      const place = at % (text.length + 1);
      expect(editDistance(text, text.slice(0, place) + letter + text.slice(place))).toBe(1);
    }),
  );
});

test('property: what is found is a candidate, and none is nearer', () => {
  fc.assert(
    fc.property(word, fc.array(word), (text, candidates) => {
      const found = nearest(text, candidates);
      const least = Math.min(...candidates.map((candidate) => editDistance(text, candidate)));
      if (found === undefined) expect(least).toBeGreaterThan(Math.max(1, Math.floor(text.length / 3)));
      else expect(editDistance(text, found)).toBe(least);
    }),
  );
});

test('a word that is nothing like any candidate has no nearest one', () => {
  expect(nearest('frobnicate', ['image', 'run'])).toBeUndefined();
});
