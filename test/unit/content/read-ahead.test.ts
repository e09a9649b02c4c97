import { describe, expect, test } from 'bun:test';
import { ReadAhead } from '../../../src/content/read-ahead.ts';

describe('read-ahead', () => {
  test('a reader that goes on gets ever more, up to the bound', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 8 }));
    const sizes: number[] = [];
    for (let n = 0; n < 60; n += 1) {
      const range = readAhead.touch(0, n, n, 1000);
      if (range !== undefined) sizes.push(range.last - range.first + 1);
    }
    expect(sizes[0]).toBe(1);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(8);
    expect(sizes.at(-1)).toBeGreaterThanOrEqual(4);
  });

  test('the ranges are contiguous and each span is read ahead once', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 16 }));
    const ahead: number[] = [];
    for (let n = 0; n < 100; n += 1) {
      const range = readAhead.touch(0, n, n, 120);
      if (range === undefined) continue;
      for (let span = range.first; span <= range.last; span += 1) ahead.push(span);
    }
    expect(ahead).toEqual(Array.from({ length: ahead.length }, (_, i) => i + 3));
    expect(ahead.at(-1)).toBeLessThan(120);
  });

  test('random reads get nothing', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 16 }));
    for (const n of [5, 90, 12, 44, 43, 70, 7, 30, 61, 2]) {
      expect(readAhead.touch(0, n, n, 100)).toBeUndefined();
    }
  });

  test('a read across a border, even twice, proves nothing', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 16 }));
    expect(readAhead.touch(0, 10, 11, 100)).toBeUndefined();
    expect(readAhead.touch(0, 10, 11, 100)).toBeUndefined();
    expect(readAhead.touch(0, 11, 11, 100)).toBeUndefined();
  });

  test('interleaved sequential readers are told apart', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 16 }));
    const of: Record<string, number> = { low: 0, high: 0 };
    for (let step = 0; step < 10; step += 1) {
      if (readAhead.touch(0, step, step, 1000)) of.low = (of.low ?? 0) + 1;
      if (readAhead.touch(0, 500 + step, 500 + step, 1000)) of.high = (of.high ?? 0) + 1;
    }
    expect(of.low).toBeGreaterThan(0);
    expect(of.high).toBe(of.low ?? -1);
  });

  test('a reader whose hits are served elsewhere still counts as going on', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 16 }));
    let next = 0;
    const windows: number[] = [];
    for (let miss = 0; miss < 6; miss += 1) {
      const range = readAhead.touch(0, next, next, 1000);
      next = range === undefined ? next + 1 : range.last + 1;
      if (range !== undefined) windows.push(range.last - range.first + 1);
    }
    expect(windows.length).toBeGreaterThanOrEqual(3);
    expect(windows.at(-1)).toBeGreaterThan(windows[0] ?? 0);
  });

  test('without a window there is no read-ahead', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 0 }));
    for (let n = 0; n < 20; n += 1) expect(readAhead.touch(0, n, n, 100)).toBeUndefined();
  });

  test('it stops at the end of the layer', () => {
    const readAhead = new ReadAhead(() => ({ step: 1, most: 16 }));
    for (let n = 0; n < 10; n += 1) expect(readAhead.touch(0, n, n, 10)?.last ?? 0).toBeLessThan(10);
  });

  test('small spans count by the step: a few files in a row prove nothing', () => {
    const readAhead = new ReadAhead(() => ({ step: 10, most: 1000 }));
    for (let n = 0; n < 20; n += 1) expect(readAhead.touch(0, n, n, 5000)).toBeUndefined();
    const ranges = Array.from({ length: 200 }, (_, n) => readAhead.touch(0, 20 + n, 20 + n, 5000));
    const sizes = ranges.flatMap((range) => (range === undefined ? [] : range.last - range.first + 1));
    expect(sizes[0]).toBe(10);
    expect(Math.max(...sizes)).toBeGreaterThan(100);
  });

  test('a reader that goes on behind what came along is still the same', () => {
    const readAhead = new ReadAhead(() => ({ step: 10, most: 1000 }));
    const ranges = [0, 16, 32, 48, 64].map((n) => readAhead.touch(0, n, n, 5000, n + 15));
    expect(ranges).toEqual([undefined, undefined, undefined, undefined, { first: 80, last: 104 }]);
  });
});
