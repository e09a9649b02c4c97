import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { type CacheFile, chooseVictims } from '../../../src/content/space-budget.ts';

const file = (name: string, bytes: number, lastUsed: number, more: Partial<CacheFile> = {}): CacheFile => ({
  kind: 'layer',
  name,
  path: name,
  bytes,
  lastUsed,
  live: false,
  ...more,
});

describe('choosing what to evict', () => {
  test('nothing, where there is room', () => {
    expect(chooseVictims([file('a', 10, 1)], 20, 10)).toEqual([]);
  });

  test('the longest unused first, and no more than needed', () => {
    const files = [file('new', 40, 3), file('old', 40, 1), file('middle', 40, 2)];
    expect(chooseVictims(files, 120, 10).map((one) => one.name)).toEqual(['old']);
  });

  test('never what is live or coming in', () => {
    const files = [
      file('live', 100, 1, { live: true }),
      file('in', 100, 1, { kind: 'incoming' }),
      file('idle', 1, 2),
    ];
    expect(chooseVictims(files, 100, 10).map((one) => one.name)).toEqual(['idle']);
  });

  test('what is left fits, or nothing idle is left', () => {
    const files = fc.array(
      fc
        .record({ bytes: fc.nat(100), lastUsed: fc.nat(100), live: fc.boolean() })
        .map((one) => file('x', one.bytes, one.lastUsed, one)),
    );
    fc.assert(
      fc.property(files, fc.nat(1000), fc.nat(50), (all, limit, needed) => {
        const victims = new Set(chooseVictims(all, limit, needed));
        const left = all.filter((one) => !victims.has(one));
        const used = left.reduce((sum, one) => sum + one.bytes, 0);
        expect([...victims].some((one) => one.live)).toBe(false);
        expect(used + needed <= limit || left.every((one) => one.live || one.bytes === 0)).toBe(true);
      }),
    );
  });
});
