import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { Presence } from '../../../src/content/index.ts';

describe('presence', () => {
  test('nothing is present in the beginning', () => {
    const presence = Presence.allocate(70);
    expect(presence.count()).toBe(0);
    expect(presence.hasAll(0, 69)).toBe(false);
  });

  test('a view of the same memory sees what another view sets', () => {
    const presence = Presence.allocate(70);
    const other = new Presence(presence.buffer, 70);
    presence.set(69);
    expect(other.has(69)).toBe(true);
    other.clear(69);
    expect(presence.has(69)).toBe(false);
  });

  test('it equals a set of numbers, whatever is set and cleared', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200 }),
        fc.array(fc.tuple(fc.boolean(), fc.nat(199))),
        (spanCount, steps) => {
          const presence = Presence.allocate(spanCount);
          const model = new Set<number>();
          for (const [set, number] of steps) {
            const n = number % spanCount;
            if (set) {
              presence.set(n);
              model.add(n);
            } else {
              presence.clear(n);
              model.delete(n);
            }
          }
          for (let n = 0; n < spanCount; n += 1) expect(presence.has(n)).toBe(model.has(n));
          expect(presence.count()).toBe(model.size);
        },
      ),
    );
  });
});
